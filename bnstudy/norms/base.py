"""The base of all normalizations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from bnstudy.validation import Spec


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
