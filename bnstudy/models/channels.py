"""The dimension of a tensor that has the channels of the weight layer before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def channel_of_product(name: str, args: Sequence[Any], weight_is_first: bool, out: Tensor) -> int:
    """The dimension of the channels of a product: that which the weight brings."""
    if name.startswith("conv"):
        return 1 if out.ndim > 1 else 0
    if name == "einsum" and isinstance(args[0], str) and "->" in args[0] and "." not in args[0]:
        inputs, outputs = args[0].replace(" ", "").split("->")
        one, other = inputs.split(",")[:2] if inputs.count(",") else (inputs, inputs)
        weight, data = (one, other) if weight_is_first else (other, one)
        return next((at for at, label in enumerate(outputs) if label in weight and label not in data), out.ndim - 1)
    if weight_is_first and name in ("matmul", "mm", "bmm", "mv"):
        return max(0, out.ndim - 2)
    return max(0, out.ndim - 1)


def channel_behind(channel: int, x: Tensor, out: Tensor) -> int:
    """The dimension of the channels of `out`, which is computed from x."""
    if out is x or (out.shape == x.shape and out.stride() == x.stride()):
        return channel
    size = x.shape[channel] if channel < x.ndim else 1
    shares = out.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    if shares and size > 1:
        same = [d for d in range(out.ndim) if (out.stride(d), out.shape[d]) == (x.stride(channel), size)]
        if same:
            return same[0]
    if out.ndim == x.ndim:
        return channel
    if out.numel() == x.numel():
        before = x.shape[:channel].numel()
        same = [d for d in range(out.ndim) if out.shape[d] == size and out.shape[:d].numel() == before]
        if same:
            return same[-1]
    return out.ndim - 1 if channel == x.ndim - 1 else max(0, min(channel, out.ndim - 1))
