"""The results of a command: those of each run, the table of all, and the runs that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bnstudy.report.commands import report_command
from bnstudy.store.files import conf_dir
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.outcomes import counted_accuracy, describe_status
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import Failure, plural, recorded_error
from bnstudy.sweep.plan import Plan
from bnstudy.sweep.progress import FROM_PYTHON, RunResult, say, table
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


def report_results(request: Request, results: Sequence[RunResult], folders: Sequence[Path] = ()) -> None:
    """Print the table and what to type next, unless seeds are added until claims are decided, or the caller gets the
    results as a frame.

    folders: with the user's own claims.

    Raises:
        RunsFailed: a run failed; the others are stored.
    """
    shows_table = request.settings.progress and request.settings.until is None and not FROM_PYTHON.get()
    if results and shows_table:
        print(printable(table(results, "study" if request.members else "arm")), flush=True)
        say(next_step(request, results, folders))
    failed = [r for r in results if r.status == "failed"]
    if failed:
        others = "; the others are stored:" if len(failed) < len(results) else ":"
        lines = [f"{len(failed)} of {plural(len(results), 'run')} failed{others}"]
        for r in failed[:MAX_FAILURES]:
            path = r.folder / "error.txt"
            lines.append(f"  {r.name or r.run_id}: {r.error}" + (f" (traceback in {path})" if path.exists() else ""))
        lines += [f"  and {len(failed) - MAX_FAILURES} more"] if len(failed) > MAX_FAILURES else []
        raise RunsFailed("\n".join(lines))


def next_step(request: Request, results: Sequence[RunResult], folders: Sequence[Path]) -> str:
    """What to type to see more, for the same working directory."""
    where = request.settings.results
    if request.members:
        command = report_command(where, "all", request.scale, config_dirs=own_folders(folders))
    elif request.study is not None:
        command = report_command(where, request.study.name, request.scale, config_dirs=own_folders(folders))
    elif len(results) > 1:
        command = report_command(where)
    else:
        return f"The run is in {results[0].folder}."
    return f"Next: {command} --open"


def own_folders(folders: Sequence[Path]) -> list[Path]:
    """The user's folders of configs, of those with claims."""
    here = Path.cwd()
    own = [folder.parent for folder in folders if folder.parent != conf_dir() and folder.parent.is_dir()]
    return [folder.relative_to(here) if folder.is_relative_to(here) else folder for folder in own]
