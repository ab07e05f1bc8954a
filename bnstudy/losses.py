"""Losses of a sample; training minimizes their mean over a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.validation import ConfigError, Spec


@dataclass(frozen=True)
class LossSpec(Spec):
    """A loss; training minimizes its mean over the samples of a batch."""

    group: ClassVar[str] = "loss"

    def each(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample, [N]; outputs are [N, K], targets are labels [N] or values [N, K]."""
        raise NotImplementedError

    def mean(self, out: Tensor, y: Tensor) -> Tensor:
        """The mean over the samples: a scalar."""
        return self.each(out, y).mean()

    def mean_alone(self, out: Tensor, y: Tensor) -> Tensor:
        """`mean` for a run that is trained alone, by functions that are fast only there."""
        return self.mean(out, y)

    def of_guessing(self, y: Tensor, outputs: int) -> float:
        """The mean over the targets `y` of the best constant output, against which divergence is measured; here of an
        output of zeros."""
        return float(self.mean(torch.zeros(len(y), outputs, device=y.device), y))


@dataclass(frozen=True)
class CrossEntropy(LossSpec):
    """-log softmax(out)_y, in nats."""

    def mean_alone(self, out: Tensor, y: Tensor) -> Tensor:
        check_labels(y)
        return F.cross_entropy(out, y)

    def each(self, out: Tensor, y: Tensor) -> Tensor:
        check_labels(y)
        # Classes first: torch is slow at a softmax over many short rows.
        log_p = out.mT.contiguous().log_softmax(0)
        return -log_p.gather(0, y[None]).squeeze(0)

    def of_guessing(self, y: Tensor, outputs: int) -> float:
        """The entropy of the class frequencies."""
        check_labels(y)
        return float(torch.special.entr(class_frequencies(y, outputs)).sum())


def check_labels(y: Tensor) -> None:
    """Refuse targets that are not labels: torch would take them for class probabilities."""
    if y.is_floating_point():
        raise ConfigError("loss=cross_entropy is not allowed with targets that are not labels: it must be mse.")


@dataclass(frozen=True)
class MSE(LossSpec):
    """The mean squared error over the outputs; labels are one-hot encoded.

    summed: use the sum over the outputs, ||out - target||^2, instead of the mean.
    """

    summed: bool = False

    def each(self, out: Tensor, y: Tensor) -> Tensor:
        target = y if y.is_floating_point() else torch.eye(out.shape[-1], dtype=out.dtype, device=out.device)[y]
        error = (out - target).square()
        return error.sum(-1) if self.summed else error.mean(-1)

    def of_guessing(self, y: Tensor, outputs: int) -> float:
        """The variance of the targets."""
        if y.is_floating_point():
            variance = y.double().var(0, correction=0)
        else:
            share = class_frequencies(y, outputs)
            variance = share * (1 - share)
        return float(variance.sum() if self.summed else variance.mean())


def class_frequencies(y: Tensor, classes: int) -> Tensor:
    """The share of each class among the labels `y`: float64 [classes], on the CPU."""
    return torch.bincount(y.cpu(), minlength=classes).double() / len(y)
