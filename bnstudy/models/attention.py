"""Attention as explicit tensor code: it works under vmap, and can be differentiated twice."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    return softmax(scores)


def softmax(scores: Tensor) -> Tensor:
    """Over the last dimension. Torch's own takes three times as long for rows shorter than a vector register."""
    if scores.shape[-1] >= SHORT or scores.device.type != "cpu":
        return scores.softmax(-1)
    powers = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    return powers * powers.sum(-1, keepdim=True).reciprocal()


SHORT = 16
"""Keys from which on torch's softmax is fast on a CPU."""


class ExplicitAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` as explicit tensor code, with the same arguments, parameters and state dict."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")  # as torch says
        alone = query.ndim == 2
        projected = self._project(query, key, value)
        if alone or not self.batch_first:
            projected = tuple(x.unsqueeze(0) if alone else x.transpose(0, 1) for x in projected)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in projected)  # [B, heads, T, D]
        weights = _weights_or_zeros(q, k, self._mask(attn_mask, key_padding_mask, q)).to(v.dtype)
        weights = F.dropout(weights, self.dropout, self.training)
        out = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        if alone:
            out, weights = out.squeeze(0), weights.squeeze(0)
        elif not self.batch_first:
            out = out.transpose(0, 1)
        return out, (weights.mean(-3) if average_attn_weights else weights) if need_weights else None

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if query is key is value:
            return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        parts = zip((query, key, value), self.in_proj_weight.chunk(3), self._biases(), strict=True)
        return tuple(F.linear(x, weight, bias) for x, weight, bias in parts)

    def _biases(self) -> tuple[Tensor | None, ...]:
        return (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)

    def _mask(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
        """Numbers to add to the scores [B, heads, T, S]. In torch's masks True forbids."""
        total: Any = None
        if attn_mask is not None:
            total = _as_numbers(attn_mask, q)
            total = total.unflatten(0, (-1, self.num_heads)) if total.ndim == 3 else total
        if key_padding_mask is not None:
            padding = _as_numbers(key_padding_mask, q)
            padding = padding[:, None, None] if padding.ndim == 2 else padding
            total = padding if total is None else total + padding
        return total


def _as_numbers(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, -torch.inf)


def make_attention_explicit(model: nn.Module) -> None:
    """Make each `nn.MultiheadAttention` of the network an `ExplicitAttention`.

    One with keys or values of another size, or with learned ones (`add_bias_kv`, `add_zero_attn`), stays torch's.
    """
    for module in model.modules():
        if type(module) is nn.MultiheadAttention and is_usual(module):
            module.__class__ = ExplicitAttention


def is_usual(attention: nn.MultiheadAttention) -> bool:
    return attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` as explicit tensor code. As there, a query without any key gets zeros."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if scale is not None:
        query = query * (scale * query.shape[-1] ** 0.5)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _as_numbers(~attn_mask, query)
    return F.dropout(_weights_or_zeros(query, key, attn_mask).to(value.dtype), dropout_p) @ value


def _weights_or_zeros(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Attention weights with a mask of numbers; 0 for a query that may attend to no key, as in torch."""
    if mask is None:
        return attention_weights(q, k)
    has_none = (mask == -torch.inf).all(-1, keepdim=True)
    return attention_weights(q, k, mask.masked_fill(has_none, 0)).masked_fill(has_none, 0)
