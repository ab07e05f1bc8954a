"""The plan: what a command line asks for, checked against the data, the finished runs told from those to do."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bnstudy.data import Dataset
from bnstudy.launch.request import PlannedRun, Request, Settings, naming
from bnstudy.spec import ConfigError, DataSpec, RunSpec, to_dict
from bnstudy.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The distinct runs of a request, and those of them to do, runs on the same data together."""

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
    todo = [run for run in distinct if not store.is_finished(run.spec.run_id)]
    order = {data: i for i, data in enumerate(dict.fromkeys(run.spec.data for run in todo))}
    return Plan(request.settings, distinct, tuple(sorted(todo, key=lambda run: order[run.spec.data])))


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


@dataclass
class Checker:
    """Whether spec and data fit together: each distinct combination is tried once, without training."""

    datasets: Datasets
    _seen: set[str] = field(default_factory=set)

    def check(self, run: RunSpec) -> None:
        """Raises ConfigError where the run could not be trained."""
        combination = json.dumps([to_dict(s) for s in (run.data, run.model, run.norm)] + [run.batch_size])
        if combination in self._seen:
            return
        data = self.datasets.get(run.data)
        run.total_steps(len(data.train))
        try_out(run, data.shape, data.classes)
        self._seen.add(combination)


def try_out(run: RunSpec, shape: tuple[int, int, int], classes: int) -> None:
    """Put a batch through the network on torch's meta device, where nothing is computed but shapes.

    Raises:
        ConfigError: the network cannot be built or cannot take such pictures.
    """
    try:
        with torch.device("meta"):
            run.model.build(run.norm, shape, classes).train()(torch.empty(run.batch_size, *shape))
    except ConfigError:
        raise
    except NotImplementedError as error:
        log.debug("%s cannot be tried out on the meta device: %s", run.model.label, error)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"model={run.model.label} with norm={run.norm.label} cannot take pictures of "
            f"{shape[1]}x{shape[2]} in batches of {run.batch_size}: {error}"
        ) from None


def check_data(plan: Plan, datasets: Datasets) -> None:
    """Check that the runs to do fit their datasets, which must be there, and that finished ones saw the same pictures.

    Raises:
        ConfigError: a dataset is missing, a model, norm or batch size does not fit it, or it has changed.
    """
    checker, todo = Checker(datasets), {run.spec.run_id for run in plan.todo}
    for run in [*plan.todo, *(run for run in plan.runs if run.spec.run_id not in todo)]:
        with naming(run.name):
            if run.spec.run_id in todo:
                checker.check(run.spec)
            elif not run.spec.data.published:
                same_pictures(run.spec, plan.store, datasets.get(run.spec.data).checksum)


def same_pictures(run: RunSpec, store: Store, checksum: str) -> None:
    seen = store.summary(run.run_id)["dataset"]["checksum"]
    if seen != checksum:
        raise ConfigError(
            f"data.name={run.data.label} names other pictures than those that run {run.run_id} was trained on: give "
            "these another data.name, or use another results_dir."
        )
