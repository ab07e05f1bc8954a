"""What a dry run prints: the grid of runs, the stacks by kind, the time they would take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from bnstudy.report.terminal import align, wrap
from bnstudy.sweep.describe import expected_seconds
from bnstudy.sweep.messages import plural
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
    count = max(1, min(workers, len(stacks)))
    if request.members:
        lines = ["", studies_table(request.members, plan, seconds, count, width)]
    else:
        lines = ["", grid_table(plan.runs, width)] if len(plan.runs) > 1 else []
        lines += ["", kinds_table(stacks, seconds, count, width)] if stacks else []
    if stacks:
        measured = expected_seconds(plan, count)
        basis = "from finished runs of these kinds" if not math.isnan(measured) else "from the sizes of the networks"
        total = estimate(plan.todo, seconds, count) if math.isnan(measured) else measured
        lines += ["", f"Expected to take about {duration(total)} ({basis}). Nothing was trained."]
    return lines


def estimate(runs: Sequence[PlannedRun], seconds: Mapping[str, float], workers: int) -> float:
    return sum(seconds.get(run.spec.stack_key, math.nan) for run in runs) / workers


def grid_table(runs: Sequence[PlannedRun], width: int | None) -> str:
    """The keys in which the runs differ: how many values each has, and which."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for word in OVERRIDE.split(run.name):
            key, is_assignment, value = word.partition("=")
            if is_assignment:
                values.setdefault(key, {})[value] = None
    sizes = " x ".join(f"{len(of_key)} {key}" for key, of_key in values.items())
    whole = math.prod(map(len, values.values())) == len(runs)
    about = f"{plural(len(runs), 'run')}: {sizes}{'' if whole else ', not every combination'}."
    rows = [[f"  {key}", str(len(of_key)), _list(list(of_key))] for key, of_key in values.items()]
    return "\n".join([wrap(about, width), align(rows, right=[1], flexible=[2], width=width)])


def _list(values: Sequence[str]) -> str:
    if len(values) <= MAX_VALUES:
        return ", ".join(values)
    return f"{', '.join(values[: MAX_VALUES - 2])}, ..., {values[-1]}"


def kinds_table(stacks: Sequence[Stack], seconds: Mapping[str, float], workers: int, width: int | None) -> str:
    """A row for each kind of runs: its stacks, the engine, the steps, the time."""
    kinds: dict[str, list[Stack]] = {}
    for stack in stacks:
        kinds.setdefault(stack.runs[0].spec.stack_key, []).append(stack)
    specs = {key: of_kind[0].runs[0].spec for key, of_kind in kinds.items()}
    labels = {
        name: {key: getattr(spec, name).label for key, spec in specs.items()}
        for name in ("model", "norm", "data", "optim", "loss")
    }
    labels["batch"] = {key: str(spec.batch_size) for key, spec in specs.items()}
    shown = [name for name in labels if name in ("model", "norm") or len({*labels[name].values()}) > 1]
    rows = [[f"  {shown[0]}", *shown[1:], "runs", "stacks", "engine", "steps", "time"]]
    for key, of_kind in list(kinds.items())[:MAX_KINDS]:
        count, method = sum(len(stack.runs) for stack in of_kind), of_kind[0].method
        engine = method.engine + (" (not compiled)" if method.engine == "stacked" and not method.compiled else "")
        time = duration(count * seconds.get(key, math.nan) / workers)
        first, *others = (labels[name][key] for name in shown)
        rows.append([f"  {first}", *others, str(count), _sizes(of_kind), engine, str(of_kind[0].steps), time])
    n = len(shown)
    table = align(rows, right=[n, n + 3, n + 4], flexible=[1], width=width)
    left = len(kinds) - MAX_KINDS
    return f"{table}\n  and {left} more kinds" if left > 0 else table


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
    rows = [["  study", "arms", "rates", "seeds", "runs", "to do", "time"]]
    for member in members:
        assert member.study is not None
        specs = {run.spec.run_id: run for run in member.runs}
        missing = [run for run_id, run in specs.items() if run_id in todo]
        arms = {tuple(word for word in OVERRIDE.split(run.arm) if not word.startswith("lr=")) for run in member.runs}
        counts = (arms, {run.spec.lr for run in member.runs}, {run.spec.seed for run in member.runs}, specs, missing)
        time = duration(estimate(missing, seconds, workers)) if missing else "-"
        rows.append([f"  {member.study.name}", *(str(len(count)) for count in counts), time])
    return align(rows, right=range(1, 7), width=width)
