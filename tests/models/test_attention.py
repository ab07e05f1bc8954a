from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd import gradgradcheck
from torch.func import vmap

from bnstudy.models.attention import attend, attention_weights


def queries(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for _ in range(3)]


def test_attention_agrees_with_torch():
    q, k, v = queries(2, 3, 5, 4)
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
    mask = torch.tensor([True, True, False, True, False]).expand(2, 1, 1, 5)
    torch.testing.assert_close(attend(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask))
    bias = torch.randn(5, 5, dtype=torch.float64)
    torch.testing.assert_close(attend(q, k, v, bias), F.scaled_dot_product_attention(q, k, v, bias))


def test_masked_keys_are_as_if_they_were_not_there():
    q, k, v = queries(5, 4)
    mask = torch.tensor([True, True, True, False, False])
    torch.testing.assert_close(attend(q, k, v, mask), attend(q, k[:3], v[:3]))


def test_a_query_without_keys_attends_to_all_alike():
    q, k, v = queries(5, 4)
    nothing = torch.zeros(5, dtype=torch.bool)
    torch.testing.assert_close(attend(q, k, v, nothing), v.mean(0).expand(5, 4))


def test_scores_in_bf16_are_normalized_in_float32():
    q, k, v = (t.bfloat16() for t in queries(5, 4))
    assert attention_weights(q, k).dtype == torch.float32
    assert attend(q, k, v).dtype == torch.bfloat16


def test_attention_vmaps_and_can_be_differentiated_twice():
    q, k, v = queries(6, 2, 3, 4)
    mask = torch.rand(6, 2, 1, 3) < 0.7
    torch.testing.assert_close(vmap(attend)(q, k, v, mask), attend(q, k, v, mask))
    small = [t[0].requires_grad_() for t in (q, k, v)]
    assert gradgradcheck(lambda q, k, v: attend(q, k, v, mask[0]), small)
