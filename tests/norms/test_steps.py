from __future__ import annotations

import pytest
import torch
from torch import nn

from bnstudy.models.sequences import Present
from bnstudy.norms.steps import StepNorm


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1


def present(*lengths: int) -> Present:
    return Present.of(torch.arange(4) < torch.tensor(lengths)[:, None])


def step_by_step(norm: StepNorm, x: torch.Tensor, steps: Present) -> torch.Tensor:
    out = torch.stack([norm(x[:, t], steps.share[:, t], t) for t in range(4)], 1)
    norm.update_(steps.images)
    return out


@pytest.mark.parametrize("momentum", [0.2, None])
def test_with_all_images_present_each_step_is_torchs_batch_norm(x, momentum):
    norm, theirs = (
        StepNorm(nn.BatchNorm1d(3, momentum=momentum), 4),
        [nn.BatchNorm1d(3, momentum=momentum) for _ in range(4)],
    )
    for _ in range(3):
        expected = torch.stack([own(x[:, t]) for t, own in enumerate(theirs)], 1)
        torch.testing.assert_close(step_by_step(norm, x, present(4, 4, 4, 4, 4, 4)), expected)
        x = x + 1
    torch.testing.assert_close(norm.running_mean, torch.stack([own.running_mean for own in theirs]))
    torch.testing.assert_close(norm.running_var, torch.stack([own.running_var for own in theirs]))
    expected = torch.stack([own.eval()(x[:, t]) for t, own in enumerate(theirs)], 1)
    torch.testing.assert_close(step_by_step(norm.eval(), x, present(4, 4, 4, 4, 4, 4)), expected)


def test_all_steps_at_once_equal_one_after_another(x):
    steps = present(4, 1, 2, 3, 4, 2)
    one, other = StepNorm(nn.BatchNorm1d(3), 4), StepNorm(nn.BatchNorm1d(3), 4)
    at_once = one(x, steps.share)
    one.update_(steps.images)
    torch.testing.assert_close(at_once, step_by_step(other, x, steps))
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(buffer, other.get_buffer(name))


def test_absent_images_have_no_influence(x):
    steps = present(4, 1, 2, 3, 4, 2)
    norm, other = StepNorm(nn.BatchNorm1d(3), 4), StepNorm(nn.BatchNorm1d(3), 4)
    changed = x.where(steps.mask.unsqueeze(2), 7.0)
    torch.testing.assert_close(norm(x, steps.share)[steps.mask], other(changed, steps.share)[steps.mask])


def test_a_step_with_fewer_than_two_images_does_not_change_the_running_statistics(x):
    norm = StepNorm(nn.BatchNorm1d(3), 4)
    out = step_by_step(norm, x, present(3, 1, 2, 2, 1, 2))
    assert norm.num_batches_tracked.tolist() == [1, 1, 0, 0]
    assert norm.running_mean[2:].tolist() == [[0] * 3] * 2
    assert norm.running_var[2:].tolist() == [[1] * 3] * 2
    assert out[0, 2].tolist() == [0] * 3  # the only image of the step


@pytest.mark.parametrize("rows", [4, 1])
def test_moments_of_a_pass_are_those_that_training_tracks(x, rows):
    norm, steps = StepNorm(nn.BatchNorm1d(3, momentum=1.0), rows), present(4, 4, 4, 4, 4, 4)
    step_by_step(norm, x, steps)
    [(mean, var)] = norm.join_moments([norm.batch_moments(x[:, t], steps.share[:, t], t) for t in range(4)])
    torch.testing.assert_close(mean, norm.running_mean)
    torch.testing.assert_close(var * 6 / 5, norm.running_var)
