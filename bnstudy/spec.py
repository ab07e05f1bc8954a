"""What a run is: `RunSpec`, the kinds of spec it holds, and the identity that follows from them.

Every option of every config group is a frozen dataclass derived from one of the kinds below; its YAML file names
it with `_target_`. A spec checks itself when it is made, so that a bad value never reaches training. This module
does not import torch: the classes here are the contract, their subclasses the implementation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bnstudy.checked import ConfigError, Spec, closest, nearest, show

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from bnstudy.data import Dataset
    from bnstudy.probes import Snapshot

SCHEMA = 1
"""Part of every `run_id`: raised when the same spec comes to mean another training."""

BESIDE = {"identity": False}
"""Metadata of a field that says where or how a run is done, not what it is: no part of its identity."""

PER_RUN = {"per_run": True}
"""Metadata of a number that may differ among the runs of a stack, as long as it is 0 (or null) for all or for none."""

__all__ = [
    "At",
    "AtEnd",
    "AtShares",
    "ConfigError",
    "DataSpec",
    "Evaluation",
    "Every",
    "InitSpec",
    "LogSpaced",
    "LogThenRegular",
    "LossSpec",
    "ModelSpec",
    "NormSpec",
    "OptimSpec",
    "ProbeSpec",
    "RunSpec",
    "ScheduleSpec",
    "Spec",
    "When",
    "closest",
    "nearest",
    "numbers_per_run",
    "show",
    "to_dict",
]


# ---------------------------------------------------------------------------------------------- when to measure


@dataclass(frozen=True)
class When(Spec):
    """At which updates something is measured. Update 0 is before training; the last is always among them."""

    def updates(self, total: int) -> tuple[int, ...]:
        """The sorted, distinct numbers of updates done, within 0..total, at which to measure."""
        return tuple(sorted({u for u in self._inner(total) if 0 <= u <= total} | {total}))

    def _inner(self, total: int) -> Iterable[int]:
        raise NotImplementedError


@dataclass(frozen=True)
class AtEnd(When):
    """After the last update only."""

    def _inner(self, total: int) -> Iterable[int]:
        return (total,)


@dataclass(frozen=True)
class At(When):
    """At the listed updates."""

    listed: tuple[int, ...] = (0,)

    def _inner(self, total: int) -> Iterable[int]:  # noqa: ARG002
        return self.listed


@dataclass(frozen=True)
class AtShares(When):
    """At these shares of the training, rounded to updates: 0 is before it, 1 after it."""

    shares: tuple[float, ...] = (0.0, 0.1, 1.0)

    def check(self) -> None:
        self.require(all(0 <= share <= 1 for share in self.shares), "shares", "shares of the training, each in [0, 1]")

    def _inner(self, total: int) -> Iterable[int]:
        return (round(share * total) for share in self.shares)


@dataclass(frozen=True)
class Every(When):
    """Every `interval` updates, from update 0."""

    interval: int = 100

    def check(self) -> None:
        self.require(self.interval >= 1, "interval", "at least 1")

    def _inner(self, total: int) -> Iterable[int]:
        return range(0, total + 1, self.interval)


@dataclass(frozen=True)
class LogSpaced(When):
    """Update 0 and about `points` updates spaced evenly on a log axis from 1 to the last."""

    points: int = 20

    def check(self) -> None:
        self.require(self.points >= 2, "points", "at least 2")

    def _inner(self, total: int) -> Iterable[int]:
        return (0, *(round(total ** (i / (self.points - 1))) for i in range(self.points)))


@dataclass(frozen=True)
class LogThenRegular(When):
    """Dense early, when most happens, then regular: about `early` log-spaced updates within the first
    1/`regular` of the training and `regular` evenly spaced ones."""

    early: int = 10
    regular: int = 20

    def check(self) -> None:
        self.require(self.early >= 2, "early", "at least 2")
        self.require(self.regular >= 1, "regular", "at least 1")

    def _inner(self, total: int) -> Iterable[int]:
        first = max(1, total // self.regular)
        yield from LogSpaced(self.early)._inner(first)
        yield from (round(total * i / self.regular) for i in range(1, self.regular + 1))


@dataclass(frozen=True)
class Evaluation(Spec):
    """When loss and accuracy on the validation and test splits are measured.

    pictures: before the last update at most this many of each split are looked at, a fixed stratified sample, the
    same for every run; null for all. The final evaluation always takes all.
    """

    group: ClassVar[str] = "evaluation"
    when: When = field(default_factory=lambda: LogThenRegular(early=6, regular=12))
    pictures: int | None = 2000

    def check(self) -> None:
        self.require(self.pictures is None or self.pictures >= 1, "pictures", "at least 1, or null for all")


# --------------------------------------------------------------------------------------- the kinds a run holds


@dataclass(frozen=True)
class NormSpec(Spec):
    """A normalization: `build` makes the layer for `channels` features.

    position: before or after the activation.
    """

    group: ClassVar[str] = "norm"
    position: Literal["before", "after"] = "before"

    def build(self, channels: int, spatial: bool) -> nn.Module:
        """A layer for [B, channels] (`spatial` false) or [B, channels, H, W] inputs.

        Raises:
            ConfigError: the layer is not defined for such inputs.
        """
        raise NotImplementedError

    @property
    def is_none(self) -> bool:
        """Whether nothing is normalized: the baseline."""
        return False

    @property
    def keeps_bias(self) -> bool:
        """Whether the weight layer before keeps its bias, which a norm that follows, directly or behind the addition of
        a residual block, makes up for."""
        return self.is_none or self.position == "after"

    def wrap(self, layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
        """What stands in for a hidden weight layer, whose weights are drawn later: the layer itself, unless the
        normalization is one of weights. Another one derives from `bnstudy.norms.Reparametrized`, and its biases are
        kept only if `keeps_bias` says so."""
        return layer

    def branch(self) -> nn.Module | None:
        """What the branch of a residual block goes through before it is added; None to leave it as it is."""
        return None

    def check_batch(self, batch_size: int) -> None:
        """Refuse batch sizes for which the layer's statistics are not defined in training."""

    def check_network(self, has_branches: bool) -> None:
        """Refuse networks with, or without, residual branches."""


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A network for pictures: an ordinary `nn.Module` from [B, C, H, W] to logits [B, classes]."""

    group: ClassVar[str] = "model"

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Raises ConfigError where the pictures' `shape` (C, H, W) or the norm does not fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class InitSpec(Spec):
    """How weights begin. `gain` multiplies the scheme's own standard deviation."""

    group: ClassVar[str] = "init"
    gain: float = 1.0

    def check(self) -> None:
        self.require(self.gain >= 0, "gain", "0 or more")

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill a weight matrix [out, in] or kernel [out, in, h, w] in place, without `gain`."""
        raise NotImplementedError

    def bias_(self, bias: Tensor, fan_in: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Fill the bias [out] of a layer whose units have `fan_in` inputs: zero unless the scheme says else."""
        bias.zero_()


