"""`benchmark.py sweep`: what sweeps cost, whole commands against plain loops, each row with what it should reach."""

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
from benchmarks.recording import recorded
from benchmarks.runs import CPU, spec_of
from bnstudy.store.loading import load_runs
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError

CORES = 2
SHORT = 300
"""Updates of a run with which starting counts."""

LONGER = 3
"""So many times as long are the longer runs on MNIST."""

NORMS = ("none", "batch")
RATES = ("0.01", "0.02", "0.03", "0.04", "0.06", "0.08", "0.1", "0.15")
"""At none of them a run on digits diverges, with batch normalization or without; diverged ones would end early."""

DIGITS = ("model=mlp", "model.depth=4", "model.width=64", "data=digits", "batch_size=32")
MNIST = ("model=mlp", "model.depth=3", "model.width=100", "data=mnist", "batch_size=60")
TINY = ("model=mlp", "model.depth=1", "model.width=8", "data=digits", "batch_size=32", "steps=1")


@dataclass(frozen=True)
class Row:
    """A line of the table. `ok` is None where nothing has to be reached; `raw` is what was measured."""

    what: str
    measured: str
    to_reach: str = ""
    ok: bool | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """How much is done in a call.

    seeds: runs with each norm and learning rate on digits; half as many on MNIST.
    timed: runs of each norm that the plain loops do, in each process and each time.
    """

    folder: Path
    root: str
    steps: int
    repeats: int
    seeds: int = 16
    timed: int = 2
    planned: int = 1000
    stacked: int = 32
    quickstart: tuple[str, ...] = ()


def measure_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Print the table, and return what is in it."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": processor(), "python": platform.python_version()}
    print(f"torch {torch.__version__}, {machine['cores']} cores ({machine['processor']}), {options.steps} steps")
    root = "data.root=" + str(Path(options.root.removeprefix("data.root=")).absolute())
    rows: dict[str, list[Row]] = {}
    for name in options.only:
        with TemporaryDirectory() as folder:
            work = Work(Path(folder), root, options.steps, options.repeats)
            rows[name] = MEASURES[name](smaller(work) if options.try_out else work)
    print(table([row for of_name in rows.values() for row in of_name]))
    return {"machine": machine, "rows": {name: [asdict(row) for row in of_name] for name, of_name in rows.items()}}


def smaller(work: Work) -> Work:
    few = ("lr=0.1", "seed=0", "steps=5")
    return Work(work.folder, work.root, work.steps, 1, seeds=2, timed=1, planned=20, stacked=3, quickstart=few)


# ---------------------------------------------------------------------------------------------------- the measures


def digits(work: Work) -> list[Row]:
    """256 runs against plain loops; the short ones for comparison."""
    long = against_loops(work, DIGITS, RATES, work.seeds, work.steps)
    rows = [speed_up(long, "digits MLP", 1, 8), speed_up(long, "digits MLP", 2, 5), memory(long)]
    if work.steps > SHORT:
        short = against_loops(work, DIGITS, RATES, work.seeds, SHORT)
        rows += [speed_up(short, "digits MLP", 1), speed_up(short, "digits MLP", 2)]
    return rows


