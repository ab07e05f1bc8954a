"""The description of a plan, before it is trained and in a dry run."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from bnstudy.report.commands import RESULTS_DIR
from bnstudy.store.integrity import DamagedRun
from bnstudy.sweep.messages import plural
from bnstudy.sweep.plan import Plan, Stack
from bnstudy.sweep.progress import duration

EXPECTED = "Expected to take "
"""Begins a line."""

MAX_SAMPLES = 5
"""So many finished runs of a kind are read to estimate the time of the others."""


def describe_plan(plan: Plan, stacks: Sequence[Stack], device: str, executor: str, workers: int) -> list[str]:
    """A summary of the plan, in one or two lines."""
    finished = len(plan.runs) - len(plan.todo)
    counts = f"{plural(len(plan.runs), 'run')}: {finished} finished, {len(plan.todo)} to do"
    logged = [describe_unlogged(plan)] if plan.settings.logger is not None and finished else []
    if not stacks:
        return [f"{counts}.", *logged]
    how = describe_methods(stacks)
    count = min(workers, len(stacks))
    processes = "1 process" if count == 1 else f"{count} processes"
    where = {"inprocess": f"on {device}", "processes": f"on {device}, in {processes}"}
    lines = [f"{counts}, {how}, {where.get(executor, f'by {executor}')}."]
    lines += [*logged, *describe_reasons(stacks)]
    seconds = expected_seconds(plan, count)
    return lines if math.isnan(seconds) else [*lines, f"{EXPECTED}about {duration(seconds)}."]


def describe_unlogged(plan: Plan) -> str:
    """How the logger gets the metrics of runs that are finished already."""
    logger, where = plan.settings.logger, plan.settings.results
    assert logger is not None
    is_own = type(logger).__module__.startswith("bnstudy.loggers.")
    words = ["bnstudy", "export", logger.module if is_own else "NAME"]
    words += [] if where == RESULTS_DIR else [f"results_dir={where}"]
    return f"The logger gets only the runs that are trained now; for the finished ones: {shlex.join(words)}"


def describe_methods(stacks: Sequence[Stack]) -> str:
    stacked = [len(stack.runs) for stack in stacks if stack.method.engine == "stacked"]
    alone = sum(len(stack.runs) for stack in stacks if stack.method.engine == "serial")
    least, most = min(stacked, default=0), max(stacked, default=0)
    sizes = str(most) if least == most else f"{least} to {most}"
    parts = [f"{plural(len(stacked), 'stack')} of {sizes}"] if stacked else []
    parts += [f"{alone} one by one" if stacked else "one by one"] if alone else []
    return " and ".join(parts)


def describe_reasons(stacks: Sequence[Stack]) -> list[str]:
    """One line for each network and reason that it cannot be stacked, or its step not compiled."""
    methods = {(stack.runs[0].spec.model.label, stack.method.engine, stack.method.reason) for stack in stacks}
    then = {"serial": "stacked ({}): its runs go one by one", "stacked": "compiled ({}): its steps take longer"}
    return [f"model={label} cannot be {then[engine].format(why)}." for label, engine, why in sorted(methods) if why]


def expected_seconds(plan: Plan, workers: int) -> float:
    """Estimate from finished runs of the same kinds; NaN if a kind has none."""
    store, todo = plan.store, {run.spec.run_id for run in plan.todo}
    open_runs = Counter(run.spec.stack_key for run in plan.todo)
    total = 0.0
    for key, count in open_runs.items():
        done = [run for run in plan.runs if run.spec.stack_key == key and run.spec.run_id not in todo][:MAX_SAMPLES]
        seconds = []
        for run in done:
            with suppress(DamagedRun):  # it is named with the results
                seconds.append(store.summary(run.spec.run_id)["seconds"]["total"])
        total += count * sum(seconds) / len(seconds) if seconds else math.nan
    return total / workers
