from __future__ import annotations

import math

import pytest
import torch

from bnstudy.losses import MSE, CrossEntropy
from bnstudy.validation import ConfigError

OUT = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([2, 1])
VALUES = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 1.0]], dtype=torch.float64)


def cross_entropy_by_hand(out, label):
    return math.log(sum(math.exp(v) for v in out)) - out[label]


def squared_errors_by_hand(out, target):
    return [(o - t) ** 2 for o, t in zip(out, target, strict=True)]


def test_cross_entropy_is_the_negative_log_probability_of_the_label():
    expected = [cross_entropy_by_hand(o, y) for o, y in zip(OUT.tolist(), LABELS.tolist(), strict=True)]
    assert CrossEntropy().each(OUT, LABELS).tolist() == pytest.approx(expected)
    assert float(CrossEntropy().mean(OUT, LABELS)) == pytest.approx(sum(expected) / 2)


@pytest.mark.parametrize("summed", [False, True])
def test_the_squared_error_is_the_mean_or_sum_over_the_outputs(summed):
    errors = [sum(squared_errors_by_hand(o, t)) for o, t in zip(OUT.tolist(), VALUES.tolist(), strict=True)]
    expected = [e if summed else e / 3 for e in errors]
    assert MSE(summed=summed).each(OUT, VALUES).tolist() == pytest.approx(expected)
    assert float(MSE(summed=summed).mean(OUT, VALUES)) == pytest.approx(sum(expected) / 2)


def test_labels_stand_for_one_hot_targets():
    one_hot = torch.tensor([[0, 0, 1], [0, 1, 0]], dtype=torch.float64)
    assert torch.equal(MSE().each(OUT, LABELS), MSE().each(OUT, one_hot))


@pytest.mark.parametrize("loss", [CrossEntropy(), MSE(), MSE(summed=True)])
def test_losses_of_stacked_runs_equal_those_of_single_runs(loss):
    out = torch.randn(3, 5, 4)
    y = torch.randint(4, (3, 5))
    together = torch.func.vmap(loss.mean)(out, y)
    assert together.tolist() == pytest.approx([float(loss.mean(o, t)) for o, t in zip(out, y, strict=True)])


def test_cross_entropy_refuses_targets_that_are_not_labels():
    for loss in (CrossEntropy().mean, CrossEntropy().each):
        with pytest.raises(ConfigError, match=r"loss=cross_entropy is not allowed .* it must be mse"):
            loss(OUT, VALUES)
