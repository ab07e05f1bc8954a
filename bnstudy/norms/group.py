"""Norms over the features of a single sample: layer, group and instance normalization."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bnstudy.norms.base import AffineNorm, Layout
from bnstudy.validation import ConfigError


@dataclass(frozen=True)
class LayerNorm(AffineNorm):
    """Ba et al. 2016: each sample normalized over all its features, (C) or (C, H, W).

    The scale and shift are per channel, as in Wu & He 2018. This makes it GroupNorm with one group.
    """

    def build(self, channels: int, layout: Layout) -> nn.Module:
        if layout != "maps":
            refuse_single_unit("layer", channels)
        return nn.GroupNorm(1, channels, self.eps, self.affine)


@dataclass(frozen=True)
class InstanceNorm(AffineNorm):
    """Ulyanov et al. 2016: each channel of each sample normalized over its positions. For convolutions only."""

    def build(self, channels: int, layout: Layout) -> nn.Module:
        if layout != "maps":
            raise ConfigError(
                "norm=instance is not allowed with fully connected layers: a unit has a single value per sample, "
                "which would be normalized to 0; choose norm=layer, norm=group, or model=vgg or resnet."
            )
        return nn.InstanceNorm2d(channels, self.eps, affine=self.affine)


@dataclass(frozen=True)
class GroupNorm(AffineNorm):
    """Wu & He 2018: each sample normalized over groups of channels (and positions)."""

    groups: int = 8

    def check(self) -> None:
        super().check()
        self.require(self.groups >= 1, "groups", "at least 1")

    def build(self, channels: int, layout: Layout) -> nn.Module:
        if layout != "maps":
            refuse_single_unit("group", channels)
        if channels % self.groups:
            divisors = ", ".join(str(d) for d in range(1, channels + 1) if channels % d == 0)
            raise self.refuse("groups", f"a divisor of the layer's {channels} channels ({divisors})")
        if layout != "maps" and self.groups == channels:
            raise self.refuse("groups", f"less than the layer's {channels} units, or each is normalized to 0")
        return nn.GroupNorm(self.groups, channels, self.eps, self.affine)


def refuse_single_unit(option: str, units: int) -> None:
    """Raises ConfigError if a fully connected layer has one unit: a mean over a single value leaves 0."""
    if units == 1:
        raise ConfigError(
            f"norm={option} is not allowed with a fully connected layer of one unit, whose value would be normalized "
            "to 0; choose wider layers, such as model.width=2, or norm=batch."
        )