@dataclass(frozen=True)
class DataSpec(Spec):
    """A dataset of labelled pictures.

    root: where it is looked for and downloaded to.
    train_size: size of a stratified subset of the training split; null for all of it.
    val_fraction: share of the training pictures set aside, stratified and the same for every run, for validation.
    augment: none, or crop_flip: a random shift by up to an eighth of the height and a horizontal flip.
    """

    group: ClassVar[str] = "data"
    published: ClassVar[bool] = True
    """Whether the spec alone says which pictures these are; a folder's may change under the same name."""

    root: str = field(default="data", metadata=BESIDE, kw_only=True)
    train_size: int | None = field(default=None, kw_only=True)
    val_fraction: float = field(default=0.1, kw_only=True)
    augment: Literal["none", "crop_flip"] = field(default="none", kw_only=True)

    def check(self) -> None:
        self.require(self.train_size is None or self.train_size >= 1, "train_size", "at least 1, or null for all")
        self.require(0 < self.val_fraction < 1, "val_fraction", "between 0 and 1")

    def load(self, cache_dir: Path, device: torch.device) -> Dataset:
        """The splits as tensors on `device`, decoded once into `cache_dir`.

        Raises:
            ConfigError: the dataset is missing, cannot be downloaded or is damaged, or `train_size` exceeds it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LossSpec(Spec):
    """What training minimizes: the mean over the samples of a batch."""

    group: ClassVar[str] = "loss"

    def each(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample [N] for the outputs [N, K] and targets: labels [N], or values [N, K]."""
        raise NotImplementedError

    def mean(self, out: Tensor, y: Tensor) -> Tensor:
        """The mean over the samples: a scalar."""
        return self.each(out, y).mean()


