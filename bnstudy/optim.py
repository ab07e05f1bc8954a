"""Optimizers and learning-rate schedules, one definition for both engines.

An optimizer is a few elementwise operations on tensors of parameters: [P] in the serial engine, [R, P] in the stacked
one. The formulas are those of torch.optim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor

from bnstudy.validation import ADDED, PER_RUN, Spec

Number = float | Tensor
Hyper = Mapping[str, Number]
"""The hyperparameters marked PER_RUN, by field."""


@dataclass(frozen=True)
class OptimSpec(Spec):
    """An optimizer, written as elementwise operations so that both engines share it."""

    group: ClassVar[str] = "optim"

    def hyper(self) -> dict[str, float]:
        """The values of the fields marked PER_RUN."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("per_run")}

    def slots(self) -> tuple[str, ...]:
        """Names of the state tensors; each has the shape of the parameters and starts at zero."""
        return ()

    def update_(
        self, params: Tensor, grads: Tensor, slots: Mapping[str, Tensor], lr: Number, t: int | Tensor, hyper: Hyper
    ) -> None:
        """Make step t (counted from 1) in place.

        Args:
            lr: a number, or a tensor [R, 1] with the rates of R stacked runs.
            hyper: as `hyper()` returns it; for stacked runs a tensor [R, 1] replaces each number that is not 0.
                Read the fields marked PER_RUN from here, not from `self`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ScheduleSpec(Spec):
    """The learning rate over a run: `lr` times a factor.

    warmup: number of steps over which the factor rises linearly from 1/warmup to 1, before `decay` begins.
    reference_batch: `lr` is the learning rate at this batch size, and is multiplied by batch_size/reference_batch
        (Goyal et al. 2017); null for the same `lr` at each batch size.
    """

    group: ClassVar[str] = "schedule"
    warmup: int = field(default=0, kw_only=True)
    reference_batch: int | None = field(default=None, metadata=ADDED, kw_only=True)

    def check(self) -> None:
        self.require(self.warmup >= 0, "warmup", "0 or more steps")
        allowed = "at least 1, or null for a learning rate that does not depend on the batch size"
        self.require(self.reference_batch is None or self.reference_batch >= 1, "reference_batch", allowed)

    def factor(self, step: int, total: int) -> float:
        """The factor on `lr` for the next step when `step` of `total` steps are done."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return self.decay((step - self.warmup) / max(1, total - self.warmup))

    def decay(self, progress: float) -> float:
        """The factor on `lr` after the warm-up; `progress` in [0, 1) is the share of the remaining steps done."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(OptimSpec):
    """Stochastic gradient descent: v <- momentum v + g + weight_decay w; w <- w - lr v (Nesterov: g + momentum v).

    momentum: share of the velocity v that a step keeps.
    nesterov: true for Nesterov's step.
    weight_decay: adds to the gradient (L2).
    """

    momentum: float = field(default=0.0, metadata=PER_RUN)
    nesterov: bool = False
    weight_decay: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        self.require(0 <= self.momentum < 1, "momentum", "in [0, 1)")
        self.require(self.weight_decay >= 0, "weight_decay", "0 or more")
        if self.nesterov and self.momentum == 0:
            raise self.refuse("nesterov", "false where optim.momentum=0")

    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def update_(
        self,
        params: Tensor,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        lr: Number,
        t: int | Tensor,  # noqa: ARG002
        hyper: Hyper,
    ) -> None:
        momentum = hyper["momentum"]
        direction = grads = add_l2(grads, params, hyper["weight_decay"])
        if is_nonzero(momentum):
            velocity = slots["velocity"].mul_(momentum).add_(grads)
            direction = add_scaled(grads, velocity, momentum) if self.nesterov else velocity
        descend_(params, direction, lr)


@dataclass(frozen=True)
class Adam(OptimSpec):
    """Kingma & Ba 2015.

    beta1: share of the mean gradient that a step keeps.
    beta2: share of the mean squared gradient that a step keeps.
    eps: added to the root of the mean squared gradient.
    weight_decay: adds to the gradient (L2).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        self.require(0 <= self.beta1 < 1, "beta1", "in [0, 1)")
        self.require(0 <= self.beta2 < 1, "beta2", "in [0, 1)")
        self.require(self.eps > 0, "eps", "a number above 0")
        self.require(self.weight_decay >= 0, "weight_decay", "0 or more")

    def slots(self) -> tuple[str, ...]:
        return ("mean", "square")

    def update_(
        self, params: Tensor, grads: Tensor, slots: Mapping[str, Tensor], lr: Number, t: int | Tensor, hyper: Hyper
    ) -> None:
        grads = self._decay_(params, grads, lr, hyper["weight_decay"])
        mean = slots["mean"].lerp_(grads, 1 - self.beta1)
        square = slots["square"].mul_(self.beta2).addcmul_(grads, grads, value=1 - self.beta2)
        scale = (square / (1 - self.beta2**t)).sqrt_().add_(self.eps).mul_(1 - self.beta1**t)
        descend_(params, mean / scale, lr)

    def _decay_(self, params: Tensor, grads: Tensor, lr: Number, weight_decay: Number) -> Tensor:  # noqa: ARG002
        """Apply the weight decay; returns the gradients for the moments."""
        return add_l2(grads, params, weight_decay)


