"""Every optimizer against torch.optim, every schedule against its closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml
from torch import Tensor, nn

from bnstudy.optim import SGD, Adam, AdamW, Constant, Cosine, Exponential, Linear, Step
from bnstudy.store.files import conf_dir
from bnstudy.train.program import Program
from bnstudy.validation import ConfigError

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
    """The parameters after `steps` steps on a quadratic with its minimum at 1."""
    params = torch.linspace(-1, 2, 7, dtype=torch.float64)
    slots = {name: torch.zeros_like(params) for name in optimizer.slots()}
    for t in range(1, steps + 1):
        optimizer.update_(params, 2 * (params - 1), slots, lr, t, optimizer.hyper())
    return params


@pytest.mark.parametrize(("ours", "theirs"), OPTIMIZERS, ids=lambda o: repr(o) if isinstance(o, SGD | Adam) else "")
def test_optimizers_equal_those_of_torch(ours, theirs):
    weight = nn.Parameter(torch.linspace(-1, 2, 7, dtype=torch.float64))
    reference = theirs([weight])
    for _ in range(20):
        reference.zero_grad()
        (weight - 1).square().sum().backward()
        reference.step()
    torch.testing.assert_close(trajectory(ours, 0.1), weight.detach())


HYPERPARAMETERS = [
    (SGD(), {}),
    (SGD(), {"weight_decay": (0.1, 0.01)}),
    (SGD(), {"momentum": (0.5, 0.9)}),
    (SGD(nesterov=True, momentum=0.8, weight_decay=0.1), {"momentum": (0.5, 0.9)}),
    (SGD(nesterov=True, momentum=0.8), {"momentum": (0.5, 0.9), "weight_decay": (0.1, 0.01)}),
    (Adam(), {}),
    (Adam(), {"weight_decay": (0.1, 0.01)}),
    (AdamW(beta1=0.8), {}),
    (AdamW(beta1=0.8), {"weight_decay": (0.1, 0.01)}),
]


@pytest.mark.parametrize(("shared", "numbers"), HYPERPARAMETERS, ids=repr)
def test_stacked_runs_with_different_hyperparameters_equal_single_runs(shared, numbers):
    starts, targets = torch.randn(2, 2, 7, generator=torch.Generator().manual_seed(0))
    stacked, hyper = optimizer_and_hyper(shared, numbers)
    params, slots = starts.clone(), {name: torch.zeros(2, 7) for name in stacked.slots()}
    for t in range(1, 21):
        lr = torch.tensor([[0.1], [0.02]]) / t
        stacked.update_(params, params - targets, slots, lr, torch.tensor(t, dtype=torch.float64), hyper)
    for run in range(2):
        single = replace(shared, **{name: values[run] for name, values in numbers.items()})
        alone, state = starts[run].clone(), {name: torch.zeros(7) for name in single.slots()}
        for t in range(1, 21):
            single.update_(alone, alone - targets[run], state, (0.1, 0.02)[run] / t, t, single.hyper())
        torch.testing.assert_close(params[run], alone)


@pytest.mark.parametrize(("shared", "numbers"), HYPERPARAMETERS, ids=repr)
def test_a_compiled_update_is_the_same_at_all_steps(shared, numbers):
    optimizer, hyper = optimizer_and_hyper(shared, numbers)
    eager, compiled = torch.ones(2, 2, 7), torch.ones(2, 2, 7)
    slots = [{name: torch.zeros(2, 7) for name in optimizer.slots()} for _ in range(2)]

    def update(params: Tensor, state: dict[str, Tensor], lr: Tensor, time: Tensor) -> Tensor:
        optimizer.update_(params[0], params[1], state, lr, time, hyper)
        return params

    inputs = [(torch.full((2, 1), 0.1 / t), torch.tensor(t, dtype=torch.float64)) for t in range(1, 5)]
    program = Program(partial(update, compiled, slots[1]), *inputs[0])
    update(eager, slots[0], *inputs[0])
    for lr, time in inputs[1:]:
        torch.testing.assert_close(program(lr, time), update(eager, slots[0], lr, time))


def optimizer_and_hyper(shared, numbers):
    """The optimizer of the first run, and hyperparameters with a tensor [R, 1] for each of `numbers`."""
    assert numbers.keys() <= shared.hyper().keys()
    optimizer = replace(shared, **{name: values[0] for name, values in numbers.items()})
    return optimizer, {**optimizer.hyper(), **{name: torch.tensor(values)[:, None] for name, values in numbers.items()}}


def test_adam_is_as_accurate_with_the_step_count_as_a_tensor():
    adam, by_number, by_tensor = Adam(beta2=0.999999), torch.ones(7), torch.ones(7)
    for params, t in ((by_number, 10**6), (by_tensor, torch.tensor(1e6, dtype=torch.float64))):
        slots = {"mean": torch.full((7,), 0.1), "square": torch.full((7,), 0.2)}
        adam.update_(params, torch.ones(7), slots, 0.1, t, adam.hyper())
    torch.testing.assert_close(by_number, by_tensor, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), lambda t: 1.0),
        (Linear(final=0.2), lambda t: 1 - 0.8 * t / 100),
        (Exponential(gamma=0.9, first=0.5), lambda t: 0.5 * 0.9**t),
        (Cosine(), lambda t: (1 + math.cos(math.pi * t / 100)) / 2),
        (Step(gamma=0.1, milestones=(0.5, 0.75)), lambda t: 1.0 if t < 50 else 0.1 if t < 75 else 0.01),
    ],
)
def test_schedules_follow_their_formula(schedule, expected):
    assert [schedule.factor(t, 100) for t in range(100)] == pytest.approx([expected(t) for t in range(100)])


def test_the_exponential_schedule_equals_that_of_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs, ours, rates = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=1.01), Exponential(gamma=1.01), []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates == pytest.approx([ours.factor(t, 20) for t in range(20)])


def test_the_growing_rate_of_the_study_is_weight_decay_in_a_loop_over_a_scale_free_loss():
    """The loss is the first coordinate of w/||w||: its gradient is (1 - u_x^2, -u_x u_y)/||w|| for u = w/||w||."""
    sweep = yaml.safe_load((conf_dir() / "study" / "weight_decay.yaml").read_text())["sweep"]
    lr, decay = float(sweep["lr"]), float(sweep["optim.weight_decay"].split(",")[1])
    growing = Exponential(gamma=float(sweep["schedule.gamma"]), first=float(sweep["schedule.first"]))

    def step(w: complex, rate: float, decay: float) -> complex:
        x, y = w.real / abs(w), w.imag / abs(w)
        return w * (1 - rate * decay) - rate * complex(1 - x * x, -x * y) / abs(w)

    one = other = 0.6 + 0.8j
    for t in range(500):
        rate = lr * growing.factor(t, 500)
        assert rate == pytest.approx(lr * (1 - lr * decay) ** (-2 * t - 1), rel=1e-12)
        assert one.real / abs(one) == pytest.approx(other.real / abs(other), rel=1e-11)
        one, other = step(one, lr, decay), step(other, rate, 0.0)
    assert abs(other) / abs(one) == pytest.approx((1 - lr * decay) ** -500)
    assert one.real / abs(one) < -0.9


def test_a_rate_that_grows_beyond_all_numbers_is_infinite():
    assert Exponential(gamma=10.0).factor(400, 1000) == math.inf


def test_warm_up_rises_to_the_full_rate_before_the_decay():
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
        lambda: Exponential(gamma=0),
        lambda: Constant(warmup=-1),
        lambda: Constant(reference_batch=0),
    ],
)
def test_invalid_hyperparameters_are_refused(make):
    with pytest.raises(ConfigError, match="is not allowed"):
        make()
