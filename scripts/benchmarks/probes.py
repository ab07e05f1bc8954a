"""`benchmark.py probes`: the overhead of probes, by preset and by probe."""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict, dataclass, replace

import torch

from benchmarks.runs import CPU, mnist, spec_of
from bnstudy.data.dataset import Dataset
from bnstudy.run import Evaluation, RunSpec
from bnstudy.store.files import conf_dir
from bnstudy.train.loop import Training, start_serial, start_stacked
from bnstudy.train.record import Outcome
from bnstudy.when import AtEnd

PRESETS = ("none", "light", "standard", "full")
TARGETS = {"standard": 0.05, "full": 0.5}
"""The overhead that a preset may have, as a share of training without probes."""

STACK_SIZE = 8


@dataclass(frozen=True)
class TrainingTime:
    """Seconds without evaluation: wall time, and the sums over runs of the runs' own clocks for training and probes."""

    wall: float
    training: float
    probes: dict[str, float]


@dataclass(frozen=True)
class Overhead:
    """The overhead of a preset, as shares of training without it; medians over the repeats.

    by_clock, by_probe: probe_seconds / training seconds, of all probes and of each; by_wall: the additional wall time
    relative to training without probes in the same repeat.
    """

    engine: str
    preset: str
    by_wall: float
    by_clock: float
    by_probe: dict[str, float]


def measure_probes(options: argparse.Namespace) -> list[dict[str, object]]:
    torch.set_num_threads(1)
    plain = spec("none", options)
    data = mnist(plain)
    print(f"MLP 784-100-100-100-10, batch norm, batch 60, {data.name}, {options.steps} steps, one thread")
    overheads = []
    for engine in ("serial", "stacked"):
        time_training(replace(plain, steps=min(20, options.steps)), engine, data)
        for preset in options.presets:
            overheads.append(measure_overhead(engine, preset, plain, spec(preset, options), data, options.repeats))
            print_overhead(overheads[-1])
    return [asdict(each) for each in overheads]


def known_presets() -> list[str]:
    """The general presets, from the fastest to the slowest."""
    return [preset for preset in PRESETS if (conf_dir() / "probe" / f"{preset}.yaml").exists()]


def spec(preset: str, options: argparse.Namespace) -> RunSpec:
    """A run that is evaluated at the end only, so that evaluation takes the same time with all presets."""
    task = ("model=mlp", "model.width=100", "data=mnist", options.root, "batch_size=60", "norm=batch", "lr=0.05")
    made = spec_of(*task, f"steps={options.steps}", f"probe={preset}")
    return replace(made, evaluation=Evaluation(when=AtEnd()))


def measure_overhead(
    engine: str, preset: str, plain: RunSpec, probed: RunSpec, data: Dataset, repeats: int
) -> Overhead:
    """Train with and without probes in alternation, so that drifts of the machine affect both."""
    pairs = [(time_training(plain, engine, data), time_training(probed, engine, data)) for _ in range(repeats)]
    names = pairs[0][1].probes
    by_probe = {name: statistics.median(t.probes[name] / t.training for _, t in pairs) for name in names}
    return Overhead(
        engine=engine,
        preset=preset,
        by_wall=statistics.median(with_.wall / without.wall - 1 for without, with_ in pairs),
        by_clock=statistics.median(sum(t.probes.values()) / t.training for _, t in pairs),
        by_probe=dict(sorted(by_probe.items(), key=lambda item: -item[1])),
    )


def time_training(first: RunSpec, engine: str, data: Dataset) -> TrainingTime:
    """Train one run, or a stack of runs with different seeds."""
    outcomes: list[Outcome] = []
    started = start(first, engine, data)
    begin = time.perf_counter()
    started.train(lambda left: outcomes.extend(outcome for _, outcome in left))
    wall = time.perf_counter() - begin - sum(o.seconds["evaluation"] for o in outcomes)
    probes = {name: sum(o.probe_seconds[name] for o in outcomes) for name in first.probe}
    return TrainingTime(wall, sum(o.seconds["training"] for o in outcomes), probes)


def start(first: RunSpec, engine: str, data: Dataset) -> Training:
    if engine == "serial":
        return start_serial(first, data, CPU)
    return start_stacked([replace(first, seed=seed) for seed in range(STACK_SIZE)], data, CPU)


def print_overhead(overhead: Overhead) -> None:
    target = TARGETS.get(overhead.preset)
    is_met = (
        "" if target is None else f"  (must be at most {target:.0%}: {'yes' if overhead.by_wall <= target else 'no'})"
    )
    engine = overhead.engine if overhead.engine == "serial" else f"{overhead.engine}, {STACK_SIZE} runs"
    print(f"\n{engine}: probe={overhead.preset}\n{'':20}{'% of training':>14}")
    print(f"{'by wall time':20}{100 * overhead.by_wall:14.1f}{is_met}")
    print(f"{'by the clocks':20}{100 * overhead.by_clock:14.1f}")
    for name, share in overhead.by_probe.items():
        print(f"  {name:18}{100 * share:14.2f}")
