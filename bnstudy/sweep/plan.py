"""The plan of a sweep: its runs, checked against the data, and those that are not stored yet, grouped into stacks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bnstudy.data.base import DataSpec
from bnstudy.data.dataset import Dataset
from bnstudy.models.structure import refuse_single_values
from bnstudy.models.tracing import check_output
from bnstudy.report.terminal import stage
from bnstudy.run import RunSpec
from bnstudy.store.archive import refuse_packed
from bnstudy.store.checksums import is_generated, list_runs, source
from bnstudy.store.runs import Store
from bnstudy.sweep.cost import Method, NetworkCost, choose_method, measure_network, network_cost
from bnstudy.sweep.limits import limit_network
from bnstudy.sweep.request import PlannedRun, Request, naming
from bnstudy.sweep.same_networks import Inputs, refuse_same_networks
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.stackable import why_not_compiled, why_not_stacked
from bnstudy.sweep.threads import useful_threads
from bnstudy.train.build import network_of
from bnstudy.train.loop import check_evaluation
from bnstudy.validation import ConfigError, to_dict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stack:
    """Runs that are trained at once, or one after another if the engine is serial.

    steps: of each run.
    threads: CPU threads; None for torch's choice.
    """

    runs: tuple[PlannedRun, ...]
    method: Method
    steps: int
    threads: int | None = None

    @property
    def run_ids(self) -> list[str]:
        return [run.spec.run_id for run in self.runs]

    @property
    def title(self) -> str:
        """For messages."""
        others = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return (self.runs[0].name or self.run_ids[0]) + others

    def of(self, runs: Iterable[PlannedRun]) -> Stack:
        """A stack of these runs with the same method."""
        return replace(self, runs=tuple(runs))


@dataclass(frozen=True)
class Plan:
    """The distinct runs of a request, and those of them that are not stored yet.

    studies: if there are several, the runs of each.
    """

    settings: Settings
    runs: tuple[PlannedRun, ...]
    todo: tuple[PlannedRun, ...]
    studies: tuple[tuple[PlannedRun, ...], ...] = ()

    @property
    def store(self) -> Store:
        return Store(self.settings.results)


def make_plan(request: Request) -> Plan:
    """Find the runs that are not stored yet; a run that several points request is planned once."""
    runs = {run.spec.run_id: run for run in reversed(request.runs)}
    distinct = tuple(reversed(runs.values()))
    refuse_packed(request.settings.results)
    store = Store(request.settings.results)
    todo = tuple(run for run in distinct if not store.is_finished(run.spec.run_id))
    return Plan(request.settings, distinct, todo, tuple(member.runs for member in request.members))


class Datasets:
    """Loads the datasets of a sweep; the one used last stays in memory.

    inputs: what networks for the datasets loaded so far get.
    """

    def __init__(self, cache: Path, device: torch.device) -> None:
        self.cache, self.device = cache, device
        self.inputs: dict[DataSpec, Inputs] = {}
        self._loaded: tuple[DataSpec, Dataset] | None = None

    def get(self, spec: DataSpec) -> Dataset:
        """Raises ConfigError if the dataset is missing or damaged."""
        if self._loaded is None or self._loaded[0] != spec:
            self._loaded = None
            self._loaded = spec, (data := spec.load(self.cache, self.device))
            self.inputs[spec] = Inputs(data.shape, data.classes, data.is_labelled)
        return self._loaded[1]


Kinds = dict[str, tuple[int, NetworkCost]]
"""Steps and network of each kind of runs, by `stack_key`."""

TRIED = ("data", "model", "norm", "loss", "trained", "batch_size", "evaluation", "early_stopping")
"""The parts of a run that decide whether its network takes its images."""

Tried = dict[tuple[str | None, ...], tuple[int, NetworkCost]]


def check_run(run: RunSpec, datasets: Datasets, tried: Tried) -> tuple[int, NetworkCost]:
    """The size of the training set, and the network's cost.

    tried: the results of combinations of data, network and batch size that were tried, without training.

    Raises:
        ConfigError: the run cannot be trained.
    """
    combination = tuple(run.texts.get(part) for part in TRIED)
    if combination not in tried:
        stage.info(f"Planning: trying network {len(tried) + 1}, {run.model.label} with {run.norm.label} ...")
        data = datasets.get(run.data)
        run.total_steps(len(data.train))
        check_evaluation(run, data)
        run.loss.each(torch.zeros(1, data.classes, device=data.train.y.device), data.train.y[:1])
        tried[combination] = len(data.train), try_network(run, data.shape, data.classes)
    return tried[combination]


SMALL = 10**8
"""Multiplications of a dense network for a batch: fewer take less time than loading torch's meta device, a second."""


