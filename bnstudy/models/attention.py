"""Attention as explicit tensor code: it works under vmap, and can be differentiated twice."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1): q [..., T, D], k [..., S, D], v [..., S, E] ->
    [..., T, E]. For `mask` see `attention_weights`."""
    return attention_weights(q, k, mask).to(v.dtype) @ v


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """How much each query attends to each key: [..., T, S], in float32 at least; each row sums to 1.

    mask: broadcasts to [..., T, S]. True where a query may attend to a key; or numbers, which are added to the scores.
        A query that may attend to no key attends to all alike.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1)
