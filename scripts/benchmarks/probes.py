"""`benchmark.py probes`: what measuring adds to the training of a run, by preset and by probe."""

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
from bnstudy.train.loop import Engine
from bnstudy.train.serial import SerialRun
from bnstudy.train.stacked import StackedRun
from bnstudy.train.state import Outcome
from bnstudy.when import AtEnd

PRESETS = ("none", "light", "standard", "full")
TARGETS = {"standard": 0.05, "full": 0.5}
"""What a preset may add, as a share of the training without probes."""

ROWS = 8
"""Runs in a stack."""


@dataclass(frozen=True)
class Trained:
    """Seconds of training runs together, without evaluation; what of them the runs' own clocks put down to training
    and to each probe, sums over the runs."""

    wall: float
    training: float
    probes: dict[str, float]


@dataclass(frozen=True)
class Cost:
    """What a preset costs, as shares of the training without it.

    by_clock: probe_seconds over training seconds, of each probe and of all; by_wall: what the whole takes more than
    training without probes that was timed beside it. Medians over the repeats.
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
    costs = []
    for engine in ("serial", "stacked"):
        trained(replace(plain, steps=min(20, options.steps)), engine, data)
        for preset in options.presets:
            costs.append(cost(engine, preset, plain, spec(preset, options), data, options.repeats))
            report(costs[-1])
    return [asdict(each) for each in costs]


def known_presets() -> list[str]:
    """The general presets that there are, from the cheapest to the dearest."""
    return [preset for preset in PRESETS if (conf_dir() / "probe" / f"{preset}.yaml").exists()]


def spec(preset: str, options: argparse.Namespace) -> RunSpec:
    """Evaluated at the end only, which costs all presets the same."""
    task = ("model=mlp", "model.width=100", "data=mnist", options.root, "batch_size=60", "norm=batch", "lr=0.05")
    made = spec_of(*task, f"steps={options.steps}", f"probe={preset}")
    return replace(made, evaluation=Evaluation(when=AtEnd()))


def cost(engine: str, preset: str, plain: RunSpec, probed: RunSpec, data: Dataset, repeats: int) -> Cost:
    """Both are trained in alternation, so that drifts of the machine hit both."""
    pairs = [(trained(plain, engine, data), trained(probed, engine, data)) for _ in range(repeats)]
    names = pairs[0][1].probes
    by_probe = {name: statistics.median(t.probes[name] / t.training for _, t in pairs) for name in names}
    return Cost(
        engine=engine,
        preset=preset,
        by_wall=statistics.median(with_.wall / without.wall - 1 for without, with_ in pairs),
        by_clock=statistics.median(sum(t.probes.values()) / t.training for _, t in pairs),
        by_probe=dict(sorted(by_probe.items(), key=lambda item: -item[1])),
    )


def trained(first: RunSpec, engine: str, data: Dataset) -> Trained:
    """Train one run, or a stack of runs that differ in the seed."""
    outcomes: list[Outcome] = []
    started = start(first, engine, data)
    begin = time.perf_counter()
    started.train(lambda _, outcome: outcomes.append(outcome))
    wall = time.perf_counter() - begin - sum(o.seconds["evaluation"] for o in outcomes)
    probes = {name: sum(o.probe_seconds[name] for o in outcomes) for name in first.probe}
    return Trained(wall, sum(o.seconds["training"] for o in outcomes), probes)


def start(first: RunSpec, engine: str, data: Dataset) -> Engine:
    if engine == "serial":
        return SerialRun(first, data, CPU)
    return StackedRun([replace(first, seed=seed) for seed in range(ROWS)], data, CPU)


def report(cost: Cost) -> None:
    target = TARGETS.get(cost.preset)
    is_met = "" if target is None else f"  (to be at most {target:.0%}: {'yes' if cost.by_wall <= target else 'no'})"
    engine = cost.engine if cost.engine == "serial" else f"{cost.engine}, {ROWS} rows"
    print(f"\n{engine}: probe={cost.preset}\n{'':20}{'% of training':>14}")
    print(f"{'by wall time':20}{100 * cost.by_wall:14.1f}{is_met}\n{'by the clocks':20}{100 * cost.by_clock:14.1f}")
    for name, share in cost.by_probe.items():
        print(f"  {name:18}{100 * share:14.2f}")
