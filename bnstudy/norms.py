"""Normalization layers. Each is torch's own module behind a spec; a new one is one class here or anywhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor, nn

from bnstudy.spec import PER_RUN, ConfigError, NormSpec


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

    momentum: float | None = field(default=0.1, metadata=PER_RUN)
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
        kind = nn.BatchNorm2d if spatial else nn.BatchNorm1d
        layer = kind(channels, self.eps, self.momentum, self.affine, self.track_running_stats)
        # For the cumulative average torch takes its counter to the host, which neither vmap nor a GPU likes.
        return FreeNorm(layer) if self.momentum is None else layer


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


TorchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d


class FreeNorm(nn.Module):
    """One of torch's normalizations written out, with eps and momentum as 0-dim float32 buffers.

    The names of its parameters and the other buffers are torch's. `eps` and `momentum` are not persistent: they are
    no part of the `state_dict`. A momentum of None is the cumulative average. Statistics are computed in float32 at
    least.

    tracks: whether running statistics move in training.
    """

    tracks = True

    eps: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    momentum: Tensor | None

    def __init__(self, like: TorchNorm) -> None:
        super().__init__()
        self.groups = _groups(like)
        self.weight: nn.Parameter | None = like.weight
        self.bias: nn.Parameter | None = like.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(like, name, None))
        self.register_buffer("eps", torch.tensor(like.eps), persistent=False)
        momentum = None if self.running_mean is None else like.momentum
        self.register_buffer("momentum", None if momentum is None else torch.tensor(momentum), persistent=False)
        self.train(like.training)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.groups is None and not self.training and self.running_mean is not None and self.running_var is not None:
            return self._over_updates(wide, self.running_mean, self.running_var).to(x.dtype)
        out = self._over_batch(wide) if self.groups is None else self._over_groups(wide, self.groups)
        if self.weight is not None and self.bias is not None:
            out = out * _per_channel(self.weight, x) + _per_channel(self.bias, x)
        return out.to(x.dtype)

    def _over_updates(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """By running statistics: as one product and sum, as torch does it."""
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return torch.addcmul(_per_channel(shift, x), x, _per_channel(scale, x))

    def _over_groups(self, x: Tensor, groups: int) -> Tensor:
        parts = x.reshape(len(x), groups, -1)
        var, mean = torch.var_mean(parts, 2, correction=0, keepdim=True)
        return ((parts - mean) * torch.rsqrt(var + self.eps)).view(x.shape)

    def _over_batch(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
        if self.training and self.tracks:
            self._track_(mean.detach(), var.detach(), x.numel() // x.shape[1])
        return (x - _per_channel(mean, x)) * _per_channel(torch.rsqrt(var + self.eps), x)

    def _track_(self, mean: Tensor, var: Tensor, n: int) -> None:
        """Move the running statistics to those of a batch of `n` values per channel."""
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.num_batches_tracked.reciprocal() if self.momentum is None else self.momentum
        self.running_mean.add_((mean - self.running_mean) * share)
        self.running_var.add_((var * (n / (n - 1)) - self.running_var) * share)


def _groups(norm: nn.Module) -> int | None:
    """How many groups of a sample's channels share their statistics; None for statistics over the batch."""
    if isinstance(norm, nn.GroupNorm):
        return norm.num_groups
    return norm.num_features if isinstance(norm, nn.InstanceNorm2d) else None


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] so that it broadcasts against `x` [B, C, ...]."""
    return values.view(-1, *[1] * (x.ndim - 2))


def write_out(model: nn.Module) -> None:
    """Put a `FreeNorm` in place of each of torch's normalizations.

    Call it before the model is moved to a device: a norm without parameters does not say where it is.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, TorchNorm) and type(child) in get_args(TorchNorm):
                setattr(parent, name, FreeNorm(child))


def free_numbers(model: nn.Module) -> None:
    """Make eps and momentum of each normalization buffers, so that stacked runs may differ in them: `write_out`.

    Raises:
        ConfigError: a module other than torch's and ours has such a number, and nobody knows what it does with it.
    """
    write_out(model)
    for module in model.modules():
        if isinstance(getattr(module, "eps", None), float):
            raise ConfigError(
                "norm.eps and norm.momentum must be the same for all runs trained at once where the norm is a "
                f"{type(module).__name__}; choose engine=serial."
            )
