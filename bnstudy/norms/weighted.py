"""Standardization with weighted statistics, with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnstudy.norms.standardize import centre as centre_values


class WeightedStandardize(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * scale + shift for x [..., N, C], with the mean and the biased variance of each
    channel over N samples, each with a weight; also returns the mean and the variance, [..., 1, C].

    The gradient, which can be differentiated again, takes a third of the operations of autograd.

    Args of `apply`: x; share [..., N, 1], the weights, whose sum is 1, or 0 for statistics of nothing, which has no
        gradient; scale and shift [C] or None; eps, 0-dim.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, share: Tensor, scale: Tensor | None, shift: Tensor | None, eps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        centred, mean, var = centre(x, share)
        factor = torch.rsqrt(var + eps)
        factor = factor if scale is None else factor * scale
        return centred * factor if shift is None else torch.addcmul(shift, centred, factor), mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, share, scale, shift, eps = inputs
        ctx.has_shift = shift is not None
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, share, scale, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_no_grads: Tensor) -> tuple[Tensor | None, ...]:
        x, share, scale, eps = ctx.saved_tensors
        centred, _, var = centre(x, share)
        inverse = torch.rsqrt(var + eps)
        factor = inverse if scale is None else inverse * scale
        of_shift = grad.sum(-2, keepdim=True)
        of_scale = (grad * centred).sum(-2, keepdim=True) * inverse
        # factor * (grad - share * (sum(grad) + x_hat * sum(grad * x_hat)))
        of_statistics = torch.addcmul(-factor * of_shift, centred, -factor * inverse * of_scale)
        of_x = torch.addcmul(of_statistics * share, grad, factor)
        steps = list(range(x.ndim - 1))  # all but the channels
        for_scale = None if scale is None else of_scale.sum(steps)
        return of_x, None, for_scale, of_shift.sum(steps) if ctx.has_shift else None, None


class StandardizeEach(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) over the last dimension of x, with the biased variance (Ba et al. 2016).

    The gradient can be differentiated again. Args of `apply`: x; eps, 0-dim.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: Tensor) -> Tensor:
        return standardize_each(x, eps)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, eps = ctx.saved_tensors
        out, inverse = standardize_each(x, eps)
        n = -out.shape[-1]
        rest = torch.addcmul(grad.sum(-1, keepdim=True) / n, out, (grad * out).sum(-1, keepdim=True) / n)
        return (grad + rest) * inverse, None


def standardize_each(x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """The result of `StandardizeEach`, and 1 / sqrt(var + eps)."""
    centred, _, var, _ = centre_values(x, [-1])
    inverse = torch.rsqrt(var + eps)
    return centred * inverse, inverse


def centre(x: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x [..., N, C] minus its weighted mean over N, and this mean and the biased variance, [..., 1, C]."""
    mean = weighted_mean(x, share)
    centred = x - mean
    return centred, mean, weighted_mean(centred * centred, share)


def weighted_mean(x: Tensor, share: Tensor) -> Tensor:
    """The sum over N of x [..., N, C] times the share [..., N, 1]: [..., 1, C]. A product of matrices, which takes less
    time than two passes over the values."""
    with torch.autocast(x.device.type, enabled=False):
        return share.to(x.dtype).transpose(-1, -2) @ x
