"""256 runs on digits against plain loops and JAX, their memory, and the time that does not depend on steps."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import commands
from benchmarks.baseline import Task, plain_loops
from benchmarks.runs import CPU, spec_of
from benchmarks.table import Row, at_most, speedup
from benchmarks.workload import DIGITS, NORMS, RATES, Workload, sweep_arguments

QUICK, SHORT, LONG = 200, 500, 4000
"""Steps of a run: of quick studies; where the start-up matters; and where it does not."""

JAX = Path(__file__).with_name("jax_loops.py")


@dataclass
class DigitsTimes:
    """Seconds of whole commands, one value per repeat, and of a plain step by number of processes.

    bnstudy: by steps and the state of the caches ("empty caches" or "warm"); jax: by steps.
    resident, resident_each: of the longest sweep, in bytes; see `CommandCost`.
    """

    runs: int
    torch: list[float] = field(default_factory=list)
    bnstudy: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    jax: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    loop_step: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    resident: int = 0
    resident_each: int = 0


def digits(work: Workload) -> list[Row]:
    seeds = work.few(16, 2)
    times = DigitsTimes(len(NORMS) * len(RATES) * seeds)
    task = Task(DIGITS, NORMS, work.few(SHORT, 5), work.few(2, 1), work.folder / "cache")
    spec_of(*DIGITS, "steps=1").data.load(task.cache, CPU)  # decoded here, so that no timed process decodes it
    with plain_loops(1) as one, plain_loops(2) as two:

        def time_loops() -> None:
            work.say("digits: plain loops")
            times.loop_step[1].append(one.seconds_per_step(task))
            times.loop_step[2].append(two.seconds_per_step(task))

        time_loops()
        for repeat in range(work.repeats):
            caches = work.folder / f"caches-{repeat}"
            time_sweep(work, times, seeds, SHORT, "empty caches", caches)
            time_jax(work, times, seeds, SHORT)
            time_sweep(work, times, seeds, SHORT, "warm", caches)
            time_sweep(work, times, seeds, QUICK, "warm", caches)
            time_sweep(work, times, seeds, 2, "warm", caches)
            times.torch.append(commands.import_torch(work.folder))
            time_loops()
        time_sweep(work, times, seeds, LONG, "warm", caches)
        time_jax(work, times, seeds, LONG)
        time_loops()
    return rows(times)


def time_sweep(work: Workload, times: DigitsTimes, seeds: int, steps: int, state: str, caches: Path) -> None:
    """Time a sweep with an empty store."""
    work.say(f"digits: {times.runs} runs of {steps} steps, {state}")
    store = work.folder / f"store-{sum(map(len, times.bnstudy.values()))}"
    arguments = [*sweep_arguments(DIGITS, RATES, seeds, store), f"steps={work.few(steps, 5)}"]
    cost = commands.run(*arguments, folder=work.folder, cache=caches)
    times.bnstudy[f"{steps} {state}"].append(cost.seconds)
    if steps == LONG:
        times.resident, times.resident_each = cost.resident, cost.resident_each


def time_jax(work: Workload, times: DigitsTimes, seeds: int, steps: int) -> None:
    if importlib.util.find_spec("jax") is not None:
        work.say(f"digits: JAX, {steps} steps")
        cost = commands.measure(str(JAX), str(work.few(steps, 5)), f"--seeds={seeds}", folder=work.folder)
        times.jax[str(steps)].append(cost.seconds)


def plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}


def rows(times: DigitsTimes) -> list[Row]:
    seconds = {name: median(each) for name, each in times.bnstudy.items()}
    step = {processes: median(each) for processes, each in times.loop_step.items()}
    torch = median(times.torch)

    def against_loops(processes: int, steps: int, state: str, least: float) -> Row:
        by = "a plain loop" if processes == 1 else f"{processes} processes of plain loops"
        what = f"{times.runs} runs x {steps} steps, {state}, against {by}"
        return speedup(what, seconds[f"{steps} {state}"], step[processes] * times.runs * steps, least)

    def against_jax(steps: int, state: str) -> Row:
        what = f"{times.runs} runs x {steps} steps, {state}, against JAX"
        if not times.jax:
            return Row(what, "skipped: jax is not installed: pip install bnstudy[benchmark]", ">= 1 x")
        return speedup(what, seconds[f"{steps} {state}"], median(times.jax[str(steps)]), 1)

    beyond = f"{times.runs} runs x 2 steps, beyond the import of torch ({torch:.1f} s)"
    memory = at_most(f"memory of {times.runs} runs x {LONG} steps", times.resident / 2**30, 1.5, "GiB", 2)
    return [
        replace(against_loops(1, SHORT, "empty caches", 8), raw=plain(vars(times))),
        against_loops(1, SHORT, "warm", 10),
        against_loops(1, QUICK, "warm", 5),
        against_loops(1, LONG, "warm", 12),
        against_loops(2, LONG, "warm", 6),
        against_jax(SHORT, "warm"),
        against_jax(LONG, "warm"),
        at_most(beyond, seconds["2 warm"] - torch, 4),
        memory,
    ]
