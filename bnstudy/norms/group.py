"""Norms over the features of a single sample: layer, group and instance normalization."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bnstudy.norms.base import AffineNorm, Layout
from bnstudy.norms.explicit import for_layout
from bnstudy.validation import ConfigError


@dataclass(frozen=True)
class LayerNorm(AffineNorm):
    """Ba et al. 2016: each sample normalized over all its features, (C) or (C, H, W), or each token over its own, (C).

    The scale and shift are per channel, as in Wu & He 2018. This makes it GroupNorm with one group.
    """

    def build(self, channels: int, layout: Layout) -> nn.Module:
        if layout != "maps":
            refuse_single_unit("layer", channels)
        return for_layout(self.start(nn.GroupNorm(1, channels, self.eps, self.affine)), layout)


@dataclass(frozen=True)
class InstanceNorm(AffineNorm):
    """Ulyanov et al. 2016: each channel of each sample normalized over its positions. For convolutions only.

    Not over the tokens of an image: a recurrent network has one token at a time, whose values would become 0.
    """

    def build(self, channels: int, layout: Layout) -> nn.Module:
        if layout == "tokens":
            raise ConfigError(
                "norm=instance is not allowed with tokens: a recurrent network normalizes one token at a time, whose "
                "single value per channel would become 0; choose norm=layer, norm=group or norm=batch."
            )
        if layout != "maps":
            raise ConfigError(
                "norm=instance is not allowed with fully connected layers: a unit has a single value per sample, "
                "which would be normalized to 0; choose norm=layer, norm=group, or model=vgg or resnet."
            )
        return self.start(nn.InstanceNorm2d(channels, self.eps, affine=self.affine))


@dataclass(frozen=True)
class GroupNorm(AffineNorm):
    """Wu & He 2018: each sample normalized over groups of channels (and positions), or each token over such groups.

    groups: number of groups, which divides the number of channels.
    """

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
        return for_layout(self.start(nn.GroupNorm(self.groups, channels, self.eps, self.affine)), layout)


def refuse_single_unit(option: str, units: int) -> None:
    """Raises ConfigError if a fully connected layer has one unit: a value divided by its own size says nothing."""
    if units == 1:
        raise ConfigError(
            f"norm={option} is not allowed with a fully connected layer of one unit, whose value would lose its size; "
            "choose wider layers, such as model.width=2, or norm=batch."
        )
