"""Normalizations. Each is a module, torch's own where there is one, behind a spec; a new one is one class here or
anywhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from bnstudy.norms.base import NormSpec
from bnstudy.norms.branches import Scale
from bnstudy.norms.reparametrized import Reparametrized, WeightLayer, WeightNormed
from bnstudy.norms.unsteady import Unsteady
from bnstudy.norms.written_out import FreeNorm, GhostNorm, free_numbers, write_out
from bnstudy.validation import PER_RUN, ConfigError

__all__ = [
    "BatchNorm",
    "FreeNorm",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "NoNorm",
    "NoisyBatchNorm",
    "Reparametrized",
    "SkipInit",
    "WeightNorm",
    "free_numbers",
    "write_out",
]


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
class SkipInit(NormSpec):
    """De & Smith 2020: no normalization, but each residual branch is multiplied by a learned scalar.

    initial: what the scalars begin with. With 0 every block begins as its shortcut, and the weights of its branch,
        whose gradient the scalar multiplies, begin to move with the second update.
    """

    initial: float = field(default=0.0, metadata=PER_RUN)

    def check(self) -> None:
        # Nothing stands behind the weights, so that there is no place to choose.
        object.__setattr__(self, "position", "before")

    @property
    def keeps_bias(self) -> bool:
        return True

    def build(self, channels: int, spatial: bool) -> nn.Module:  # noqa: ARG002
        return nn.Identity()

    def branch(self) -> nn.Module:
        return Scale(self.initial)

    def check_network(self, has_branches: bool) -> None:
        if not has_branches:
            raise ConfigError(
                "norm=skipinit is not allowed with a network without residual branches, which are what it scales; "
                "choose model=resnet, or norm=none."
            )


@dataclass(frozen=True)
class _Affine(NormSpec):
    """What all normalizations have: eps added to the variance, and a learned scale and shift per channel."""

    affine: bool = True
    eps: float = field(default=1e-5, metadata=PER_RUN)

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

    option: ClassVar[str] = "batch"
    momentum: float | None = field(default=0.1, metadata=PER_RUN)
    track_running_stats: bool = True

    def check(self) -> None:
        super().check()
        self.require(self.momentum is None or 0 < self.momentum <= 1, "momentum", "in (0, 1], or null")

    def check_batch(self, batch_size: int) -> None:
        if batch_size < 2:
            raise ConfigError(
                f"batch_size={batch_size} is not allowed with norm={self.option}: statistics over a batch of one are "
                "not defined; it must be at least 2, or choose norm=group or norm=layer."
            )

    def build(self, channels: int, spatial: bool) -> nn.Module:
        kind = nn.BatchNorm2d if spatial else nn.BatchNorm1d
        layer = kind(channels, self.eps, self.momentum, self.affine, self.track_running_stats)
        # For the cumulative average torch takes its counter to the host, which neither vmap nor a GPU likes.
        return FreeNorm(layer) if self.momentum is None else layer


@dataclass(frozen=True)
class GhostBatchNorm(BatchNorm):
    """Hoffer et al. 2017, section 4: batch normalization over parts of the batch, so that statistics are as noisy as
    those of a small batch and gradients as exact as those of the large one.

    Running statistics move once a batch, to the average of its parts' means and unbiased variances. So momentum means
    the same as with norm=batch, whatever the size; Hoffer et al. move them once a part.

    size: samples of a part. Where a batch is looked at that does not divide into such parts, as in evaluation with
        batch statistics, the parts are as even as possible and none is smaller: see `GhostNorm`.
    """

    option: ClassVar[str] = "ghost"
    size: int = 16

    def check(self) -> None:
        super().check()
        self.require(self.size >= 2, "size", "at least 2, as statistics over a single sample are not defined")

    def check_batch(self, batch_size: int) -> None:
        if batch_size % self.size:
            below = batch_size // self.size * self.size
            near = f"{below} or {below + self.size}" if below else f"{self.size}"
            raise ConfigError(
                f"batch_size={batch_size} is not allowed with norm=ghost and norm.size={self.size}: it must be a "
                f"multiple of norm.size, such as {near}."
            )

    def build(self, channels: int, spatial: bool) -> nn.Module:
        kind = nn.BatchNorm2d if spatial else nn.BatchNorm1d
        return GhostNorm(kind(channels, self.eps, self.momentum, self.affine, self.track_running_stats), self.size)


@dataclass(frozen=True)
class NoisyBatchNorm(BatchNorm):
    """Santurkar et al. 2018, section 2.1: batch normalization whose outputs are made unsteady on purpose, by noise
    whose distribution changes with each update. In training only.

    Behind the scale and shift each unit (channel) gets, at each update, a mean m ~ U(-shift, shift) and a scale
    s ~ U(1, scale); with these each sample gets m' ~ U(m - jitter, m + jitter) and s' ~ N(s, jitter^2), the same for
    all positions of a channel, and y becomes s' y + m'.

    After the paper's appendix as remembered, where the defaults are n_mu = 0.5, n_sigma = 1.25 and
    r_mu = r_sigma = 0.1; neither the algorithm nor the numbers could be compared with its text. What is known to be
    of our own: in a convolution the noise is the channel's, not the position's, and no noise is drawn in evaluation.
    """

    option: ClassVar[str] = "noisy_batch"
    shift: float = field(default=0.5, metadata=PER_RUN)
    scale: float = field(default=1.25, metadata=PER_RUN)
    jitter: float = field(default=0.1, metadata=PER_RUN)

    def check(self) -> None:
        super().check()
        self.require(self.shift >= 0, "shift", "0 or more")
        self.require(self.scale >= 1, "scale", "at least 1")
        self.require(self.jitter >= 0, "jitter", "0 or more")

    def build(self, channels: int, spatial: bool) -> nn.Module:
        return nn.Sequential(super().build(channels, spatial), Unsteady(self.shift, self.scale, self.jitter))


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


@dataclass(frozen=True)
class WeightNorm(NormSpec):
    """Salimans & Kingma 2016, section 2: each unit's (channel's) weights are w = g v / ||v||, with a bias.

    No activations are normalized: v and the number g take the place of w in the hidden layers, the classifier is
    plain. v is drawn as w is, and g begins at ||v||, so that the network begins as with norm=none; the initialization
    of the paper's section 3, by the statistics of a first batch, is not done.
    """

    def check(self) -> None:
        # Nothing stands behind the weights, so that there is no place to choose.
        object.__setattr__(self, "position", "before")

    @property
    def keeps_bias(self) -> bool:
        return True

    def wrap(self, layer: WeightLayer) -> WeightLayer:
        return WeightNormed.of(layer)

    def build(self, channels: int, spatial: bool) -> nn.Module:  # noqa: ARG002
        return nn.Identity()
