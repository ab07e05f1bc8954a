"""What a run comes to does not depend on the runs it is trained with, on who leaves, or on a stop between two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from bnstudy.models.mlp import MLP
from bnstudy.models.resnet import ResNet
from bnstudy.models.vgg import VGG
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.optim import SGD, Adam
from bnstudy.probes.base import ProbeSpec
from bnstudy.run import Evaluation, RunSpec
from bnstudy.train import checkpoint
from bnstudy.train.serial import SerialRun
from bnstudy.train.stacked import StackedRun
from bnstudy.when import At
from tests.conftest import CPU, spec_of
from tests.train.courses import assert_same_course, assert_same_state, outcome, outcomes, serial, train_until

MODELS = {"mlp": MLP(depth=2, width=16, dropout=0.1), "vgg": VGG(width=1 / 16), "resnet": ResNet(width=4)}
TICKS = (0, 1, 10, 20)


def spec(**changes) -> RunSpec:
    """20 updates of a small network with all that can depend on chance, measured at TICKS."""
    plain = spec_of("data.augment=crop_flip", "norm=batch")
    probe = {name: replace(p, when=At(TICKS)) for name, p in plain.probe.items()}
    small = replace(plain, batch_size=8, model=MODELS["mlp"], probe=probe, evaluation=Evaluation(At(TICKS)))
    return replace(small, **changes)


def runs(n: int, **changes) -> list[RunSpec]:
    """Runs that differ in seed and learning rate."""
    return [spec(seed=seed, lr=0.02 * (1 + seed), **changes) for seed in range(n)]


def ended(specs, dataset):
    """By run_id: the outcome of each run of a stack, and its state at the end."""
    stack = StackedRun(specs, dataset, CPU)
    left = outcomes(stack)
    return {spec.run_id: (left[spec.run_id], stack.state(run)) for run, spec in enumerate(specs)}


def assert_bit_for_bit(ours, theirs) -> None:
    assert ours.metrics.equals(theirs.metrics)
    assert (ours.status, ours.final, ours.best) == (theirs.status, theirs.final, theirs.best)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_is_the_same_in_any_company_bit_for_bit(model, precision, few):
    first, *others = runs(16, model=MODELS[model], precision=precision)
    alone, state = ended([first], few)[first.run_id]
    companies = [[first, others[0]], [others[0], first, others[1]], [*others[:9], first, *others[9:]]]
    for company in companies:
        together, its_state = ended(company, few)[first.run_id]
        assert_bit_for_bit(together, alone)
        assert_same_state(its_state, state, tolerance=0)


def test_the_same_run_twice_in_a_stack_is_the_same_bit_for_bit(few):
    twin = spec()
    stack = StackedRun([twin, spec(seed=1), twin], few, CPU)
    outcomes(stack)
    assert_same_state(stack.state(0), stack.state(2), tolerance=0)
    assert torch.equal(stack.record.losses[:, 0], stack.record.losses[:, 2])


# ----------------------------------------------------------------------------------------------------- leaving


@dataclass(frozen=True)
class Activity(ProbeSpec):
    """Differs with the images that it is measured on."""

    def observe(self, activation, z, a):  # noqa: ARG002
        return a

    def measure(self, snapshot):
        return {"activity": {layer: a.mean() for layer, a in snapshot.observed.items()}}


@pytest.mark.parametrize(("lr", "reason"), [(1000.0, "above 10 times"), (1e30, "training loss nan")])
def test_a_diverging_run_leaves_at_its_tick_and_the_others_go_on_as_without_it(lr, reason, few):
    one, bad, two = runs(3, norm=NoNorm(), optim=SGD(momentum=0.9), probe={"activity": Activity(when=At(TICKS))})
    bad, two = replace(bad, lr=lr), replace(two, optim=SGD(momentum=0.5))
    stack, left = StackedRun([one, bad, two], few, CPU), []
    stack.train(lambda spec, outcome: left.append((stack.step, spec, outcome)))
    assert [spec for _, spec, _ in left] == [bad, one, two]
    step, _, diverged = left[0]
    assert step == next(tick + 1 for tick in TICKS if tick + 1 > diverged.diverged_step)
    assert reason in diverged.diverged_because
    alone = serial(bad, few)
    verdict = ("status", "diverged_step", "diverged_because")
    assert [getattr(diverged, name) for name in verdict] == [getattr(alone, name) for name in verdict]
    assert diverged.metrics.drop(["value"]).equals(alone.metrics.drop(["value"]))
    without = outcomes(StackedRun([one, two], few, CPU))
    for _, spec, end in left[1:]:
        assert_bit_for_bit(end, without[spec.run_id])


def test_runs_may_diverge_all_but_one_or_all(few):
    good, *bad = runs(4, norm=NoNorm())
    bad = [replace(spec, lr=1e30) for spec in bad]
    assert_bit_for_bit(outcomes(StackedRun([*bad, good], few, CPU))[good.run_id], ended([good], few)[good.run_id][0])
    stack = StackedRun(bad, few, CPU)
    assert {outcome.status for outcome in outcomes(stack).values()} == {"diverged"}
    assert stack.step < stack.total


def test_a_run_at_chance_diverges_and_the_others_finish(few):
    learns, stays = spec(lr=0.1, steps=60), spec(lr=1e-9, steps=60)
    left = outcomes(StackedRun([stays, learns], few, CPU))
    assert left[learns.run_id].status == "finished"
    assert left[stays.run_id].diverged_because == serial(stays, few).diverged_because
    assert "below chance" in left[stays.run_id].diverged_because


def test_runs_that_are_given_up_leave_without_a_word(few):
    specs = runs(3)
    stack = StackedRun(specs, few, CPU)
    train_until(stack, 7)
    stack.leave([specs[0].run_id, "unheard of"])
    left = outcomes(stack)
    assert left.keys() == {spec.run_id for spec in specs[1:]}
    for spec in specs[1:]:
        assert_bit_for_bit(left[spec.run_id], ended([spec], few)[spec.run_id][0])
    stack = StackedRun(specs, few, CPU)
    stack.leave([spec.run_id for spec in specs])
    assert outcomes(stack) == {}


def test_a_runs_seconds_are_its_share_of_the_stacks(few):
    stack = StackedRun(runs(4), few, CPU)
    left = list(outcomes(stack).values())
    for ended in left:
        assert ended.seconds["total"] == pytest.approx(sum(stack.watch.seconds.values()), rel=0.5)
        assert math.isfinite(ended.seconds["training"])
    assert len({ended.seconds["training"] for ended in left}) == 1


# ------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("optim", [SGD(momentum=0.9), Adam()], ids=["sgd", "adam"])
@pytest.mark.parametrize("at", [1, 5, 10, 19, 20])
def test_a_resumed_stack_ends_bit_for_bit_as_if_it_had_never_stopped(optim, at, few, tmp_path):
    specs = runs(3, optim=optim)
    whole = outcomes(StackedRun(specs, few, CPU))
    part = StackedRun(specs, few, CPU)
    train_until(part, at)
    saved = []
    for run, spec in enumerate(specs):
        checkpoint.save(tmp_path / spec.run_id, spec.run_id, part.state(run))
        saved.append(checkpoint.load(tmp_path / spec.run_id, spec.run_id, CPU))
    for company in ([0, 1, 2], [2, 0], [1]):
        rest = StackedRun([specs[run] for run in company], few, CPU)
        rest.load([saved[run] for run in company])
        assert rest.step == at
        for run_id, end in outcomes(rest).items():
            assert_bit_for_bit(end, whole[run_id])


def test_a_stack_that_a_run_has_left_resumes_bit_for_bit(few):
    one, bad, two = runs(3, norm=NoNorm())
    bad = replace(bad, lr=1000.0)
    whole = outcomes(StackedRun([one, bad, two], few, CPU))
    part = StackedRun([one, bad, two], few, CPU)
    train_until(part, 15)
    assert part.specs == [one, two]
    rest = StackedRun(part.specs, few, CPU)
    rest.load([part.state(run) for run in range(2)])
    for run_id, end in outcomes(rest).items():
        assert_bit_for_bit(end, whole[run_id])


@pytest.mark.parametrize("norm", [BatchNorm(), BatchNorm(momentum=None), NoNorm()], ids=["batch", "average", "none"])
@pytest.mark.parametrize("free", [False, True])
def test_each_engine_goes_on_from_the_others_state(norm, free, few):
    specs = runs(2, norm=norm, optim=Adam(eps=1e-3), model=replace(MODELS["mlp"], activation="gelu"))
    whole = [serial(spec, few) for spec in specs]

    alone = [SerialRun(spec, few, CPU) for spec in specs]
    for one in alone:
        train_until(one, 7)
    stack = StackedRun(specs, few, CPU, free=free)
    stack.load([one.state() for one in alone])
    train_until(stack, 14)
    states = [stack.state(run) for run in range(2)]
    for spec, state, expected in zip(specs, states, whole, strict=True):
        rest = SerialRun(spec, few, CPU)
        rest.load([state])
        assert_same_course(outcome(rest), expected, tolerance=1e-5)