def try_network(run: RunSpec, shape: tuple[int, int, int], classes: int) -> NetworkCost:
    """Run a batch through the network: on torch's meta device, which computes only shapes, or if faster on the CPU.

    Raises:
        ConfigError: the network cannot be built or cannot take such images.
    """
    try:
        with torch.device("meta"), limit_network(run.model):
            size = network_cost(network_of(run, shape, classes))
        if 4 * size.params < SMALL:
            check_evaluates_alone(run, shape, classes)
        if size.convolves or size.params * run.batch_size >= SMALL:
            with suppress(RuntimeError):  # also raised if the computation depends on values
                return run_batch(run, shape, classes, "meta")
        return run_batch(run, shape, classes, "cpu")
    except ConfigError:
        raise
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"model={run.model.label} with norm={run.norm.label} cannot take images of "
            f"{shape[1]}x{shape[2]} in batches of {run.batch_size}: {error}"
        ) from None


@torch.no_grad()
def check_evaluates_alone(run: RunSpec, shape: tuple[int, int, int], classes: int) -> None:
    """Raises ConfigError if the network's answers in evaluation depend on the other images of the batch, and the norm
    does not say so."""
    if run.norm.evaluates_by_batch:
        return
    network, images = network_of(run, shape, classes).eval(), torch.randn(4, *shape)
    refuse_single_values(run.norm, network)
    among_four, among_two = network(images), network(images[:2])
    check_output(among_four, len(images))
    among_four = among_four[:2]
    size = float(among_four.abs().max())
    if math.isfinite(size) and not torch.allclose(among_four, among_two, rtol=1e-3, atol=1e-3 * size):
        raise ConfigError(
            f"model={run.model.label} with norm={run.norm.label} is not allowed: its answers in evaluation depend on "
            "the other images of the batch; keep running statistics, or define evaluates_by_batch in the norm."
        )


def run_batch(run: RunSpec, shape: tuple[int, int, int], classes: int, device: str) -> NetworkCost:
    with torch.device(device):
        network, images = network_of(run, shape, classes).train(), torch.zeros(run.batch_size, *shape)
        refuse_single_values(run.norm, network)
        return measure_network(network, images)


def check_data(plan: Plan, datasets: Datasets) -> Kinds:
    """Check that the runs fit their datasets, and that all finished runs on these were trained on the same images.

    Returns: the kinds of runs; empty if all runs are stored. A dataset is then not needed: if it is missing, a warning
        says that it was not compared.

    Raises:
        ConfigError: a dataset is missing, a model, norm or batch size does not fit it, or it has changed; or arms of a
            study are the same network.
    """
    kinds: Kinds = {}
    tried: Tried = {}
    by_data: dict[DataSpec, list[PlannedRun]] = {}
    for run in plan.runs:
        by_data.setdefault(run.spec.data, []).append(run)
    checksums: dict[DataSpec, str] = {}
    for data, runs in by_data.items():
        for run in runs if plan.todo else ():
            with naming(run.name):
                train_size, network = check_run(run.spec, datasets, tried)
                kinds[run.spec.stack_key] = run.spec.total_steps(train_size), network
        try:
            dataset = datasets.get(data)
        except ConfigError as error:
            if plan.todo:
                raise
            log.warning("The finished runs cannot be compared with the dataset as it is now. %s", error)
            continue
        checksums[data] = dataset.checksum
        if plan.todo and dataset.is_unbalanced:
            share = f"{dataset.guessing['test']:.1%}"
            log.warning(
                f"The classes of {dataset.name} differ in size: guessing the most frequent one is right for {share} of "
                "its test images. Runs that diverged or did not learn are shown with this accuracy."
            )
    check_images(plan, checksums)
    for of_study in (plan.studies or (plan.runs,)) if plan.todo else ():
        refuse_same_networks(of_study, datasets.inputs)
    return kinds


