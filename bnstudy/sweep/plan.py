"""The plan: what a command line asks for, checked against the data, the finished runs told from those to do, and these
grouped into stacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bnstudy.data.base import DataSpec
from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec
from bnstudy.store.runs import Store
from bnstudy.sweep.cost import NetworkCost, Shape, choose, measured, sized
from bnstudy.sweep.request import PlannedRun, Request, naming
from bnstudy.sweep.settings import Settings
from bnstudy.train.state import network_of
from bnstudy.validation import ConfigError, to_dict


@dataclass(frozen=True)
class Stack:
    """Runs that are trained at once, or one after another where the shape's engine is serial.

    steps: of each run.
    """

    runs: tuple[PlannedRun, ...]
    shape: Shape
    steps: int

    @property
    def run_ids(self) -> list[str]:
        return [run.spec.run_id for run in self.runs]


@dataclass(frozen=True)
class Plan:
    """The distinct runs of a request, and those of them to do."""

    settings: Settings
    runs: tuple[PlannedRun, ...]
    todo: tuple[PlannedRun, ...]

    @property
    def store(self) -> Store:
        return Store(self.settings.results)


def make_plan(request: Request) -> Plan:
    """Sort out what is to do; runs that several points ask for stand once."""
    runs = {run.spec.run_id: run for run in reversed(request.runs)}
    distinct = tuple(reversed(runs.values()))
    store = Store(request.settings.results)
    return Plan(request.settings, distinct, tuple(run for run in distinct if not store.is_finished(run.spec.run_id)))


class Datasets:
    """The datasets of a sweep, each loaded once; the one used last stays in memory."""

    def __init__(self, cache: Path, device: torch.device) -> None:
        self.cache, self.device = cache, device
        self._loaded: tuple[DataSpec, Dataset] | None = None

    def get(self, spec: DataSpec) -> Dataset:
        """Raises ConfigError where the dataset is missing or damaged."""
        if self._loaded is None or self._loaded[0] != spec:
            self._loaded = None
            self._loaded = spec, spec.load(self.cache, self.device)
        return self._loaded[1]


# ------------------------------------------------------------------------------------------------ does it fit


@dataclass
class Checker:
    """Whether spec and data fit together: each distinct combination is tried once, without training."""

    datasets: Datasets
    _seen: dict[str, tuple[int, NetworkCost]] = field(default_factory=dict)

    def check(self, run: RunSpec) -> tuple[int, NetworkCost]:
        """The size of the training set, and what the network costs. Raises ConfigError where the run could not be
        trained."""
        parts = (run.data, run.model, run.norm, run.loss, run.trained, run.batch_size)
        combination = json.dumps([to_dict(part) for part in parts])
        if combination not in self._seen:
            data = self.datasets.get(run.data)
            run.total_steps(len(data.train))
            run.loss.each(torch.zeros(1, data.classes, device=data.train.y.device), data.train.y[:1])
            self._seen[combination] = len(data.train), try_out(run, data.shape, data.classes)
        return self._seen[combination]


SMALL = 10**8
"""Multiplications of a dense network for a batch: fewer are done sooner than torch has loaded what it needs to work on
its meta device, a second."""


def try_out(run: RunSpec, shape: tuple[int, int, int], classes: int) -> NetworkCost:
    """Put a batch through the network: on torch's meta device, where nothing is computed but shapes, or, where that is
    sooner done, in earnest.

    Raises:
        ConfigError: the network cannot be built or cannot take such images.
    """
    try:
        with torch.device("meta"):
            size = sized(network_of(run, shape, classes))
        if size.convolves or size.params * run.batch_size >= SMALL:
            with suppress(RuntimeError):  # also raised where what is computed depends on values
                return put_through(run, shape, classes, "meta")
        return put_through(run, shape, classes, "cpu")
    except ConfigError:
        raise
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"model={run.model.label} with norm={run.norm.label} cannot take images of "
            f"{shape[1]}x{shape[2]} in batches of {run.batch_size}: {error}"
        ) from None


def put_through(run: RunSpec, shape: tuple[int, int, int], classes: int, device: str) -> NetworkCost:
    with torch.device(device):
        return measured(network_of(run, shape, classes).train(), torch.zeros(run.batch_size, *shape))


def check_data(plan: Plan, datasets: Datasets) -> dict[str, tuple[int, NetworkCost]]:
    """Check that the runs fit their datasets, which must be there, and that finished ones saw the same images.

    Returns steps and network of each kind of runs, by `stack_key`; nothing where no run is to do.

    Raises:
        ConfigError: a dataset is missing, a model, norm or batch size does not fit it, or it has changed.
    """
    checker, kinds = Checker(datasets), {}
    todo = {run.spec.run_id for run in plan.todo}
    by_data = {data: i for i, data in enumerate(dict.fromkeys(run.spec.data for run in plan.runs))}
    for run in sorted(plan.runs, key=lambda run: by_data[run.spec.data]):
        spec = run.spec
        with naming(run.name):
            if todo:
                train_size, network = checker.check(spec)
                kinds[spec.stack_key] = spec.total_steps(train_size), network
            if spec.run_id not in todo and not spec.data.is_fixed:
                same_images(spec, plan.store, datasets.get(spec.data).checksum)
    return kinds


def same_images(run: RunSpec, store: Store, checksum: str) -> None:
    seen = store.summary(run.run_id)["dataset"]["checksum"]
    if seen != checksum:
        raise ConfigError(
            f"data.name={run.data.label} names other images than those that run {run.run_id} was trained on: give "
            "these another data.name, or use another results_dir."
        )


# ----------------------------------------------------------------------------------------------------- stacks


def make_stacks(
    plan: Plan, kinds: Mapping[str, tuple[int, NetworkCost]], device: str, workers: int, beside: int
) -> list[Stack]:
    """Group what is to do, stacks on the same data together and the longest of them first.

    What a single worker trains one by one comes behind them, in the order of the command line: with the norm as its
    last key the arms take turns, and a machine that slows down slows all of them.

    The shape of a kind follows from all runs that were asked for, finished ones included, so that the same command
    trains a run in the same way whenever it comes to it.
    """
    todo = {run.spec.run_id for run in plan.todo}
    stacks = []
    for key, (steps, network) in kinds.items():
        alike = [run for run in plan.runs if run.spec.stack_key == key]
        shape = choose([run.spec for run in alike], steps, network, plan.settings, device, workers, beside)
        rest = [run for run in alike if run.spec.run_id in todo]
        stacks += [(network, Stack(tuple(part), shape, steps)) for part in split(rest, shape.rows)]
    order = {data: i for i, data in enumerate(dict.fromkeys(run.spec.data for run in plan.todo))}
    place = {run.spec.run_id: i for i, run in enumerate(plan.todo)}

    def turn(network: NetworkCost, stack: Stack) -> tuple[int, bool, int]:
        first = stack.runs[0].spec
        in_turn = workers == 1 and stack.shape.engine == "serial"
        return order[first.data], in_turn, place[first.run_id] if in_turn else -work(network, stack)

    stacks.sort(key=lambda pair: turn(*pair))
    return [stack for _, stack in stacks]


def split(runs: Sequence[PlannedRun], most: int) -> list[Sequence[PlannedRun]]:
    """The runs in parts of nearly equal size, at most `most` each."""
    parts = -(-len(runs) // most)
    return [runs[len(runs) * i // parts : len(runs) * (i + 1) // parts] for i in range(parts)]


def work(network: NetworkCost, stack: Stack) -> int:
    """To compare stacks by."""
    return len(stack.runs) * stack.steps * stack.runs[0].spec.batch_size * (network.products + network.units)