@dataclass(frozen=True)
class OptimSpec(Spec):
    """An optimizer, written as elementwise maths on flat tensors so that every engine shares it."""

    group: ClassVar[str] = "optim"

    def slots(self) -> tuple[str, ...]:
        """Names of the tensors, shaped as the parameters and zero at first, that it carries along."""
        return ()

    def update_(
        self, params: Tensor, grads: Tensor, slots: Mapping[str, Tensor], lr: float | Tensor, t: int | Tensor
    ) -> None:
        """Update t (from 1), in place. `lr` is a number, or a tensor that broadcasts against `params`."""
        raise NotImplementedError


@dataclass(frozen=True)
class ScheduleSpec(Spec):
    """The learning rate over a run: `factor` times `lr`, with a linear warm-up over the first updates.

    warmup: number of updates over which the rate rises linearly from lr/warmup to its course.
    """

    group: ClassVar[str] = "schedule"
    warmup: int = field(default=0, kw_only=True)

    def check(self) -> None:
        self.require(self.warmup >= 0, "warmup", "0 or more updates")

    def factor(self, step: int, total: int) -> float:
        """The factor on `lr` for the update after `step` updates of `total`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return self.course((step - self.warmup) / max(1, total - self.warmup))

    def course(self, progress: float) -> float:
        """The factor after warm-up, `progress` in [0, 1) being the share of the rest that is done."""
        raise NotImplementedError


@dataclass(frozen=True)
class ProbeSpec(Spec):
    """A measurement of one run's state, made at the updates of `when`.

    What it needs it declares, and finds in the snapshot:

    needs_update: the gradient of the training batch in use and the change of the parameters that follows from it.
    needs_start: the parameters at update 0.
    needs_network: the network as functions of its parameters, with the run's batches.

    By having an `observe` it asks to be shown what each activation makes of the probe batch, by having a `remember` to
    be told at each measurement what it noted at the one before. The engine provides no more than that, and knows no
    probe by name.
    """

    group: ClassVar[str] = "probe"
    needs_update: ClassVar[bool] = False
    needs_start: ClassVar[bool] = False
    needs_network: ClassVar[bool] = False
    copies: ClassVar[int] = 4
    """About how many tensors of all parameters' size it holds at once: what a stack needs memory for."""
    statistics: ClassVar[Literal["running", "batch", "training"]] = "running"
    """What norms use while it observes: running statistics, or those of the `batch` they are shown, and in `training`
    with dropout and other noise, as in the next update. Before the first update there are no running statistics, and
    it is those of the batch."""

    when: When = field(default_factory=LogThenRegular, kw_only=True)

    @property
    def needs_activations(self) -> bool:
        return type(self).observe is not ProbeSpec.observe

    @property
    def remembers(self) -> bool:
        return type(self).remember is not ProbeSpec.remember

    def observe(self, activation: nn.Module, z: Tensor, a: Tensor) -> Tensor | None:
        """What to keep of one layer: `activation` maps z to a, both [N, units] or [N, channels, H, W].

        Called in evaluation mode, without gradients, on parts of the probe batch of at most 256 samples. Returns
        [N, ...], or [1, ...] where one value can stand for the part, since the parts are put together; None where the
        layer does not concern the probe. The outputs of the network come last, under the name of the last weight
        layer, with an `nn.Identity`.
        """
        raise NotImplementedError

    def remember(self, snapshot: Snapshot) -> Mapping[str, Tensor]:
        """What to be given as `snapshot.memory` at the next measurement; called after `measure`, always with the same
        names and shapes. It is part of the run's checkpoints."""
        raise NotImplementedError

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        """Scalar tensors by metric and layer; layer "" is the whole network. A pure function of the snapshot."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------------ a run


@dataclass(frozen=True)
class RunSpec(Spec):
    """One training of one network, in full. Two runs with equal specs are the same run.

    trained: all parameters; or norm: those that the norm brings, its scales and shifts, while all others, the
        classifier's too, stay as they were initialized (Frankle, Schwab & Morcos 2021).
    """

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
    precision: Literal["fp32", "bf16"] = "fp32"
    trained: Literal["all", "norm"] = "all"

    def check(self) -> None:
        self.require(self.lr > 0, "lr", "a number above 0")
        self.require(self.batch_size >= 1, "batch_size", "at least 1")
        self.require(0 <= self.seed < 2**31, "seed", "a whole number from 0 to 2147483647")
        if (self.epochs is None) == (self.steps is None):
            both = f"epochs={show(self.epochs)} and steps={self.steps} are both given"
            given = "neither is given" if self.epochs is None else both
            raise ConfigError(f"Say how long to train with epochs=2 or with steps=500, one of the two; {given}.")
        if self.epochs is not None:
            self.require(self.epochs > 0, "epochs", "a number above 0")
        if self.steps is not None:
            self.require(self.steps >= 1, "steps", "at least 1")
        for name, probe in self.probe.items():
            if not isinstance(probe, ProbeSpec):
                raise ConfigError(f"probe.{name} is not allowed: it must be a probe, or null to leave it out.")
        self.norm.check_batch(self.batch_size)

    def total_steps(self, train_size: int) -> int:
        """Updates of the whole run on `train_size` pictures; the last, smaller batch of an epoch is left out.

        Raises:
            ConfigError: a batch is larger than the training set.
        """
        if self.batch_size > train_size:
            raise self.refuse("batch_size", f"at most {train_size}, the size of the training set")
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * (train_size // self.batch_size)))

    @cached_property
    def stack_key(self) -> str:
        """What runs must have in common to be trained as one program: all that shapes the computation.

        Left out are what only fills tensors (`seed`, `init`), what is a number at every update (`lr`, `schedule`), and
        the fields marked PER_RUN, of which only whether they are 0 or null counts.
        """
        free = {"seed", "init", "lr", "schedule"}
        shared = {f.name: _alike(getattr(self, f.name)) for f in fields(self) if f.name not in free}
        return json.dumps(shared, sort_keys=True)

    @cached_property
    def run_id(self) -> str:
        """First 12 hex digits of the SHA-256 of the spec's canonical JSON and the schema number."""
        canonical = json.dumps(
            {"schema": SCHEMA, "spec": to_dict(self)}, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def numbers_per_run(spec: Spec) -> dict[str, float]:
    """The fields marked PER_RUN that are neither 0 nor null."""
    marked = [f.name for f in fields(spec) if f.metadata.get("per_run")]
    return {name: getattr(spec, name) for name in marked if getattr(spec, name)}


def _alike(spec: Any) -> Any:
    """As `to_dict`, with "" for each number that may differ among the runs of a stack."""
    plain = to_dict(spec)
    return {**plain, **dict.fromkeys(numbers_per_run(spec), "")} if isinstance(spec, Spec) else plain


def to_dict(spec: Any) -> Any:
    """A spec as plain data, every default written out, with `_target_` naming each class: what `config.yaml` holds."""
    if isinstance(spec, RunSpec):
        return {f.name: to_dict(getattr(spec, f.name)) for f in fields(spec)}
    if isinstance(spec, Spec):
        inner = {f.name: to_dict(getattr(spec, f.name)) for f in fields(spec) if f.metadata.get("identity", True)}
        return {"_target_": f"{type(spec).__module__}.{type(spec).__qualname__}", **inner}
    if isinstance(spec, Mapping):
        return {str(k): to_dict(v) for k, v in sorted(spec.items())}
    if isinstance(spec, tuple):
        return [to_dict(v) for v in spec]
    return spec
