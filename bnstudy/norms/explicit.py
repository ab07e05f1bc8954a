"""Torch's normalizations as explicit tensor code: stacked runs may differ in their numbers, and probes can
differentiate them twice."""

from __future__ import annotations

from typing import TypeGuard, get_args

import torch
from torch import Tensor, nn

from bnstudy.validation import ConfigError

TorchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm | nn.GroupNorm | nn.InstanceNorm2d


class ExplicitNorm(nn.Module):
    """One of torch's normalizations as tensor code, with eps and momentum as 0-dim float32 buffers.

    Parameters and the other buffers have torch's names. `eps` and `momentum` (None for the cumulative average) are not
    persistent, so the `state_dict` is torch's. Statistics are computed at least in float32.

    tracks: whether training updates the running statistics.
    """

    tracks = True

    eps: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    momentum: Tensor | None

    def __init__(self, like: TorchNorm) -> None:
        super().__init__()
        # Groups of channels over which a sample is normalized; None for statistics over the batch.
        self.groups = like.num_groups if isinstance(like, nn.GroupNorm) else None
        if isinstance(like, nn.InstanceNorm2d):
            self.groups = like.num_features
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
            return self._by_running_statistics(wide, self.running_mean, self.running_var).to(x.dtype)
        out = self._over_batch(wide) if self.groups is None else self._over_groups(wide, self.groups)
        if self.weight is not None and self.bias is not None:
            out = out * _per_channel(self.weight, x) + _per_channel(self.bias, x)
        return out.to(x.dtype)

    def _by_running_statistics(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """One product and one sum, as in torch."""
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
            self._track_(mean.detach(), unbiased_variance(var.detach(), x.numel() // x.shape[1]))
        return (x - _per_channel(mean, x)) * _per_channel(torch.rsqrt(var + self.eps), x)

    def _track_(self, mean: Tensor, var: Tensor) -> None:
        """Update the running statistics with the mean and unbiased variance of a batch."""
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)
        weight = self.num_batches_tracked.reciprocal() if self.momentum is None else self.momentum
        self.running_mean.add_((mean - self.running_mean) * weight)
        self.running_var.add_((var - self.running_var) * weight)


class GhostNorm(ExplicitNorm):
    """Batch normalization over ghost batches of `size` samples.

    A batch that `size` does not divide is cut into parts of at least `size` samples, as many and as even as possible:
    with size 16, 40 samples make two parts of 20. A batch of fewer than `size` samples is one part.
    """

    def __init__(self, like: nn.BatchNorm1d | nn.BatchNorm2d, size: int) -> None:
        super().__init__(like)
        self.size = size

    def _over_batch(self, x: Tensor) -> Tensor:
        parts = max(1, len(x) // self.size)
        samples, longer = divmod(len(x), parts)
        cut = longer * (samples + 1)
        pieces = [self._over_parts(x[:cut], samples + 1)] if longer else []
        pieces.append(self._over_parts(x[cut:], samples))
        outputs, means, variances = zip(*pieces, strict=True)
        if self.training and self.tracks:
            self._track_(torch.cat(means).mean(0).detach(), torch.cat(variances).mean(0).detach())
        return torch.cat(outputs)

    def _over_parts(self, x: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
        """x [parts * samples, C, ...] normalized, and the parts' means and unbiased variances, [parts, C] each."""
        parts = x.unflatten(0, (-1, samples))
        var, mean = torch.var_mean(parts, [1, *range(3, parts.ndim)], correction=0, keepdim=True)
        out = (parts - mean) * torch.rsqrt(var + self.eps)
        return out.flatten(0, 1), mean.flatten(1), unbiased_variance(var.flatten(1), samples * x[0, 0].numel())


def unbiased_variance(biased: Tensor, n: int) -> Tensor:
    """The unbiased variance of `n` values from their biased variance; 0 for a single value."""
    return biased * (n / max(1, n - 1))


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] in a shape that broadcasts against `x` [B, C, ...]."""
    return values.view(-1, *[1] * (x.ndim - 2))


def make_explicit(model: nn.Module) -> None:
    """Replace each of torch's normalizations in `model` by an `ExplicitNorm`. A module in two places stays one. A norm
    that the model keeps in evaluation mode is left, as the model may find it by its class.

    Call it before the model moves to a device: a norm without parameters does not know its device.
    """
    mode = model.training
    model.train()
    found = [(parent, name, child) for parent in model.modules() for name, child in parent._modules.items()]
    norms = {child: ExplicitNorm(child) for _, _, child in found if _can_be_explicit(child)}
    for parent, name, child in found:
        if child in norms:
            setattr(parent, name, norms[child])
    model.train(mode)


def _can_be_explicit(module: nn.Module | None) -> TypeGuard[TorchNorm]:
    """Whether this is a norm of torch's own code that is not frozen; of instance norms, those without averages."""
    if not isinstance(module, TorchNorm) or type(module) not in get_args(TorchNorm) or not module.training:
        return False
    return not isinstance(module, nn.InstanceNorm2d) or module.running_mean is None


def tensors_to_buffers(model: nn.Module) -> None:
    """Make the tensors that modules hold as plain attributes buffers, as hand-written norms do with their statistics:
    only buffers are part of a run's state."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                delattr(module, name)
                module.register_buffer(name, value.detach(), persistent=False)


def make_numbers_buffers(model: nn.Module) -> None:
    """Make eps and momentum of each normalization buffers, so that stacked runs may differ in them.

    Raises:
        ConfigError: a module that is neither torch's nor ours has a number `eps`, whose use is unknown.
    """
    make_explicit(model)
    for module in model.modules():
        if isinstance(getattr(module, "eps", None), float):
            raise ConfigError(
                "norm.eps and norm.momentum must be the same for all runs of a stack if the norm is a "
                f"{type(module).__name__}; choose engine=serial."
            )
