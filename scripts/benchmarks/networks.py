"""Sweeps of 32 runs of larger networks against two processes of plain loops."""

from __future__ import annotations

from statistics import median

from benchmarks import commands
from benchmarks.baseline import Task, plain_loops
from benchmarks.runs import CPU, spec_of
from benchmarks.table import Row, speedup
from benchmarks.workload import NORMS, Workload, sweep_arguments
from bnstudy.store.loading import load_runs
from bnstudy.validation import ConfigError

MNIST = ("model=mlp", "model.depth=3", "model.width=100", "data=mnist", "batch_size=60")
MNIST_STEPS = (4000, 12_000)
CONVOLUTIONS = {"VGG-8": ("model=vgg",), "ResNet-8": ("model=resnet",)}
ON_DIGITS = ("data=digits", "batch_size=32")
RATES = ("0.05", "0.1")


def mnist(work: Workload) -> list[Row]:
    """At two lengths: the start-up matters less in the longer sweep."""
    name, overrides = "MLP 784-100-100-100-10", (*MNIST, work.root)
    try:
        spec_of(*overrides, "steps=1").data.load(work.folder / "cache", CPU)
    except ConfigError:
        return [Row(name, f"skipped: MNIST is not in {work.root}", ">= 1.3 x")]
    return [against_loops(work, name, overrides, steps, 1.3) for steps in MNIST_STEPS]


def convolutions(work: Workload) -> list[Row]:
    return [against_loops(work, name, (*network, *ON_DIGITS), 1000, 1) for name, network in CONVOLUTIONS.items()]


def against_loops(work: Workload, name: str, overrides: tuple[str, ...], steps: int, least: float) -> Row:
    """A sweep, with plain loops before and after it; they train a share of its steps."""
    seeds, steps = work.few(8, 1), work.few(steps, 5)
    runs = len(NORMS) * len(RATES) * seeds
    task = Task(overrides, NORMS, max(steps // 4, 5), 1, work.folder / "cache")
    spec_of(*overrides, "steps=1").data.load(task.cache, CPU)  # decoded here, so that no timed process decodes it
    with plain_loops(2) as loops:
        work.say(f"{name}: plain loops")
        step = [loops.seconds_per_step(task)]
        work.say(f"{name}: {runs} runs of {steps} steps")
        store = work.folder / f"{name}-{steps}"
        cost = commands.run(*sweep_arguments(overrides, RATES, seeds, store), f"steps={steps}", folder=work.folder)
        work.say(f"{name}: plain loops")
        step.append(loops.seconds_per_step(task))
    diverged = int((load_runs(store)["status"] == "diverged").sum())
    what = f"{name}, {runs} runs x {steps} steps, against 2 processes of plain loops"
    return speedup(what, cost.seconds, median(step) * runs * steps, least, loop_step=step, diverged=diverged)
