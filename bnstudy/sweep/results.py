"""The results of a command: those of each run, the table of all, and the runs that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bnstudy.store.integrity import DamagedRun
from bnstudy.store.outcomes import counted_accuracy, describe_status
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import Failure, plural, recorded_error
from bnstudy.sweep.plan import Plan
from bnstudy.sweep.progress import FROM_PYTHON, RunResult, table
from bnstudy.sweep.request import PlannedRun, Request
from bnstudy.validation import printable

MAX_FAILURES = 10
"""So many failed runs are named at the end."""


class RunsFailed(Exception):  # noqa: N818
    """Some runs failed; the others are stored."""

    exit_status = 1


def all_results(plan: Plan, failures: Sequence[Failure], command: str) -> list[RunResult]:
    """The results of all runs of the plan, in the order of the command line."""
    errors = {failure.run_id: failure.error for failure in failures}

    def result(run: PlannedRun) -> RunResult:
        run_id = run.spec.run_id
        paths = plan.store.run(run_id)
        if plan.store.is_finished(run_id):
            try:
                return stored_result(run, plan.store)
            except DamagedRun as damage:
                error = str(damage)
        else:
            error = errors.get(run_id) or recorded_error(paths.error, command) or "it was not trained"
        return RunResult(run_id, run.name, run.arm, "failed", math.nan, math.nan, paths.folder, error)

    return [result(run) for run in plan.runs]


def stored_result(run: PlannedRun, store: Store) -> RunResult:
    """The result of a finished run, with the accuracy of guessing if it diverged or did not learn; a regression has no
    accuracy.

    Raises:
        DamagedRun: a file of the run is not what was stored.
    """
    run_id, summary = run.spec.run_id, store.check(run.spec.run_id)
    status, seconds = describe_status(summary), summary["seconds"]["total"]
    accuracy = counted_accuracy(summary)
    accuracy = math.nan if accuracy is None else accuracy
    return RunResult(run_id, run.name, run.arm, status, accuracy, seconds, store.run(run_id).folder)


def report_results(request: Request, results: Sequence[RunResult]) -> None:
    """Print the table, unless seeds are added until claims are decided, or the caller gets the results as a frame.

    Raises:
        RunsFailed: a run failed; the others are stored.
    """
    shows_table = request.settings.progress and request.settings.until is None and not FROM_PYTHON.get()
    if results and shows_table:
        print(printable(table(results, "study" if request.members else "arm")))
    failed = [r for r in results if r.status == "failed"]
    if failed:
        others = "; the others are stored:" if len(failed) < len(results) else ":"
        lines = [f"{len(failed)} of {plural(len(results), 'run')} failed{others}"]
        for r in failed[:MAX_FAILURES]:
            path = r.folder / "error.txt"
            lines.append(f"  {r.name or r.run_id}: {r.error}" + (f" (traceback in {path})" if path.exists() else ""))
        lines += [f"  and {len(failed) - MAX_FAILURES} more"] if len(failed) > MAX_FAILURES else []
        raise RunsFailed("\n".join(lines))
