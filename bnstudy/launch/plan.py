"""The plan: every point of a sweep checked, the finished runs told from those to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from bnstudy.config import Settings, run_spec, settings, unknown_key
from bnstudy.data import Dataset
from bnstudy.launch.points import Point
from bnstudy.spec import ConfigError, DataSpec, RunSpec, Spec
from bnstudy.store import Store

ALONGSIDE = ("study", "scale")
"""Top-level keys that say why a run is made: no part of it, and no setting."""


@dataclass(frozen=True)
class Scale(Spec):
    """How big a study is to be; the studies say what each scale means for them."""

    group: ClassVar[str] = "scale"
    name: str
    about: str = ""


@dataclass(frozen=True)
class Study(Spec):
    """A sweep with a purpose.

    title: the question it asks.
    claims: names of the claims it bears on.
    sweep, scales: overrides as on the command line, the latter by scale.
    """

    group: ClassVar[str] = "study"
    name: str
    title: str
    claims: tuple[str, ...]
    sweep: dict[str, Any]
    scales: dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """A run, and the overrides that tell it from the others of its sweep."""

    spec: RunSpec
    name: str
    arm: str


@dataclass(frozen=True)
class Plan:
    """What a command line asks for."""

    settings: Settings
    runs: tuple[PlannedRun, ...]
    todo: tuple[PlannedRun, ...]

    @property
    def todo_ids(self) -> list[str]:
        return [run.spec.run_id for run in self.todo]


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
    _seen: set[Any] = field(default_factory=set)

    def check(self, run: RunSpec) -> None:
        """Raises ConfigError where the run could not be trained."""
        combination = (run.data, run.model, run.norm, run.batch_size)
        if combination in self._seen:
            return
        data = self.datasets.get(run.data)
        run.total_steps(len(data.train.y))
        with torch.device("meta"):
            run.model.build(run.norm, data.shape, data.classes)
        self._seen.add(combination)


def make_plan(points: Sequence[Point]) -> Plan:
    """Check every point and sort out what is to do; runs that several points ask for stand once.

    Raises:
        ConfigError: a point is not allowed; where there are several, the sentence names the point.
    """
    shared = {settings(point.config) for point in points}
    if len(shared) > 1:
        raise ConfigError(
            "A sweep runs with one choice of device, engine, results_dir and the like: do not sweep them."
        )
    chosen = shared.pop()
    names = varying_names(points)
    runs: dict[str, PlannedRun] = {}
    for point, (name, arm) in zip(points, names, strict=True):
        spec = checked(point, name)
        runs.setdefault(spec.run_id, PlannedRun(spec, name, arm))
    store = Store(Path(chosen.results_dir))
    todo = tuple(run for run_id, run in runs.items() if not store.is_finished(run_id))
    return Plan(chosen, tuple(runs.values()), todo)


def checked(point: Point, name: str) -> RunSpec:
    known = {*RunSpec.__dataclass_fields__, *Settings.__dataclass_fields__, *ALONGSIDE}
    try:
        for key in point.config:
            if key not in known:
                raise ConfigError(unknown_key(key, known))
        return run_spec(point.config)
    except ConfigError as error:
        raise ConfigError(f"At {name}: {error}" if name else str(error)) from None


def check_data(plan: Plan, datasets: Datasets, store: Store) -> None:
    """Check that the runs to do fit their datasets, which must be there, and that finished ones saw the same pictures.

    Raises:
        ConfigError: a dataset is missing, a model, norm or batch size does not fit it, or it has changed.
    """
    checker, todo = Checker(datasets), set(plan.todo_ids)
    for run in sorted(plan.runs, key=lambda run: repr(run.spec.data)):
        try:
            if run.spec.run_id in todo:
                checker.check(run.spec)
            elif not run.spec.data.published:
                same_pictures(run.spec, store, datasets.get(run.spec.data).checksum)
        except ConfigError as error:
            raise ConfigError(f"At {run.name}: {error}" if run.name else str(error)) from None


def same_pictures(run: RunSpec, store: Store, checksum: str) -> None:
    seen = store.summary(run.run_id)["dataset"]["checksum"]
    if seen != checksum:
        raise ConfigError(
            f"data.name={run.data.label} names other pictures than those that run {run.run_id} was trained on: give "
            "these another data.name, or use another results_dir."
        )


def varying_names(points: Sequence[Point]) -> list[tuple[str, str]]:
    """Each point's (name, arm): the overrides in which the points differ, the arm's without the seed."""
    constant = set.intersection(*(set(point.overrides) for point in points))
    differing = [[o for o in point.overrides if o not in constant] for point in points]
    return [(" ".join(own), " ".join(o for o in own if not o.startswith("seed="))) for own in differing]
