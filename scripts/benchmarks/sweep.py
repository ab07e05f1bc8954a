"""`benchmark.py sweep`: the time and memory of whole commands against plain loops, with targets."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import commands
from benchmarks.baseline import Task, seconds_for
from benchmarks.recording import time_recording
from benchmarks.runs import CPU, spec_of
from bnstudy.store.loading import load_runs
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError

CORES = 2
SHORT = 300
"""Steps of a run that is so short that the start-up time matters."""

LONGER = 3
"""Length of the longer runs on MNIST, relative to the others."""

NORMS = ("none", "batch")
RATES = ("0.01", "0.02", "0.03", "0.04", "0.06", "0.08", "0.1", "0.15")
"""At these rates no run on digits diverges; a diverged run would end early."""

DIGITS = ("model=mlp", "model.depth=4", "model.width=64", "data=digits", "batch_size=32")
MNIST = ("model=mlp", "model.depth=3", "model.width=100", "data=mnist", "batch_size=60")
TINY = ("model=mlp", "model.depth=1", "data=digits", "batch_size=32", "steps=1")


@dataclass(frozen=True)
class Row:
    """A row of the table. `ok` is None without a target; `raw` has the measurements."""

    what: str
    measured: str
    target: str = ""
    ok: bool | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """The amount of work.

    seeds: runs with each norm and learning rate on digits; half as many on MNIST.
    timed: runs of each norm that the plain loops train in each process, each time.
    many: planned runs, and stacks that one worker trains.
    """

    folder: Path
    root: str
    steps: int
    repeats: int
    seeds: int = 16
    timed: int = 2
    planned: int = 1000
    many: tuple[int, int] = (20_000, 300)
    stacked: int = 32
    quickstart: tuple[str, ...] = ()


def measure_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Print the table and return its rows."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": processor(), "python": platform.python_version()}
    print(f"torch {torch.__version__}, {machine['cores']} cores ({machine['processor']}), {options.steps} steps")
    root = "data.root=" + str(Path(options.root.removeprefix("data.root=")).absolute())
    rows: dict[str, list[Row]] = {}
    for name in options.only:
        with TemporaryDirectory() as folder:
            work = Workload(Path(folder), root, options.steps, options.repeats)
            rows[name] = MEASURES[name](shrink(work) if options.try_out else work)
    print(table([row for of_name in rows.values() for row in of_name]))
    return {"machine": machine, "rows": {name: [asdict(row) for row in of_name] for name, of_name in rows.items()}}


def shrink(work: Workload) -> Workload:
    few = ("lr=0.1", "seed=0", "steps=5")
    return Workload(
        work.folder, work.root, work.steps, 1, seeds=2, timed=1, planned=20, many=(20, 2), stacked=3, quickstart=few
    )


# ---------------------------------------------------------------------------------------------------- measurements


def digits(work: Workload) -> list[Row]:
    """256 runs against plain loops, and again with short runs."""
    long = compare_with_loops(work, DIGITS, RATES, work.seeds, work.steps)
    rows = [speed_up(long, "digits MLP", 1, 8), speed_up(long, "digits MLP", 2, 5), memory(long)]
    if work.steps > SHORT:
        short = compare_with_loops(work, DIGITS, RATES, work.seeds, SHORT)
        rows += [speed_up(short, "digits MLP", 1), speed_up(short, "digits MLP", 2)]
    return rows


def mnist(work: Workload) -> list[Row]:
    """32 runs against plain loops in two processes, and again with longer runs, where start-up matters less."""
    try:
        spec_of(*MNIST, work.root, "steps=1").data.load(work.folder / "cache", CPU)
    except ConfigError:
        return [Row("MNIST MLP", f"skipped: MNIST is not in {work.root}")]
    lengths = (work.steps, LONGER * work.steps) if work.steps > SHORT else (work.steps,)
    comparisons = [
        compare_with_loops(work, (*MNIST, work.root), ("0.05", "0.1"), work.seeds // 2, steps) for steps in lengths
    ]
    return [speed_up(of_length, "MNIST MLP", 2, 1.3) for of_length in comparisons]


def planning(work: Workload) -> list[Row]:
    """Commands that train nothing: a dry run, and a sweep whose runs are finished."""
    sweep = sweep_arguments((*TINY, "model.width=8"), RATES[:5], work.planned // 10, work.folder / "planned")
    dry = [commands.run(*sweep, "dry_run=true", folder=work.folder).seconds for _ in range(work.repeats)]
    training = commands.run(*sweep, folder=work.folder).seconds
    again = [commands.run(*sweep, folder=work.folder).seconds for _ in range(work.repeats)]
    runs = len(Store(work.folder / "planned").finished())
    return [
        at_most(f"planning {runs} runs (dry_run=true)", median(dry), 5, {"seconds": dry, "runs": runs}),
        at_most(f"{runs} finished runs again", median(again), 5, {"seconds": again, "training_seconds": training}),
    ]


def large(work: Workload) -> list[Row]:
    """Many planned runs, and many stacks in one worker: their memory must stay flat."""
    runs, stacks = work.many
    sweep = sweep_arguments((*TINY, "model.width=8"), RATES[:5], runs // 10, work.folder / "many")
    plan = commands.run(*sweep, "dry_run=true", "hydra.launcher.executor=inprocess", folder=work.folder)
    widths = f"model.width={','.join(str(8 + i) for i in range(stacks))}"
    sweep = ["-m", *TINY, widths, "seed=0,1", "engine=stacked", f"results_dir={work.folder / 'stacks'}"]
    one = commands.run(*sweep, "hydra.launcher.executor=inprocess", "progress=false", folder=work.folder)
    of_plan, of_one = plan.resident / 2**20, one.resident / 2**20
    return [
        Row(f"CPU time of planning {runs} runs", f"{plan.cpu:.1f} s", "<= 22 s", plan.cpu <= 22, asdict(plan)),
        Row("memory of that command", f"{of_plan:.0f} MiB", "<= 812 MiB", of_plan <= 812),
        Row(f"memory of {stacks} stacks in one worker", f"{of_one:.0f} MiB", "<= 700 MiB", of_one <= 700, asdict(one)),
    ]


def recording(work: Workload) -> list[Row]:
    """Measuring and storing, in this process."""
    times = time_recording((*DIGITS, f"steps={work.steps}"), work.stacked, work.repeats)
    repeats = zip(times.plain, times.measured, times.storing, strict=True)
    share = median((measured + storing) / plain - 1 for plain, measured, storing in repeats)
    per_run = 1000 * median(times.storing) / work.stacked
    what = f"recording in a stack of {work.stacked} runs of {work.steps} steps"
    measured = f"{share:.1%}, with {per_run:.1f} ms per run for storing"
    return [Row(what, measured, "<= 5%", share <= 0.05, asdict(times))]


def quickstart(work: Workload) -> list[Row]:
    """The study and its report."""
    times, runs = [], 0
    for repeat in range(work.repeats):
        results = f"results_dir={work.folder / str(repeat)}"
        study = commands.run("study=quickstart", results, *work.quickstart, folder=work.folder)
        report = commands.run("study=quickstart", results, folder=work.folder, entry="report")
        times.append((study.seconds, report.seconds))
        runs = len(Store(work.folder / str(repeat)).finished())
    seconds = median(study + report for study, report in times)
    row = at_most(f"quickstart, {runs} runs, and its report", seconds, 60, {"study_and_report": times, "runs": runs})
    return [Row(row.what, row.measured, f"{row.target}, 200 runs", bool(row.ok and runs >= 200), row.raw)]


MEASURES: dict[str, Callable[[Workload], list[Row]]] = {
    "digits": digits,
    "mnist": mnist,
    "planning": planning,
    "large": large,
    "recording": recording,
    "quickstart": quickstart,
}


# ------------------------------------------------------------------------------------------------------ parts


def sweep_arguments(overrides: tuple[str, ...], rates: tuple[str, ...], seeds: int, results: Path) -> list[str]:
    """The arguments of a sweep over norms, learning rates and seeds."""
    choices = [f"norm={','.join(NORMS)}", f"lr={','.join(rates)}", f"seed=range(0,{seeds})"]
    return ["-m", *overrides, *choices, f"results_dir={results}"]


@dataclass
class Comparison:
    """Seconds of the whole sweep, one value per repeat: of plain loops by number of processes, and of the command.

    timed: the number of plain runs that represent all, each time.
    """

    runs: int
    steps: int
    timed: int
    diverged: int = 0
    loops: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})
    costs: list[commands.CommandCost] = field(default_factory=list)


def compare_with_loops(
    work: Workload, overrides: tuple[str, ...], rates: tuple[str, ...], seeds: int, steps: int
) -> Comparison:
    """Time a sweep and plain loops of equal length, in alternation: loops, sweep, loops, ..."""
    comparison = Comparison(len(NORMS) * len(rates) * seeds, steps, work.timed * len(NORMS))
    task = Task(overrides, NORMS, steps, work.timed, work.folder / "cache")
    spec_of(*overrides, "steps=1").data.load(task.cache, CPU)  # decoded here, so that no timed process decodes it
    for repeat in range(work.repeats + 1):
        for processes, seconds in comparison.loops.items():
            seconds.append(seconds_for(comparison.runs, processes, task))
        if repeat < work.repeats:
            results = work.folder / f"{steps}-{repeat}"
            arguments = [*sweep_arguments(overrides, rates, seeds, results), f"steps={steps}"]
            comparison.costs.append(commands.run(*arguments, folder=work.folder))
            comparison.diverged = int((load_runs(results)["status"] == "diverged").sum())
    return comparison


def speed_up(comparison: Comparison, what: str, processes: int, least: float | None = None) -> Row:
    seconds, loops = median(cost.seconds for cost in comparison.costs), median(comparison.loops[processes])
    ratio = loops / seconds
    by = "a plain loop" if processes == 1 else f"{processes} processes of plain loops"
    runs = f"{comparison.runs} runs of {comparison.steps} steps"
    timed = f"{comparison.timed * processes * len(comparison.loops[processes])} timed"
    diverged = f", {comparison.diverged} diverged" if comparison.diverged else ""
    measured = f"{ratio:.2f} x ({loops:.1f} s by {timed} / {seconds:.1f} s{diverged})"
    target = {} if least is None else {"target": f">= {least:g} x", "ok": ratio >= least}
    return Row(f"{what}, {runs}, against {by}", measured, **target, raw=asdict(comparison))  # type: ignore[arg-type]


def memory(comparison: Comparison) -> Row:
    resident = max(cost.resident for cost in comparison.costs) / 2**30
    each = max(cost.resident_each for cost in comparison.costs) / 2**30
    measured = f"{resident:.2f} GiB ({each:.2f} with shared pages counted in each process)"
    return Row("memory of that command, shared pages counted once", measured, "<= 2 GiB", resident <= 2)


def at_most(what: str, seconds: float, most: float, raw: dict[str, Any]) -> Row:
    return Row(what, f"{seconds:.1f} s", f"<= {most:g} s", seconds <= most, raw)


def processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(rows: list[Row]) -> str:
    marks = {None: "", True: "yes", False: "NO"}
    cells = [("what", "measured", "target", "ok")]
    cells += [(row.what, row.measured, row.target, marks[row.ok]) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)
