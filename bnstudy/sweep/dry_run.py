"""What a dry run prints: the grid of runs, the stacks by kind, the time they would take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from bnstudy.report.terminal import align
from bnstudy.sweep.describe import expected_seconds
from bnstudy.sweep.plan import Plan, Stack
from bnstudy.sweep.progress import duration
from bnstudy.sweep.request import PlannedRun, Request

MAX_VALUES = 8
"""So many values of a key are listed."""

MAX_KINDS = 40
OVERRIDE = re.compile(r" (?=[\w.@/~+]+=)")
"""Separates the overrides in the name of a run, whose values may have spaces."""


def describe_dry_run(
    request: Request, plan: Plan, stacks: Sequence[Stack], seconds: Mapping[str, float], workers: int, width: int | None
) -> list[str]:
    """The lines of a dry run.

    seconds: of a run on one core, by its `stack_key`: an estimate from the size of its network.
    """
    if not stacks:
        return []
    count = max(1, min(workers, len(stacks)))
    if request.members:
        lines = ["", studies_table(request.members, plan, seconds, count, width)]
    else:
        lines = ["", grid_table(plan.runs, width)] if len(plan.runs) > 1 else []
        lines += ["", kinds_table(stacks, seconds, count, width)]
    total, basis = expected_seconds(plan, count), "by finished runs of these kinds"
    if math.isnan(total):
        total, basis = estimate(plan.todo, seconds, count), "by the sizes of the networks, within a factor of 2 or so"
    return [
        *lines,
        "",
        f"Expected to take about {duration(max(1.0, total))} of training ({basis}). Nothing was trained.",
    ]


def estimate(runs: Sequence[PlannedRun], seconds: Mapping[str, float], workers: int) -> float:
    return max(1.0, sum(seconds[run.spec.stack_key] for run in runs) / workers)


def grid_table(runs: Sequence[PlannedRun], width: int | None) -> str:
    """The keys in which the runs differ: how many values each has, and which."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for word in OVERRIDE.split(run.name):
            key, is_assignment, value = word.partition("=")
            if is_assignment:
                values.setdefault(key, {})[value] = None
    whole = math.prod(map(len, values.values())) == len(runs)
    about = f"{'Every combination' if whole else 'Some combinations'} of:"
    rows = [["", key, str(len(of_key)), _list(list(of_key))] for key, of_key in values.items()]
    return "\n".join([about, align(rows, right=[2], flexible=[3], width=width)])


def _list(values: Sequence[str]) -> str:
    if len(values) <= MAX_VALUES:
        return ", ".join(values)
    return f"{', '.join(values[: MAX_VALUES - 2])}, ..., {values[-1]}"


COLUMNS = ("model", "norm", "data", "optim", "loss")
"""The parts of a run that a row names; the last three only if the runs differ in them."""


def kinds_table(stacks: Sequence[Stack], seconds: Mapping[str, float], workers: int, width: int | None) -> str:
    """A row for the runs that look alike: their stacks, the engine, the steps, the time."""
    kinds: dict[tuple[str, ...], list[Stack]] = {}
    for stack in stacks:
        spec, method = stack.runs[0].spec, stack.method
        engine = method.engine + (", not compiled" if method.engine == "stacked" and not method.compiled else "")
        labels = (getattr(spec, column).label for column in COLUMNS)
        kinds.setdefault((*labels, engine, str(stack.steps)), []).append(stack)
    shown = [i for i in range(len(COLUMNS)) if i < 2 or len({kind[i] for kind in kinds}) > 1]
    rows = [["runs", "stacks", "engine", "steps", "time"]]
    for (*_, engine, steps), of_kind in kinds.items():
        count = sum(len(stack.runs) for stack in of_kind)
        time = sum(len(stack.runs) * seconds[stack.runs[0].spec.stack_key] for stack in of_kind) / workers
        rows.append([str(count), _sizes(of_kind), engine, steps, duration(max(1.0, time))])
    heads = [[COLUMNS[i] for i in shown], *([kind[i] for i in shown] for kind in kinds)]
    table = [["", *head, *row] for head, row in zip(heads, rows, strict=True)][: MAX_KINDS + 1]
    n = len(shown)
    text = align(table, right=[n + 1, n + 4, n + 5], flexible=[1], width=width)
    return f"{text}\n  and {len(kinds) - MAX_KINDS} more kinds" if len(kinds) > MAX_KINDS else text


def _sizes(stacks: Sequence[Stack]) -> str:
    """`"6 of 28"`."""
    if stacks[0].method.engine == "serial":
        return "-"
    sizes = [len(stack.runs) for stack in stacks]
    least, most = min(sizes), max(sizes)
    return f"{len(sizes)} of {most if least == most else f'{least} to {most}'}"


def studies_table(
    members: Sequence[Request], plan: Plan, seconds: Mapping[str, float], workers: int, width: int | None
) -> str:
    """A row for each of several studies."""
    todo = {run.spec.run_id for run in plan.todo}
    rows = [["", "study", "arms", "rates", "seeds", "runs", "to do", "time"]]
    for member in members:
        assert member.study is not None
        specs = {run.spec.run_id: run for run in member.runs}
        missing = [run for run_id, run in specs.items() if run_id in todo]
        arms = {tuple(word for word in OVERRIDE.split(run.arm) if not word.startswith("lr=")) for run in member.runs}
        counts = (arms, {run.spec.lr for run in member.runs}, {run.spec.seed for run in member.runs}, specs, missing)
        time = duration(estimate(missing, seconds, workers)) if missing else "-"
        rows.append(["", member.option, *(str(len(count)) for count in counts), time])
    return align(rows, right=range(2, 8), width=width)
