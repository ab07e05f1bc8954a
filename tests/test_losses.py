from __future__ import annotations

import math

import pytest
import torch

from bnstudy.losses import MSE, CrossEntropy, LossSpec
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
    for mean in (CrossEntropy().mean, CrossEntropy().mean_alone):
        assert float(mean(OUT, LABELS)) == pytest.approx(sum(expected) / 2)


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


def best_constant(loss, y, outputs):
    """The loss of the best constant output, found by gradient descent."""
    out = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([out], max_iter=200, tolerance_grad=1e-12)

    def closure():
        descent.zero_grad()
        value = loss.mean(out.expand(len(y), -1), y)
        value.backward()
        return value

    descent.step(closure)
    return float(closure().detach())


@pytest.mark.parametrize("loss", [CrossEntropy(), MSE(), MSE(summed=True)])
@pytest.mark.parametrize("y", [torch.arange(4).repeat(5), torch.tensor([0] * 8 + [2] * 2)], ids=["balanced", "80:20"])
def test_the_loss_of_guessing_is_that_of_the_best_constant_output(loss, y):
    assert loss.of_guessing(y, 4) == pytest.approx(best_constant(loss, y, 4), rel=1e-5)


def test_the_loss_of_guessing_values_is_their_variance():
    assert MSE().of_guessing(VALUES, 3) == pytest.approx(best_constant(MSE(), VALUES, 3))
    assert MSE(summed=True).of_guessing(VALUES, 3) == pytest.approx(3 * MSE().of_guessing(VALUES, 3))


def test_the_loss_of_guessing_of_a_users_loss_is_that_of_zeros():
    class Absolute(LossSpec):
        def each(self, out, y):
            return (out - y).abs().sum(-1)

    assert Absolute().of_guessing(VALUES, 3) == pytest.approx(float(VALUES.abs().sum(-1).mean()))
