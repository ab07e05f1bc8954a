"""The base classes of all normalizations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from bnstudy.validation import PER_RUN, Spec

WeightLayer = nn.Linear | nn.Conv2d

Layout = Literal["units", "maps", "tokens"]
"""What a norm gets: units [B, C], feature maps [B, C, H, W], or tokens [B, T, C]."""


@dataclass(frozen=True)
class NormSpec(Spec):
    """A normalization. `build` makes its layer; the other methods have defaults that suit most norms.

    position: whether a hidden layer puts the norm before or after its activation. A norm does not read it.
    """

    group: ClassVar[str] = "norm"
    position: Literal["before", "after"] = "before"

    def build(self, channels: int, layout: Layout) -> nn.Module:
        """A layer for inputs of this layout with so many channels.

        Raises:
            ConfigError: the norm is not defined for such inputs.
        """
        raise NotImplementedError

    @property
    def keeps_bias(self) -> bool:
        """Whether a weight layer in front of the norm needs its bias; a norm with a shift makes it redundant."""
        return False

    @property
    def evaluates_by_batch(self) -> bool:
        """Whether evaluation uses statistics of the batch, so that its results depend on the size of the batch."""
        return False

    def wrap(self, layer: WeightLayer) -> WeightLayer:
        """The layer that replaces a hidden weight layer, and keeps its weight and bias.

        A norm of weights returns a `bnstudy.norms.weight.ReparametrizedLayer`; the others return `layer` itself.
        """
        return layer

    def branch(self) -> nn.Module | None:
        """A module that the branch of a residual block passes through before the addition; None for no such module."""
        return None

    def check_batch(self, batch_size: int) -> None:
        """Raises ConfigError if the norm's statistics are not defined for this batch size in training."""

    def check_network(self, has_branches: bool) -> None:
        """Raises ConfigError if the norm does not fit a network with, or without, residual branches."""


@dataclass(frozen=True)
class NoActivationNorm(NormSpec):
    """A norm that leaves activations as they are: weight layers keep their biases, and `position` has no effect."""

    def canonical(self) -> Mapping[str, object]:
        return {"position": "before"}

    @property
    def keeps_bias(self) -> bool:
        return True

    def build(self, channels: int, layout: Layout) -> nn.Module:  # noqa: ARG002
        return nn.Identity()


@dataclass(frozen=True)
class AffineNorm(NormSpec):
    """A norm that adds `eps` to the variance and then applies a learned scale and shift per channel, if `affine`."""

    affine: bool = True
    eps: float = field(default=1e-5, metadata=PER_RUN)

    def check(self) -> None:
        self.require(self.eps > 0, "eps", "a number above 0")
