"""`benchmark.py versions`: this checkout against another one, whole commands in alternation."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parents[2]
SWEEP = ("-m", "model=mlp", "model.depth=4", "model.width=64", "data=digits", "batch_size=32", "norm=none,batch")
RATES = "lr=0.01,0.02,0.04,0.1"


@dataclass
class Timings:
    """Wall and CPU seconds of a command, one entry a repeat."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure_versions(options: argparse.Namespace) -> dict[str, Any]:
    """Print the ratio of this checkout to the other for planning, training and reports; return all timings."""
    sweep = (*SWEEP, RATES)
    commands = {
        "--help": ("main", ("--help",)),
        "plan 1,000 runs": ("main", (*sweep, "seed=range(0,125)", "steps=1", "dry_run=true")),
        f"train 64 runs of {options.steps} steps": ("main", (*sweep, "seed=range(0,8)", f"steps={options.steps}")),
        "train 1 run of 2,000 steps": ("main", ("norm=batch", "steps=2000", "batch_size=32")),
        "quickstart": ("main", ("study=quickstart",)),
        "quickstart again, all finished": ("main", ("study=quickstart",)),
        "report on the quickstart": ("report", ("study=quickstart",)),
    }
    timings = {name: {"this": Timings(), "other": Timings()} for name in commands}
    for _ in range(options.repeats):
        with TemporaryDirectory() as folder:
            for name, (entry, arguments) in commands.items():
                for side, checkout in (("this", HERE), ("other", options.other)):
                    run(checkout, entry, arguments, Path(folder) / side, timings[name][side])
    print(f"{'command':34}  {'wall, this / other (s)':24}  ratio  {'CPU, this / other (s)':24}  ratio")
    for name, sides in timings.items():
        this, other = sides["this"], sides["other"]
        print(f"{name:34}  {compare(this.wall, other.wall)}  {compare(this.cpu, other.cpu)}")
    return {name: {side: asdict(each) for side, each in sides.items()} for name, sides in timings.items()}


def run(checkout: Path, entry: str, arguments: tuple[str, ...], results: Path, timings: Timings) -> None:
    """Time one command of a checkout.

    Raises:
        SystemExit: the command failed; with its output.
    """
    results.mkdir(exist_ok=True)
    command = [sys.executable, "-c", f"from bnstudy.cli import {entry}; {entry}()", *arguments]
    cpu, begin = children_cpu(), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=results, env=environment, capture_output=True, text=True)
    timings.wall.append(time.perf_counter() - begin)
    timings.cpu.append(children_cpu() - cpu)
    if done.returncode:
        raise SystemExit(f"{checkout}: bnstudy {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def children_cpu() -> float:
    """CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def compare(this: list[float], other: list[float]) -> str:
    pairs = [a / b for a, b in zip(this, other, strict=True)]
    return f"{f'{median(this):.2f} / {median(other):.2f}':24}  {median(pairs):5.2f}"
