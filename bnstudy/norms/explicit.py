"""Torch's normalizations as explicit tensor code: stacked runs may differ in their numbers, and probes can
differentiate them twice."""

from __future__ import annotations

from typing import TypeGuard, get_args

import torch
from torch import Tensor, nn

from bnstudy.norms.base import Layout, Norm, per_channel, scale_and_shift
from bnstudy.norms.standardize import Standardize, centre
from bnstudy.norms.weighted import StandardizeEach, WeightedStandardize
from bnstudy.validation import ConfigError

TorchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm | nn.GroupNorm | nn.InstanceNorm2d


class ExplicitNorm(Norm):
    """One of torch's normalizations as tensor code, with eps and momentum as 0-dim buffers.

    Parameters and the other buffers have torch's names. `eps` and `momentum` (None for the cumulative average) are not
    persistent, so the `state_dict` is torch's. Statistics are computed at least in float32.

    tokens: whether inputs are [B, T, C]. Statistics over the batch are over all tokens that are present, and running
        statistics are updated if there are at least two; a norm over groups of channels normalizes each token.
    tracks: whether training updates the running statistics.
    """

    tracks = True

    eps: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    momentum: Tensor | None

    def __init__(self, like: TorchNorm, tokens: bool = False) -> None:
        super().__init__(tokens)
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

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        if self.groups is not None:
            return super().forward(x)
        wide, mask = self._channels_first(x, present)
        if not self.training and self.running_mean is not None and self.running_var is not None:
            out = self._by_running_statistics(wide, self.running_mean, self.running_var)
        else:
            out = self._over_batch(wide, mask)
        return (out.movedim(1, -1) if self.tokens else out).to(x.dtype)

    def normalize(self, x: Tensor) -> Tensor:
        """x [N, C, ...] over groups of channels."""
        assert self.groups is not None
        parts = x.reshape(len(x), self.groups, -1)
        return scale_and_shift(StandardizeEach.apply(parts, self.eps).view(x.shape), self.weight, self.bias)

    def values_together(self, x: Tensor) -> int | None:
        return None if self.groups is None else (x[0, 0] if self.tokens else x[0]).numel() // self.groups

    def batch_moments(self, x: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and biased variance [C] of the norm's inputs over the batch, without those of absent tokens."""
        wide, mask = self._channels_first(x, present)
        mean, var, _ = moments(wide, [0, *range(2, wide.ndim)], mask)
        return mean.flatten(), var.flatten()

    def join_moments(self, calls: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """`batch_moments` of the calls of one forward pass, each in the shape of the running statistics."""
        return calls

    def _channels_first(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`x` as [B, C, ...], at least in float32, and `present` as [B, 1, T]."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return wide.movedim(-1, 1) if self.tokens else wide, None if present is None else present.unsqueeze(1)

    def _by_running_statistics(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """One product and one sum, as in torch."""
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return torch.addcmul(per_channel(shift, x), x, per_channel(scale, x))

    def _over_batch(self, x: Tensor, present: Tensor | None) -> Tensor:
        """x [B, C, ...] normalized, scaled and shifted."""
        if present is not None:
            return self._over_present(x, present)
        if self.training and self.tracks:
            mean, var, count = moments(x, [0, *range(2, x.ndim)])
            self._track_(mean.flatten(), unbiased_variance(var, count).flatten(), None)
        return self._standardize(x)

    def _over_present(self, x: Tensor, present: Tensor) -> Tensor:
        """Tokens x [B, C, T] with statistics over those that are present [B, 1, T]. The others must be finite: they are
        multiplied by 0."""
        count = present.sum()
        share = (present / count.clamp_min(1)).to(x.dtype)
        flat_x, flat_share = (t.movedim(1, -1).flatten(0, 1) for t in (x, share))
        out, mean, var = WeightedStandardize.apply(flat_x, flat_share, self.weight, self.bias, self.eps)
        if self.training and self.tracks:
            self._track_(mean.flatten(), unbiased_variance(var, count).flatten(), count > 1)
        return out.unflatten(0, (len(x), -1)).movedim(-1, 1)

    def _standardize(self, x: Tensor) -> Tensor:
        scale, shift = (None if p is None else per_channel(p, x) for p in (self.weight, self.bias))
        # Without gradients no function of autograd: vmap takes twice as long for it.
        standardize = Standardize.apply if torch.is_grad_enabled() else Standardize.forward
        return standardize(x, scale, shift, self.eps)

    def _track_(self, mean: Tensor, var: Tensor, is_known: Tensor | None) -> None:
        """Update the running statistics with the mean and unbiased variance [C] of a batch, unless `is_known` is false:
        the batch then has fewer than two tokens, and no variance."""
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        mean, var = mean.detach(), var.detach()
        if is_known is not None:
            mean, var = mean.where(is_known, self.running_mean), var.where(is_known, self.running_var)
        self.num_batches_tracked.add_(1 if is_known is None else is_known)
        weight = self.num_batches_tracked.clamp_min(1).reciprocal() if self.momentum is None else self.momentum
        self.running_mean.add_((mean - self.running_mean) * weight)
        self.running_var.add_((var - self.running_var) * weight)


class GhostNorm(ExplicitNorm):
    """Batch normalization over ghost batches of `size` samples.

    A batch that `size` does not divide is cut into parts of at least `size` samples, as many and as even as possible:
    with size 16, 40 samples make two parts of 20. A batch of fewer than `size` samples is one part. A sample is an
    image with all its tokens.
    """

    def __init__(self, like: nn.BatchNorm1d | nn.BatchNorm2d, size: int, tokens: bool = False) -> None:
        super().__init__(like, tokens)
        self.size = size

    def _over_batch(self, x: Tensor, present: Tensor | None) -> Tensor:
        parts = max(1, len(x) // self.size)
        samples, longer = divmod(len(x), parts)
        cut = longer * (samples + 1)
        pieces = [(slice(cut), samples + 1)] if longer else []
        pieces.append((slice(cut, None), samples))
        of_pieces = [self._over_parts(x[at], None if present is None else present[at], size) for at, size in pieces]
        outputs, means, variances, known = zip(*of_pieces, strict=True)
        if self.training and self.tracks:
            mean, var = torch.cat(means), torch.cat(variances)
            if present is None:
                self._track_(mean.mean(0), var.mean(0), None)
            else:
                is_known = torch.cat([k for k in known if k is not None])
                number = is_known.sum()
                mean, var = (v.where(is_known, 0.0).sum(0) / number.clamp_min(1) for v in (mean, var))
                self._track_(mean, var, number > 0)
        return scale_and_shift(torch.cat(outputs), self.weight, self.bias)

    def _over_parts(
        self, x: Tensor, present: Tensor | None, samples: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """x [parts * samples, C, ...] normalized, the parts' means and unbiased variances, [parts, C] each, and with a
        mask whether they have the two tokens that a variance needs, [parts, 1]."""
        parts = x.unflatten(0, (-1, samples))
        mask = None if present is None else present.unflatten(0, (-1, samples))
        mean, var, count = moments(parts, [1, *range(3, parts.ndim)], mask)
        out = (parts - mean) * torch.rsqrt(var + self.eps)
        is_known = count.flatten(1) > 1 if isinstance(count, Tensor) else None
        return out.flatten(0, 1), mean.flatten(1), unbiased_variance(var, count).flatten(1), is_known


def moments(x: Tensor, dims: list[int], present: Tensor | None = None) -> tuple[Tensor, Tensor, int | Tensor]:
    """Mean and biased variance over `dims`, which stay with size 1, and the number of values that they are of.

    present: a mask that broadcasts against `x`. The mean and variance of no values are 0.
    """
    if present is None:
        _, mean, var, n = centre(x, dims)
        return mean, var, n
    count = present.sum(dims, keepdim=True)
    mean = x.where(present, 0.0).sum(dims, keepdim=True) / count.clamp_min(1)
    deviations = (x - mean).where(present, 0.0)
    return mean, deviations.square().sum(dims, keepdim=True) / count.clamp_min(1), count


def unbiased_variance(biased: Tensor, n: int | Tensor) -> Tensor:
    """The unbiased variance of `n` values from their biased variance; 0 for a single value."""
    return biased * (n / ((n - 1).clamp_min(1) if isinstance(n, Tensor) else max(1, n - 1)))


def for_layout(layer: TorchNorm, layout: Layout) -> nn.Module:
    """The layer itself, or for tokens, whose channels torch expects elsewhere, the same norm as tensor code."""
    return ExplicitNorm(layer, tokens=True) if layout == "tokens" else layer


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
