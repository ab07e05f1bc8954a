"""A run's result does not depend on the runs beside it, on runs that leave, or on a stop between two steps."""

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
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.when import At, AtEnd
from tests.conftest import CPU, spec_of
from tests.train.helpers import (
    ENGINES,
    assert_identical,
    assert_same_outcome,
    assert_same_state,
    train_all,
    train_one,
    train_serial,
    train_until,
)

MODELS = {"mlp": MLP(depth=2, width=16, dropout=0.1), "vgg": VGG(width=1 / 16), "resnet": ResNet(width=4)}
STEPS = (0, 1, 10, 20)


def spec(**changes) -> RunSpec:
    """20 steps of a small network with everything that is random, measured at STEPS."""
    plain = spec_of("data.augment=crop_flip", "norm=batch")
    probe = {name: replace(p, when=At(STEPS)) for name, p in plain.probe.items()}
    small = replace(plain, batch_size=8, model=MODELS["mlp"], probe=probe, evaluation=Evaluation(At(STEPS)))
    return replace(small, **changes)


def runs(n: int, **changes) -> list[RunSpec]:
    """Runs that differ in seed and learning rate."""
    return [spec(seed=seed, lr=0.02 * (1 + seed), **changes) for seed in range(n)]


def train_stack(specs, dataset):
    """By run_id: the outcome of each run of a stack, and its state at the end."""
    stack = start_stacked(specs, dataset, CPU)
    outcomes = train_all(stack)
    return {spec.run_id: (outcomes[spec.run_id], stack.engine.state(run)) for run, spec in enumerate(specs)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_is_identical_in_any_stack(model, precision, few):
    first, *others = runs(16, model=MODELS[model], precision=precision)
    alone, state = train_stack([first], few)[first.run_id]
    stacks = [[first, others[0]], [others[0], first, others[1]], [*others[:9], first, *others[9:]]]
    for stack in stacks:
        together, its_state = train_stack(stack, few)[first.run_id]
        assert_identical(together, alone)
        assert_same_state(its_state, state, tolerance=0)


def test_equal_runs_of_a_stack_stay_identical(few):
    twin = spec()
    stack = start_stacked([twin, spec(seed=1), twin], few, CPU)
    train_all(stack)
    assert_same_state(stack.engine.state(0), stack.engine.state(2), tolerance=0)
    assert torch.equal(stack.record.losses[:, 0], stack.record.losses[:, 2])


@dataclass(frozen=True)
class Activity(ProbeSpec):
    """Depends on the images that it is measured on."""

    def observe(self, activation, z, a):  # noqa: ARG002
        return a

    def measure(self, snapshot):
        return {"activity": {layer: a.mean() for layer, a in snapshot.observed.items()}}


@pytest.mark.parametrize("trained", ["all", "norm"])
@pytest.mark.parametrize("engine", ENGINES)
def test_recording_does_not_change_training(engine, trained, few):
    """Neither probes nor evaluation touch weights, running statistics or random streams."""
    measured = spec(trained=trained)
    plain = replace(measured, probe={}, evaluation=Evaluation(AtEnd()))
    first, second = (ENGINES[engine]([s, replace(s, seed=1)], few) for s in (measured, plain))
    for training in (first, second):
        train_all(training)
    for run in range(first.record.losses.shape[1]):
        assert_same_state(first.engine.state(run), second.engine.state(run), tolerance=0)
        assert torch.equal(first.record.losses[:, run], second.record.losses[:, run])


@pytest.mark.parametrize(("lr", "reason"), [(1000.0, "training loss nan"), (1e30, "training loss nan")])
def test_a_diverged_run_leaves_at_the_next_measurement_and_changes_no_other(lr, reason, few):
    one, bad, two = runs(3, norm=NoNorm(), optim=SGD(momentum=0.9), probe={"activity": Activity(when=At(STEPS))})
    bad, two = replace(bad, lr=lr), replace(two, optim=SGD(momentum=0.5))
    stack, left = start_stacked([one, bad, two], few, CPU), []
    stack.train(lambda runs: left.extend((stack.step, *run) for run in runs))
    assert [spec for _, spec, _ in left] == [bad, one, two]
    step, _, diverged = left[0]
    assert step == next(at + 1 for at in STEPS if at + 1 > diverged.diverged_step)
    assert reason in diverged.diverged_because
    alone = train_serial(bad, few)
    verdict = ("status", "diverged_step", "diverged_because")
    assert [getattr(diverged, name) for name in verdict] == [getattr(alone, name) for name in verdict]
    assert diverged.metrics.drop(["value"]).equals(alone.metrics.drop(["value"]))
    without = train_all(start_stacked([one, two], few, CPU))
    for _, spec, outcome in left[1:]:
        assert_identical(outcome, without[spec.run_id])


def test_all_but_one_or_all_runs_may_diverge(few):
    good, *bad = runs(4, norm=NoNorm())
    bad = [replace(spec, lr=1e30) for spec in bad]
    alone, _ = train_stack([good], few)[good.run_id]
    assert_identical(train_all(start_stacked([*bad, good], few, CPU))[good.run_id], alone)
    stack = start_stacked(bad, few, CPU)
    assert {outcome.status for outcome in train_all(stack).values()} == {"diverged"}
    assert stack.step < stack.total


def test_a_run_near_guessing_did_not_learn_and_the_others_did(few):
    learns, stays = spec(lr=0.1, steps=60), spec(lr=1e-9, steps=60)
    left = train_all(start_stacked([stays, learns], few, CPU))
    assert (left[learns.run_id].status, left[learns.run_id].learned) == ("finished", True)
    for outcome in (left[stays.run_id], train_serial(stays, few)):
        assert (outcome.status, outcome.learned, outcome.diverged_step) == ("finished", False, None)


def test_runs_may_leave_without_an_outcome(few):
    specs = runs(3)
    stack = start_stacked(specs, few, CPU)
    train_until(stack, 7)
    stack.leave([specs[0].run_id, "unknown"])
    left = train_all(stack)
    assert left.keys() == {spec.run_id for spec in specs[1:]}
    for spec in specs[1:]:
        assert_identical(left[spec.run_id], train_stack([spec], few)[spec.run_id][0])
    stack = start_stacked(specs, few, CPU)
    stack.leave([spec.run_id for spec in specs])
    assert train_all(stack) == {}


def test_the_runs_of_a_stack_share_its_seconds(few):
    stack = start_stacked(runs(4), few, CPU)
    outcomes = list(train_all(stack).values())
    for outcome in outcomes:
        assert outcome.seconds["total"] == pytest.approx(sum(stack.watch.seconds.values()), rel=0.5)
        assert math.isfinite(outcome.seconds["training"])
    assert len({outcome.seconds["training"] for outcome in outcomes}) == 1


@pytest.mark.parametrize("trained", ["all", "norm"])
@pytest.mark.parametrize("optim", [SGD(momentum=0.9, weight_decay=0.1), Adam()], ids=["sgd", "adam"])
@pytest.mark.parametrize("at", [1, 5, 10, 19, 20])
@pytest.mark.parametrize(("engine", "parts"), [("serial", [[0]]), ("stacked", [[0, 1, 2], [2, 0], [1]])])
def test_a_resumed_run_is_identical_to_an_undisturbed_one(engine, parts, trained, optim, at, few, tmp_path):
    specs = runs(len(parts[0]), optim=optim, trained=trained)
    whole, part = train_all(ENGINES[engine](specs, few)), ENGINES[engine](specs, few)
    train_until(part, at)
    saved = []
    for run, spec in enumerate(specs):
        checkpoint.save(tmp_path / spec.run_id, spec.run_id, "", part.state(run))
        saved.append(checkpoint.load(tmp_path / spec.run_id, spec.run_id, "", CPU))
    for chosen in parts:
        rest = ENGINES[engine]([specs[run] for run in chosen], few)
        rest.load([saved[run] for run in chosen])
        assert rest.step == at
        for run_id, outcome in train_all(rest).items():
            assert_identical(outcome, whole[run_id])


def test_a_stack_resumes_identically_after_a_run_has_left(few):
    one, bad, two = runs(3, norm=NoNorm())
    bad = replace(bad, lr=1000.0)
    whole = train_all(start_stacked([one, bad, two], few, CPU))
    part = start_stacked([one, bad, two], few, CPU)
    train_until(part, 15)
    assert part.specs == [one, two]
    rest = start_stacked(part.specs, few, CPU)
    rest.load([part.state(run) for run in range(2)])
    for run_id, outcome in train_all(rest).items():
        assert_identical(outcome, whole[run_id])


@pytest.mark.parametrize(
    "change",
    [{"norm": BatchNorm()}, {"norm": BatchNorm(momentum=None)}, {"norm": NoNorm()}, {"trained": "norm"}],
    ids=["batch", "average", "none", "only the norm trained"],
)
@pytest.mark.parametrize("free", [False, True])
def test_each_engine_continues_from_the_state_of_the_other(change, free, few):
    specs = runs(2, optim=Adam(eps=1e-3), model=replace(MODELS["mlp"], activation="gelu"), **change)
    whole = [train_serial(spec, few) for spec in specs]

    alone = [start_serial(spec, few, CPU) for spec in specs]
    for one in alone:
        train_until(one, 7)
    stack = start_stacked(specs, few, CPU, free=free)
    stack.load([one.state() for one in alone])
    train_until(stack, 14)
    states = [stack.state(run) for run in range(2)]
    for spec, state, expected in zip(specs, states, whole, strict=True):
        rest = start_serial(spec, few, CPU)
        rest.load([state])
        assert_same_outcome(train_one(rest), expected, tolerance=1e-5)