@dataclass(frozen=True)
class AdamW(Adam):
    """Loshchilov & Hutter 2019: Adam with weight decay apart from the gradient.

    weight_decay: shrinks the weights by lr * weight_decay in each step.
    """

    weight_decay: float = field(default=0.01, metadata=PER_RUN)

    def _decay_(self, params: Tensor, grads: Tensor, lr: Number, weight_decay: Number) -> Tensor:
        params.mul_(1 - lr * weight_decay)
        return grads


def is_nonzero(number: Number) -> bool:
    """Whether a hyperparameter is not 0. A tensor never is: stacked runs share which hyperparameters are 0."""
    return isinstance(number, Tensor) or number != 0


def add_l2(grads: Tensor, params: Tensor, weight_decay: Number) -> Tensor:
    """grads + weight_decay params: the gradient with that of the L2 penalty."""
    return add_scaled(grads, params, weight_decay) if is_nonzero(weight_decay) else grads


def add_scaled(x: Tensor, y: Tensor, factor: Number) -> Tensor:
    """x + factor y."""
    return torch.addcmul(x, y, factor) if isinstance(factor, Tensor) else x.add(y, alpha=factor)


def descend_(params: Tensor, direction: Tensor, lr: Number) -> None:
    """params <- params - lr direction."""
    if isinstance(lr, Tensor):
        params.addcmul_(direction, lr, value=-1)
    else:
        params.add_(direction, alpha=-lr)


@dataclass(frozen=True)
class Constant(ScheduleSpec):
    """A constant learning rate."""

    def decay(self, progress: float) -> float:  # noqa: ARG002
        return 1.0


@dataclass(frozen=True)
class _Decaying(ScheduleSpec):
    """Schedules that end at `final`, a share of lr."""

    final: float = 0.0

    def check(self) -> None:
        super().check()
        self.require(0 <= self.final <= 1, "final", "a share of lr in [0, 1]")


@dataclass(frozen=True)
class Cosine(_Decaying):
    """Half a cosine from 1 to `final` (Loshchilov & Hutter 2017, without restarts)."""

    def decay(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Linear(_Decaying):
    """A straight line from 1 to `final`."""

    def decay(self, progress: float) -> float:
        return 1 + (self.final - 1) * progress


@dataclass(frozen=True)
class Exponential(ScheduleSpec):
    """Multiplies the rate by `gamma` after each step; above 1, the rate grows.

    For weights in front of a norm, which cancels their scale, SGD at a constant lr with weight decay wd is the same as
    SGD without weight decay at the rate lr (1 - lr wd)^(-2t-1) after t steps, which is first = 1/(1 - lr wd) and
    gamma = first^2 (Li & Arora 2019).

    gamma: factor of a step.
    first: share of lr in the first step.
    """

    gamma: float = 0.999
    first: float = 1.0

    def check(self) -> None:
        super().check()
        for name in ("gamma", "first"):
            self.require(getattr(self, name) > 0, name, "a number above 0")

    def factor(self, step: int, total: int) -> float:
        if step < self.warmup:
            return self.first * super().factor(step, total)
        try:
            return float(self.first * self.gamma ** (step - self.warmup))
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class Step(ScheduleSpec):
    """Multiplies the rate by `gamma` at each of the `milestones`.

    gamma: factor at each milestone.
    milestones: shares of the training after warm-up.
    """

    gamma: float = 0.1
    milestones: tuple[float, ...] = (0.5, 0.75)

    def check(self) -> None:
        super().check()
        self.require(0 < self.gamma <= 1, "gamma", "in (0, 1]")
        self.require(all(0 < m < 1 for m in self.milestones), "milestones", "shares of the training, each in (0, 1)")

    def decay(self, progress: float) -> float:
        return self.gamma ** sum(progress >= m for m in self.milestones)
