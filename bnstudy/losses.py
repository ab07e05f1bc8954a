"""Losses. Each says what one sample costs; what is minimized is the mean over a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.validation import ConfigError, Spec


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
class CrossEntropy(LossSpec):
    """-log softmax(out)_y, in nats."""

    def mean(self, out: Tensor, y: Tensor) -> Tensor:
        check_labels(y)
        return F.cross_entropy(out, y)

    def each(self, out: Tensor, y: Tensor) -> Tensor:
        check_labels(y)
        # With the classes in rows of their own: torch takes seven times as long over many short rows.
        log_p = out.mT.contiguous().log_softmax(0)
        return -log_p.gather(0, y[None]).squeeze(0)


def check_labels(y: Tensor) -> None:
    """torch would take values for the probabilities of the classes."""
    if y.is_floating_point():
        raise ConfigError("loss=cross_entropy is not allowed with targets that are not labels: it must be mse.")


@dataclass(frozen=True)
class MSE(LossSpec):
    """Squared error, the mean over the outputs; labels stand for one-hot targets.

    summed: the sum over the outputs, ||out - target||^2, instead.
    """

    summed: bool = False

    def each(self, out: Tensor, y: Tensor) -> Tensor:
        target = y if y.is_floating_point() else torch.eye(out.shape[-1], dtype=out.dtype, device=out.device)[y]
        error = (out - target).square()
        return error.sum(-1) if self.summed else error.mean(-1)
