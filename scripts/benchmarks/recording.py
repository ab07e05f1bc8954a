"""The time that measuring and storing add to a stack of runs, in this process and on one thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.runs import CPU, spec_of
from bnstudy.data.dataset import Dataset
from bnstudy.run import Evaluation, RunSpec
from bnstudy.store.runs import Store
from bnstudy.train.loop import Done, start_stacked
from bnstudy.train.record import Outcome
from bnstudy.validation import to_dict
from bnstudy.when import AtEnd


@dataclass
class RecordingTimes:
    """Seconds of a whole stack, one value per repeat: without measurements, with them, and for storing."""

    plain: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    storing: list[float] = field(default_factory=list)


def time_recording(overrides: tuple[str, ...], runs: int, repeats: int) -> RecordingTimes:
    """Train the stack with default measurements and with none, in alternation, without the time of evaluation."""
    torch.set_num_threads(1)
    first = spec_of(*overrides, "norm=batch", "lr=0.05")
    nothing = replace(first, probe={}, evaluation=Evaluation(when=AtEnd()))
    times = RecordingTimes()
    with TemporaryDirectory() as folder:
        data = first.data.load(Path(folder), CPU)
        time_training(replace(first, steps=10, epochs=None), runs, data, lambda _: None)
        for repeat in range(repeats):
            store, storing = Store(Path(folder) / str(repeat)), 0.0

            def keep(left: Sequence[tuple[RunSpec, Outcome]], store: Store = store) -> None:
                nonlocal storing
                begin = time.perf_counter()
                for spec, outcome in left:
                    store.begin(spec.run_id, to_dict(spec))
                    store.finish(spec.run_id, outcome.metrics, outcome.timing, {"status": outcome.status})
                storing += time.perf_counter() - begin

            times.plain.append(time_training(nothing, runs, data, lambda _: None))
            times.measured.append(time_training(first, runs, data, keep) - storing)
            times.storing.append(storing)
    return times


def time_training(first: RunSpec, runs: int, data: Dataset, done: Done) -> float:
    """Seconds of training a stack of different seeds, without its evaluations."""
    evaluation = 0.0

    def ended(left: Sequence[tuple[RunSpec, Outcome]]) -> None:
        nonlocal evaluation
        evaluation += sum(outcome.seconds["evaluation"] for _, outcome in left)
        done(left)

    stack = start_stacked([replace(first, seed=seed) for seed in range(runs)], data, CPU)
    begin = time.perf_counter()
    stack.train(ended)
    return time.perf_counter() - begin - evaluation
