"""Every optimizer against torch.optim, every schedule against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bnstudy.optim import SGD, Adam, AdamW, Constant, Cosine, Linear, Step
from bnstudy.spec import ConfigError

OPTIMIZERS = [
    (SGD(), lambda p: torch.optim.SGD(p, lr=0.1)),
    (SGD(momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    (
        SGD(momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    (Adam(), lambda p: torch.optim.Adam(p, lr=0.1)),
    (Adam(weight_decay=0.1), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1)),
    (AdamW(beta1=0.8, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.999), weight_decay=0.1)),
]


def trajectory(optimizer, lr, steps=20):
    """Parameters after some updates of a quadratic with its minimum at 1, by our optimizer."""
    params = torch.linspace(-1, 2, 7, dtype=torch.float64)
    slots = {name: torch.zeros_like(params) for name in optimizer.slots()}
    for t in range(1, steps + 1):
        optimizer.update_(params, 2 * (params - 1), slots, lr, t)
    return params


@pytest.mark.parametrize(("ours", "theirs"), OPTIMIZERS, ids=lambda o: repr(o) if isinstance(o, SGD | Adam) else "")
def test_updates_are_torchs(ours, theirs):
    weight = nn.Parameter(torch.linspace(-1, 2, 7, dtype=torch.float64))
    reference = theirs([weight])
    for _ in range(20):
        reference.zero_grad()
        (weight - 1).square().sum().backward()
        reference.step()
    torch.testing.assert_close(trajectory(ours, 0.1), weight.detach())


@pytest.mark.parametrize(("ours", "_"), OPTIMIZERS, ids=lambda o: repr(o) if isinstance(o, SGD | Adam) else "")
def test_a_tensor_of_learning_rates_acts_as_one_number_each(ours, _):
    lrs = torch.tensor([0.1] * 3 + [0.2] * 4, dtype=torch.float64)
    mixed = trajectory(ours, lrs)
    torch.testing.assert_close(mixed[:3], trajectory(ours, 0.1)[:3])
    torch.testing.assert_close(mixed[3:], trajectory(ours, 0.2)[3:])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), lambda t: 1.0),
        (Linear(final=0.2), lambda t: 1 - 0.8 * t / 100),
        (Cosine(), lambda t: (1 + math.cos(math.pi * t / 100)) / 2),
        (Step(gamma=0.1, milestones=(0.5, 0.75)), lambda t: 1.0 if t < 50 else 0.1 if t < 75 else 0.01),
    ],
)
def test_schedules_follow_their_formula(schedule, expected):
    assert [schedule.factor(t, 100) for t in range(100)] == pytest.approx([expected(t) for t in range(100)])


def test_warm_up_rises_to_the_full_rate_and_then_the_course_begins():
    schedule = Linear(warmup=4)
    assert [schedule.factor(t, 8) for t in range(8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(nesterov=True),
        lambda: SGD(weight_decay=-1),
        lambda: Adam(beta2=1),
        lambda: Cosine(final=2),
        lambda: Step(milestones=(0.5, 1.5)),
        lambda: Constant(warmup=-1),
    ],
)
def test_values_without_meaning_are_refused(make):
    with pytest.raises(ConfigError, match="is not allowed"):
        make()