def check_images(plan: Plan, checksums: Mapping[DataSpec, str]) -> None:
    """Check that all finished runs in the store on these datasets were trained on the images that these have now.

    Raises:
        ConfigError: a run was trained on others.
    """
    present: dict[str, set[str]] = {}
    checksums = {data: checksum for data, checksum in checksums.items() if not is_generated(to_dict(data))}
    for data, checksum in checksums.items():
        present.setdefault(source(to_dict(data), checksum), set()).add(checksum)
    others: dict[str, list[str]] = {}
    distinct = {*checksums.values()}
    only = f'"checksum": "{distinct.pop()}"'.encode() if len(distinct) == 1 else None
    for run_id in plan.store.finished() if present else ():
        # A damaged run is named where its results are read.
        with suppress(ConfigError, OSError, LookupError, TypeError):
            path = plan.store.run(run_id).summary
            if only and path.is_file() and only in path.read_bytes():  # parsing all takes three times as long
                continue
            checksum = plan.store.summary(run_id)["dataset"]["checksum"]
            if not checksum:
                continue
            key = source(plan.store.config(run_id)["data"], checksum)
            if checksum not in present.get(key, (checksum,)):
                others.setdefault(key, []).append(run_id)
    for data, checksum in checksums.items():
        if run_ids := others.get(source(to_dict(data), checksum)):
            named = f"data.name={data.label}" if hasattr(data, "name") else f"The dataset {data.label}"
            rename = "give these another data.name, or " if hasattr(data, "name") else ""
            raise ConfigError(
                f"{named} names other images than those that {list_runs(run_ids)} in {plan.settings.results} "
                f"{'were' if len(run_ids) > 1 else 'was'} trained on: {rename}use another results_dir."
            )


def make_stacks(
    plan: Plan, kinds: Kinds, device: str, workers: int, sharing: int, inputs: Mapping[DataSpec, Inputs]
) -> list[Stack]:
    """Group the runs that are not stored yet, stacks on the same data together and the longest of them first.

    Runs that a single worker trains one by one come last, in the order of the command line: with the norm as its last
    key the arms take turns, and a machine that slows down slows all of them.

    The method of a kind follows from all requested runs, stored or not, so that the same command always trains a run in
    the same way.

    sharing: as in `choose_method`.

    Raises:
        ConfigError: engine=stacked is not allowed with a network.
    """
    todo = {run.spec.run_id for run in plan.todo}
    stacks = []
    for key, (steps, network) in kinds.items():
        of_kind = [run for run in plan.runs if run.spec.stack_key == key]
        method = choose_method([run.spec for run in of_kind], network, plan.settings, device, workers, sharing)
        rest = [run for run in of_kind if run.spec.run_id in todo]
        if rest and method.engine == "stacked":
            method = try_method(rest[0], method, plan.settings, inputs)
        if method.engine == "stacked":  # runs of one seed together: they share initial weights
            rest.sort(key=lambda run: run.spec.seed)
        threads = useful_threads(of_kind[0].spec, network, method) if device == "cpu" else None
        stacks += [Stack(tuple(part), method, steps, threads) for part in split(rest, method.rows)]
    order = {data: i for i, data in enumerate(dict.fromkeys(run.spec.data for run in plan.todo))}
    place = {run.spec.run_id: i for i, run in enumerate(plan.todo)}

    def position(stack: Stack) -> tuple[int, bool, int]:
        first = stack.runs[0].spec
        in_turn = workers == 1 and stack.method.engine == "serial"
        network = kinds[first.stack_key][1]
        cost = len(stack.runs) * stack.steps * first.batch_size * (network.products + network.units)
        return order[first.data], in_turn, place[first.run_id] if in_turn else -cost

    return sorted(stacks, key=position)


def try_method(run: PlannedRun, method: Method, settings: Settings, inputs: Mapping[DataSpec, Inputs]) -> Method:
    """The method of a stack, as far as the network can be stacked and its step compiled.

    Raises:
        ConfigError: the network cannot be stacked or compiled, and the user chose engine=stacked or compile=true.
    """
    reason = why_not_stacked(run.spec, inputs[run.spec.data], method.norms_vary)
    if reason and settings.engine == "stacked":
        with naming(run.name):
            raise ConfigError(
                f"engine=stacked is not allowed with model={run.spec.model.label} and norm={run.spec.norm.label}: it "
                f"cannot be stacked ({reason}); choose engine=auto, which trains such runs one by one."
            )
    if reason:
        return Method("serial", 1, False, method.norms_vary, reason)
    if method.compiled and (reason := why_not_compiled(run.spec, inputs[run.spec.data], method.norms_vary)):
        if settings.compile is True:
            with naming(run.name):
                raise ConfigError(
                    f"compile=true is not allowed with model={run.spec.model.label} and norm={run.spec.norm.label}: "
                    f"its step cannot be compiled ({reason}); choose compile=auto, which trains such stacks without."
                )
        return replace(method, compiled=False, reason=reason)
    return method


def split(runs: Sequence[PlannedRun], limit: int) -> list[Sequence[PlannedRun]]:
    """Divide the runs into parts of nearly equal size, at most `limit` each."""
    parts = -(-len(runs) // limit)
    return [runs[len(runs) * i // parts : len(runs) * (i + 1) // parts] for i in range(parts)]
