"""What a run is: `RunSpec`, and the identity that follows from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from bnstudy.calling import make_callable
from bnstudy.data.base import DataSpec
from bnstudy.inits import InitSpec
from bnstudy.losses import LossSpec
from bnstudy.models.base import ModelSpec
from bnstudy.norms.base import NormSpec
from bnstudy.optim import OptimSpec, ScheduleSpec
from bnstudy.probes.base import ProbeSpec
from bnstudy.store.identity import canonical_json, run_id_of_text
from bnstudy.store.renames import with_former_names
from bnstudy.validation import ADDED, ConfigError, Spec, is_identity, show, stackable_numbers, to_dict
from bnstudy.when import LogThenRegular, When

make_callable(__name__)  # bnstudy.run(...)


@dataclass(frozen=True)
class Evaluation(Spec):
    """When loss and accuracy on the validation and test splits are measured.

    when: the steps, a class of `bnstudy.when` and its keys.
    images: evaluations before the last step use at most this many images of each split: a fixed stratified sample,
        the same for every run; null for all. The final evaluation uses all images.
    batch_size: images in a batch, where the norm evaluates with the statistics of the batch: the images are in a fixed
        random order, and the batches are nearly equal, of at most this size. null for the batch size of training. With
        other norms the size has no effect; `RunSpec` sets it to null.
    """

    group: ClassVar[str] = "evaluation"
    when: When = field(default_factory=lambda: LogThenRegular(early=6, regular=12))
    images: int | None = 2000
    batch_size: int | None = field(default=None, metadata=ADDED)

    def check(self) -> None:
        self.require(self.images is None or self.images >= 1, "images", "at least 1, or null for all")
        self.require(self.batch_size is None or self.batch_size >= 1, "batch_size", "at least 1, or null")


@dataclass(frozen=True)
class EarlyStopping(Spec):
    """Whether a run ends before its last step (Prechelt 1998), decided at its evaluations on the validation split.

    patience: evaluations in a row without a better value after which the run ends; null for never.
    by: the value, the lowest loss or the highest accuracy.
    best_weights: the run ends with the weights of its best evaluation, which its last evaluation and probes then
        measure; false for the weights of its last step.
    """

    group: ClassVar[str] = "early_stopping"
    patience: int | None = None
    by: Literal["loss", "accuracy"] = "loss"
    best_weights: bool = True

    def check(self) -> None:
        self.require(self.patience is None or self.patience >= 1, "patience", "at least 1, or null for never")

    def best(self, values: Sequence[float]) -> int:
        """The place of the best value, the first of equals. NaN is the worst."""
        sign = 1 if self.by == "loss" else -1
        sizes = [math.inf if math.isnan(value) else sign * value for value in values]
        return sizes.index(min(sizes))


@dataclass(frozen=True)
class RunSpec(Spec):
    """The full description of one training of one network. Two runs with equal specs are the same run.

    lr: the learning rate, which `schedule` multiplies.
    batch_size: images in a training batch.
    seed: what all random numbers of the run follow from.
    epochs: the length of the training in passes over the training images; give this or `steps`.
    steps: the length in steps.
    precision: fp32; bf16, automatic mixed precision in training, where losses, the statistics of norms, evaluation and
        probes are in float32; or fp64, everything in float64 from the same initial weights.
    trained: `all` parameters; only those of the `norm`, its scales and shifts (Frankle, Schwab & Morcos 2021); or those
        of the `hidden` layers, all but the last layer of weights, the classifier. The others keep their initial values.
    """

    has_target: ClassVar[bool] = False

    model: ModelSpec
    norm: NormSpec
    init: InitSpec
    data: DataSpec
    optim: OptimSpec
    schedule: ScheduleSpec
    loss: LossSpec
    probe: Mapping[str, ProbeSpec]
    evaluation: Evaluation
    lr: float
    batch_size: int
    seed: int
    epochs: float | None = None
    steps: int | None = None
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    trained: Literal["all", "norm", "hidden"] = "all"
    early_stopping: EarlyStopping | None = field(default=None, metadata=ADDED)

    def canonical(self) -> Mapping[str, object]:
        """The evaluation's batch size is a number where it has an effect, and null elsewhere; so is `early_stopping`
        where it never stops."""
        size = self.evaluation.batch_size or self.batch_size if self.norm.evaluates_by_batch else None
        stops = self.early_stopping is not None and self.early_stopping.patience is not None
        stopping = self.early_stopping if stops else None
        same = self.evaluation.batch_size == size  # then runs of a sweep share it
        evaluation = self.evaluation if same else replace(self.evaluation, batch_size=size)
        return {"evaluation": evaluation, "early_stopping": stopping}

    def check(self) -> None:
        self.require(self.lr > 0, "lr", "a number above 0")
        self.require(self.batch_size >= 1, "batch_size", "at least 1")
        self.require(0 <= self.seed < 2**31, "seed", "a whole number from 0 to 2147483647")
        if (self.epochs is None) == (self.steps is None):
            both = f"epochs={show(self.epochs)} and steps={self.steps} are both given"
            given = "neither is given" if self.epochs is None else both
            raise ConfigError(f"Say how long to train with epochs=2 or with steps=500, one of the two; {given}.")
        if self.epochs is not None:
            self.require(0 < self.epochs < 1e9, "epochs", "a number above 0 and below 1e9")
        if self.steps is not None:
            self.require(self.steps >= 1, "steps", "at least 1")
        for name, probe in self.probe.items():
            if not isinstance(probe, ProbeSpec):
                raise ConfigError(f"probe.{name} is not allowed: it must be a probe, or null to leave it out.")
        self.norm.check_batch(self.batch_size)
        for name in ("length", "test_lengths"):
            if getattr(self.data, name) is not None and not self.model.reads_lengths:
                raise ConfigError(
                    f"data.{name} is not allowed with model={self.model.label}, which is not known to take images "
                    "with absent rows; it must be null, or choose a network that reads rows, such as model=rnn."
                )

    def total_steps(self, train_size: int) -> int:
        """Number of steps of the run on `train_size` images. An epoch leaves out its last, smaller batch.

        Raises:
            ConfigError: a batch is larger than the training set, or the warm-up longer than the training.
        """
        if self.batch_size > train_size:
            raise self.refuse("batch_size", f"at most {train_size}, the size of the training set")
        steps = self.steps
        if steps is None:
            assert self.epochs is not None  # `check` requires one of the two
            steps = max(1, round(self.epochs * (train_size // self.batch_size)))
        allowed = f"at most the {steps} steps of the training, or the learning rate never reaches lr={show(self.lr)}"
        if self.schedule.warmup > steps:
            raise self.schedule.refuse("warmup", allowed)
        return steps

    @property
    def lr_at_batch_size(self) -> float:
        """The learning rate that the schedule's factors multiply."""
        reference = self.schedule.reference_batch
        return self.lr if reference is None else self.lr * self.batch_size / reference

    @cached_property
    def stack_key(self) -> str:
        """The settings that runs must share to be trained as one program: all that shape the computation.

        `seed` and `init` only fill tensors, `lr` and `schedule` are one number a step: they are left out. Of a field
        marked PER_RUN only whether it is 0 or null counts.
        """
        free = {"seed", "init", "lr", "schedule"}
        return join_texts({f.name: stack_text(getattr(self, f.name)) for f in fields(self) if f.name not in free})

    @cached_property
    def texts(self) -> dict[str, str]:
        """Each field that is part of the identity, as canonical JSON."""
        return {f.name: identity_text(getattr(self, f.name)) for f in fields(self) if is_identity(self, f)}

    @cached_property
    def run_id(self) -> str:
        """`run_id_of(to_dict(self))`, from the texts of the fields, most of which the runs of a sweep share."""
        return run_id_of_text(join_texts(self.texts))


def join_texts(texts: Mapping[str, str]) -> str:
    """The canonical JSON of a mapping, from that of its values."""
    return f"{{{','.join(f'{json.dumps(key)}:{texts[key]}' for key in sorted(texts))}}}"


def identity_text(value: Any) -> str:
    """The canonical JSON of a part of a run's identity."""
    if isinstance(value, Spec):
        return _kept(value, "_identity", lambda: canonical_json(with_former_names(to_dict(value))))
    if isinstance(value, Mapping):
        return join_texts({str(key): identity_text(inner) for key, inner in value.items()})
    return canonical_json(to_dict(value))


def stack_text(value: Any) -> str:
    """The settings of a part of a run as JSON, with "" in place of each number in which runs of a stack may differ."""
    if isinstance(value, Spec):
        numbers = dict.fromkeys(stackable_numbers(value), "")
        return _kept(value, "_stack", lambda: canonical_json({**to_dict(value), **numbers}))
    return identity_text(value)


def _kept(spec: Spec, name: str, make: Callable[[], str]) -> str:
    """What `make` returns, kept in the spec: runs share specs."""
    kept = vars(spec)
    if name not in kept:
        kept[name] = make()
    return kept[name]
