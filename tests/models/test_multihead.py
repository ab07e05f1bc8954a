"""nn.MultiheadAttention as explicit tensor code, compared with torch's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.models.attention import ExplicitAttention, explicit_attention, make_attention_explicit

CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


def both(**options) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(8, 2, **options)
    ours = copy.deepcopy(theirs)
    make_attention_explicit(nn.Sequential(ours))
    assert isinstance(ours, ExplicitAttention)
    return ours, theirs


@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"attn_mask": CAUSAL, "is_causal": True},
        {"attn_mask": torch.randn(5, 5)},
        {"attn_mask": torch.randn(4, 5, 5)},
        {"key_padding_mask": PADDING},
        {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
    ],
)
@pytest.mark.parametrize(
    "options", [{"batch_first": True}, {"batch_first": False}, {"batch_first": True, "bias": False}]
)
@pytest.mark.parametrize("averaged", [True, False])
def test_outputs_and_weights_are_torchs(masks, options, averaged):
    ours, theirs = both(**options)
    x = torch.randn(2, 5, 8) if options["batch_first"] else torch.randn(5, 2, 8)
    for got, expected in zip(
        ours(x, x, x, average_attn_weights=averaged, **masks),
        theirs(x, x, x, average_attn_weights=averaged, **masks),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
    out, weights = ours(x, x, x, need_weights=False, **masks)
    assert weights is None
    torch.testing.assert_close(out, theirs(x, x, x, **masks)[0])


def test_keys_and_values_may_be_others_and_inputs_unbatched():
    ours, theirs = both(batch_first=True)
    q, k, v = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(ours(q, k, v), theirs(q, k, v))
    torch.testing.assert_close(ours(q[0], k[0], v[0]), theirs(q[0], k[0], v[0]))


def test_unusual_attention_stays_torchs():
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 3}):
        model = nn.Sequential(nn.MultiheadAttention(8, 2, **options))
        make_attention_explicit(model)
        assert type(model[0]) is nn.MultiheadAttention


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": ~CAUSAL},
        {"attn_mask": torch.randn(5, 5)},
        {"attn_mask": torch.tensor([True] * 4 + [False])[:, None].expand(5, 5)},
    ],
)
def test_the_function_is_torchs(options):
    q, k, v = torch.randn(3, 2, 4, 5, 8).unbind()
    torch.testing.assert_close(
        explicit_attention(q, k, v, **options), F.scaled_dot_product_attention(q, k, v, **options)
    )


def test_grouped_queries_are_torchs():
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(explicit_attention(q, k, v, enable_gqa=True), expected)
