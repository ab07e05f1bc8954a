"""Optimizers and learning-rate schedules, one definition for every engine.

A run's parameters are one flat tensor (serial: [P], stacked: [R, P]), its optimizer state likewise, so an optimizer
is a few elementwise operations, whatever the network. The formulas are torch.optim's. Where stacked runs differ in the
learning rate or a field marked PER_RUN, it is a tensor [R, 1] in place of a number; 0 remains a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from bnstudy.validation import PER_RUN, Spec


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
class SGD(OptimSpec):
    """Stochastic gradient descent: v <- momentum v + g + weight_decay w; w <- w - lr v (Nesterov: g + momentum v)."""

    momentum: float = field(default=0.0, metadata=PER_RUN)
    nesterov: bool = False
    weight_decay: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        self.require(0 <= self.momentum < 1, "momentum", "in [0, 1)")
        self.require(self.weight_decay >= 0, "weight_decay", "0 or more")
        if self.nesterov and self.momentum == 0:
            raise self.refuse("nesterov", "false where optim.momentum=0")

    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if present(self.momentum) else ()

    def update_(
        self,
        params: Tensor,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        lr: float | Tensor,
        t: int | Tensor,  # noqa: ARG002
    ) -> None:
        if present(self.weight_decay):
            grads = add_scaled(grads, params, self.weight_decay)
        direction = grads
        if present(self.momentum):
            velocity = slots["velocity"].mul_(self.momentum).add_(grads)
            direction = add_scaled(grads, velocity, self.momentum) if self.nesterov else velocity
        descend_(params, direction, lr)


@dataclass(frozen=True)
class Adam(OptimSpec):
    """Kingma & Ba 2015; weight_decay adds to the gradient (L2)."""

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
        self, params: Tensor, grads: Tensor, slots: Mapping[str, Tensor], lr: float | Tensor, t: int | Tensor
    ) -> None:
        grads = self._decay_(params, grads, lr)
        mean = slots["mean"].lerp_(grads, 1 - self.beta1)
        square = slots["square"].mul_(self.beta2).addcmul_(grads, grads, value=1 - self.beta2)
        scale = (square / (1 - self.beta2**t)).sqrt_().add_(self.eps).mul_(1 - self.beta1**t)
        descend_(params, mean / scale, lr)

    def _decay_(self, params: Tensor, grads: Tensor, lr: float | Tensor) -> Tensor:  # noqa: ARG002
        return add_scaled(grads, params, self.weight_decay) if present(self.weight_decay) else grads


@dataclass(frozen=True)
class AdamW(Adam):
    """Loshchilov & Hutter 2019: weight_decay shrinks the weights by lr * weight_decay, apart from the gradient."""

    weight_decay: float = field(default=0.01, metadata=PER_RUN)

    def _decay_(self, params: Tensor, grads: Tensor, lr: float | Tensor) -> Tensor:
        params.mul_(1 - lr * self.weight_decay)
        return grads


def present(number: float | Tensor) -> bool:
    """Whether it is not zero, which a tensor never is: its values are not looked at."""
    return isinstance(number, Tensor) or number != 0


def add_scaled(x: Tensor, y: Tensor, factor: float | Tensor) -> Tensor:
    """x + factor y."""
    return torch.addcmul(x, y, factor) if isinstance(factor, Tensor) else x.add(y, alpha=factor)


def descend_(params: Tensor, direction: Tensor, lr: float | Tensor) -> None:
    if isinstance(lr, Tensor):
        params.sub_(lr * direction)
    else:
        params.add_(direction, alpha=-lr)


@dataclass(frozen=True)
class Constant(ScheduleSpec):
    """The same rate throughout."""

    def course(self, progress: float) -> float:  # noqa: ARG002
        return 1.0


@dataclass(frozen=True)
class _Falling(ScheduleSpec):
    """Schedules that end at `final`, a share of lr."""

    final: float = 0.0

    def check(self) -> None:
        super().check()
        self.require(0 <= self.final <= 1, "final", "a share of lr in [0, 1]")


@dataclass(frozen=True)
class Cosine(_Falling):
    """Half a cosine from 1 to `final` (Loshchilov & Hutter 2017, without restarts)."""

    def course(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Linear(_Falling):
    """A straight line from 1 to `final`."""

    def course(self, progress: float) -> float:
        return 1 + (self.final - 1) * progress


@dataclass(frozen=True)
class Step(ScheduleSpec):
    """Multiplied by `gamma` at each of the `milestones`, shares of the training after warm-up."""

    gamma: float = 0.1
    milestones: tuple[float, ...] = (0.5, 0.75)

    def check(self) -> None:
        super().check()
        self.require(0 < self.gamma <= 1, "gamma", "in (0, 1]")
        self.require(all(0 < m < 1 for m in self.milestones), "milestones", "shares of the training, each in (0, 1)")

    def course(self, progress: float) -> float:
        return self.gamma ** sum(progress >= m for m in self.milestones)
