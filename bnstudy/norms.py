"""Normalization layers. Each is torch's own module behind a spec; a new one is one class here or anywhere else."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bnstudy.spec import ConfigError, NormSpec


@dataclass(frozen=True)
class NoNorm(NormSpec):
    """No normalization: the baseline. The layers before keep their biases."""

    def check(self) -> None:
        # Where nothing stands has no meaning: a sweep over positions trains the baseline once.
        object.__setattr__(self, "position", "before")

    @property
    def is_none(self) -> bool:
        return True

    def build(self, channels: int, spatial: bool) -> nn.Module:  # noqa: ARG002
        return nn.Identity()


@dataclass(frozen=True)
class _Affine(NormSpec):
    """What all normalizations have: eps added to the variance, and a learned scale and shift per channel."""

    affine: bool = True
    eps: float = 1e-5

    def check(self) -> None:
        self.require(self.eps > 0, "eps", "a number above 0")


@dataclass(frozen=True)
class BatchNorm(_Affine):
    """Ioffe & Szegedy 2015: each channel normalized over the batch (and positions).

    In training with the biased variance of the batch; in evaluation with running statistics
    x <- (1 - momentum) x + momentum x_batch, the variance unbiased, as torch keeps them.

    momentum: null for the cumulative average over all updates.
    track_running_stats: false to normalize with the batch's statistics in evaluation too.
    """

    momentum: float | None = 0.1
    track_running_stats: bool = True

    def check(self) -> None:
        super().check()
        self.require(self.momentum is None or 0 < self.momentum <= 1, "momentum", "in (0, 1], or null")

    def check_batch(self, batch_size: int) -> None:
        if batch_size < 2:
            raise ConfigError(
                f"batch_size={batch_size} is not allowed with norm=batch: statistics over a batch of one are not "
                "defined; it must be at least 2, or choose norm=group or norm=layer."
            )

    def build(self, channels: int, spatial: bool) -> nn.Module:
        layer = nn.BatchNorm2d if spatial else nn.BatchNorm1d
        return layer(channels, self.eps, self.momentum, self.affine, self.track_running_stats)


@dataclass(frozen=True)
class LayerNorm(_Affine):
    """Ba et al. 2016: each sample normalized over all its features, (C) or (C, H, W).

    The scale and shift are per channel, as in Wu & He 2018, so that it is GroupNorm with one group.
    """

    def build(self, channels: int, spatial: bool) -> nn.Module:  # noqa: ARG002
        return nn.GroupNorm(1, channels, self.eps, self.affine)


@dataclass(frozen=True)
class InstanceNorm(_Affine):
    """Ulyanov et al. 2016: each channel of each sample normalized over its positions. Convolutions only."""

    def build(self, channels: int, spatial: bool) -> nn.Module:
        if not spatial:
            raise ConfigError(
                "norm=instance is not allowed with fully connected layers: a unit has a single value per sample, "
                "which would be normalized to 0; choose norm=layer, norm=group, or model=vgg or resnet."
            )
        return nn.InstanceNorm2d(channels, self.eps, affine=self.affine)


@dataclass(frozen=True)
class GroupNorm(_Affine):
    """Wu & He 2018: each sample normalized over groups of channels (and positions)."""

    groups: int = 8

    def check(self) -> None:
        super().check()
        self.require(self.groups >= 1, "groups", "at least 1")

    def build(self, channels: int, spatial: bool) -> nn.Module:
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        if self.groups not in divisors:
            allowed = ", ".join(map(str, divisors))
            raise self.refuse("groups", f"a divisor of the layer's {channels} channels ({allowed})")
        if not spatial and self.groups == channels:
            raise self.refuse("groups", f"less than the layer's {channels} units, or each is normalized to 0")
        return nn.GroupNorm(self.groups, channels, self.eps, self.affine)