def mnist(work: Work) -> list[Row]:
    """32 runs against plain loops in two processes, and once more with runs three times as long, for which compiling
    and starting count for less."""
    try:
        spec_of(*MNIST, work.root, "steps=1").data.load(work.folder / "cache", CPU)
    except ConfigError:
        return [Row("MNIST MLP", f"left out: it is not in {work.root}")]
    lengths = (work.steps, LONGER * work.steps) if work.steps > SHORT else (work.steps,)
    compared = [against_loops(work, (*MNIST, work.root), ("0.05", "0.1"), work.seeds // 2, steps) for steps in lengths]
    return [speed_up(of_length, "MNIST MLP", 2, 1.3) for of_length in compared]


def planning(work: Work) -> list[Row]:
    """Whole commands that train nothing: a dry run, and a sweep that was finished before."""
    sweep = swept(TINY, RATES[:5], work.planned // 10, work.folder / "planned")
    dry = [commands.run(*sweep, "dry_run=true", folder=work.folder).seconds for _ in range(work.repeats)]
    training = commands.run(*sweep, folder=work.folder).seconds
    again = [commands.run(*sweep, folder=work.folder).seconds for _ in range(work.repeats)]
    runs = len(Store(work.folder / "planned").finished())
    return [
        at_most(f"planning {runs} runs (dry_run=true)", median(dry), 5, {"seconds": dry, "runs": runs}),
        at_most(f"{runs} finished runs again", median(again), 5, {"seconds": again, "training_seconds": training}),
    ]


def recording(work: Work) -> list[Row]:
    """Measuring and storing, in this process."""
    taken = recorded((*DIGITS, f"steps={work.steps}"), work.stacked, work.repeats)
    whole = zip(taken.plain, taken.measured, taken.storing, strict=True)
    share = median((measured + storing) / plain - 1 for plain, measured, storing in whole)
    per_run = 1000 * median(taken.storing) / work.stacked
    what = f"recording in a stack of {work.stacked} runs of {work.steps} steps"
    measured = f"{share:.1%}, with {per_run:.1f} ms a run for storing"
    return [Row(what, measured, "<= 5%", share <= 0.05, asdict(taken))]


def quickstart(work: Work) -> list[Row]:
    """The study and its report."""
    taken, runs = [], 0
    for repeat in range(work.repeats):
        results = f"results_dir={work.folder / str(repeat)}"
        study = commands.run("study=quickstart", results, *work.quickstart, folder=work.folder)
        report = commands.run("study=quickstart", results, folder=work.folder, entry="report")
        taken.append((study.seconds, report.seconds))
        runs = len(Store(work.folder / str(repeat)).finished())
    seconds = median(study + report for study, report in taken)
    row = at_most(f"quickstart, {runs} runs, and its report", seconds, 60, {"study_and_report": taken, "runs": runs})
    return [Row(row.what, row.measured, f"{row.to_reach}, 200 runs", bool(row.ok and runs >= 200), row.raw)]


MEASURES: dict[str, Callable[[Work], list[Row]]] = {
    "digits": digits,
    "mnist": mnist,
    "planning": planning,
    "recording": recording,
    "quickstart": quickstart,
}


# ------------------------------------------------------------------------------------------------------ the pieces


def swept(overrides: tuple[str, ...], rates: tuple[str, ...], seeds: int, results: Path) -> list[str]:
    """The arguments of a sweep over norms, learning rates and seeds."""
    choices = [f"norm={','.join(NORMS)}", f"lr={','.join(rates)}", f"seed=range(0,{seeds})"]
    return ["-m", *overrides, *choices, f"results_dir={results}"]


@dataclass
class Compared:
    """Seconds of the whole sweep, one a repeat: of plain loops by the number of processes, and of the command.

    timed: how many plain runs stand for all, each time.
    """

    runs: int
    steps: int
    timed: int
    diverged: int = 0
    loops: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})
    taken: list[commands.Taken] = field(default_factory=list)


def against_loops(work: Work, overrides: tuple[str, ...], rates: tuple[str, ...], seeds: int, steps: int) -> Compared:
    """Time a sweep and plain loops for as many steps, in alternation: loops, sweep, loops, ..."""
    compared = Compared(len(NORMS) * len(rates) * seeds, steps, work.timed * len(NORMS))
    task = Task(overrides, NORMS, steps, work.timed, work.folder / "cache")
    spec_of(*overrides, "steps=1").data.load(task.cache, CPU)  # decoded here, so that no process of loops does it
    for repeat in range(work.repeats + 1):
        for processes, seconds in compared.loops.items():
            seconds.append(seconds_for(compared.runs, processes, task))
        if repeat < work.repeats:
            results = work.folder / f"{steps}-{repeat}"
            arguments = [*swept(overrides, rates, seeds, results), f"steps={steps}"]
            compared.taken.append(commands.run(*arguments, folder=work.folder))
            compared.diverged = int((load_runs(results)["status"] == "diverged").sum())
    return compared


def speed_up(compared: Compared, what: str, processes: int, least: float | None = None) -> Row:
    seconds, loops = median(taken.seconds for taken in compared.taken), median(compared.loops[processes])
    ratio = loops / seconds
    by = "a plain loop" if processes == 1 else f"{processes} processes of plain loops"
    runs = f"{compared.runs} runs of {compared.steps} steps"
    timed = f"{compared.timed * processes * len(compared.loops[processes])} timed"
    diverged = f", {compared.diverged} diverged" if compared.diverged else ""
    measured = f"{ratio:.2f} x ({loops:.1f} s by {timed} / {seconds:.1f} s{diverged})"
    reached = {} if least is None else {"to_reach": f">= {least:g} x", "ok": ratio >= least}
    return Row(f"{what}, {runs}, against {by}", measured, **reached, raw=asdict(compared))  # type: ignore[arg-type]


def memory(compared: Compared) -> Row:
    resident = max(taken.resident for taken in compared.taken) / 2**30
    each = max(taken.resident_each for taken in compared.taken) / 2**30
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
    cells = [("what", "measured", "to reach", "ok")]
    cells += [(row.what, row.measured, row.to_reach, marks[row.ok]) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)
