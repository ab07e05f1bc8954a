"""trained=norm: only what the norm brings is trained, and all else stays as it was initialized, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bnstudy.data.batches import BatchStream
from bnstudy.models.mlp import MLP
from bnstudy.models.resnet import ResNet
from bnstudy.models.structure import norm_parameters
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.optim import SGD, Adam, AdamW
from bnstudy.run import Evaluation, RunSpec
from bnstudy.store.runs import Store
from bnstudy.train.compiled import Program
from bnstudy.train.loop import Engine
from bnstudy.train.serial import SerialRun
from bnstudy.train.stacked import StackedRun
from bnstudy.train.state import build_model, flatten_
from bnstudy.validation import ConfigError
from bnstudy.when import AtEnd
from tests.conftest import CPU, spec_of
from tests.train.courses import assert_same_course, assert_same_state, outcome, outcomes, rows, serial, train_until

OPTIMS = {
    "sgd": SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": Adam(weight_decay=0.1),
    "adamw": AdamW(weight_decay=0.1),
}


def spec(**changes) -> RunSpec:
    """20 updates of a small network, of which only the norms are trained."""
    small = replace(spec_of(), batch_size=8, lr=0.01, model=MLP(depth=2, width=16, dropout=0.1), trained="norm")
    return replace(small, **{"optim": OPTIMS["sgd"], **changes})


def engines(*specs: RunSpec, dataset) -> list[Engine]:
    return [SerialRun(specs[0], dataset, CPU), StackedRun(specs, dataset, CPU)]


def moved(engine: Engine, spec: RunSpec, dataset) -> set[str]:
    """The names of the parameters of the first run that are no longer what they began with."""
    model = build_model(spec, dataset)
    began = flatten_(list(model.parameters())).clone()
    flatten_(list(model.parameters())).copy_(engine.state()["params"])
    named, flat = dict(model.named_parameters()), began.split([p.numel() for p in model.parameters()])
    return {name for (name, p), start in zip(named.items(), flat, strict=True) if not torch.equal(p.flatten(), start)}


@pytest.mark.parametrize("optim", OPTIMS)
def test_only_the_norms_move_whatever_the_optimizer(optim, few):
    kind = spec(optim=OPTIMS[optim])
    for engine in engines(kind, replace(kind, seed=1), dataset=few):
        outcomes(engine)
        assert moved(engine, kind, few) == {f"hidden{i}.norm_act.norm.{p}" for i in (1, 2) for p in ("weight", "bias")}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"norm": WeightNorm()}, {"hidden1.weight.g", "hidden2.weight.g"}),
        (
            {"norm": SkipInit(), "model": ResNet(width=4)},
            {f"stage{i}.block1.conv2.norm_act.branch.scale" for i in (1, 2, 3)},
        ),
    ],
    ids=["weight", "skipinit"],
)
def test_so_do_other_parameters_that_norms_bring(change, names, few):
    kind = spec(**change)
    for engine in engines(kind, replace(kind, seed=1), dataset=few):
        outcomes(engine)
        assert moved(engine, kind, few) == names


def test_it_is_what_a_plain_pytorch_loop_does(few):
    kind = spec(model=MLP(depth=2, width=16), steps=10)
    losses = list(rows(serial(kind, few).metrics, "train", "loss").values())

    model, batches = build_model(kind, few).train(), BatchStream(few, "none", kind.batch_size, kind.seed)
    chosen = [p for name, p in model.named_parameters() if name in norm_parameters(model)]
    optimizer = torch.optim.SGD(chosen, lr=kind.lr, momentum=0.9, nesterov=True, weight_decay=0.1)
    for step, measured in enumerate(losses):
        x, y = batches(step)
        loss = F.cross_entropy(model(x), y)
        assert measured == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_what_is_not_trained_costs_no_gradient_between_measurements(few):
    kind = spec()
    for engine, pieces in zip(engines(kind, replace(kind, seed=1), dataset=few), ((1, 2), (4, 8)), strict=True):
        assert tuple(len(engine._update(whole=whole)[1]) for whole in (False, True)) == pieces


def test_optimizers_carry_along_nothing_for_what_is_not_trained(few):
    kind = spec(optim=OPTIMS["adam"])
    for engine in engines(kind, replace(kind, seed=1), dataset=few):
        assert {name: slot.shape for name, slot in engine.state()["slots"].items()} == {"mean": (64,), "square": (64,)}


def test_recording_changes_nothing(few):
    watched = spec()
    alone = replace(watched, probe={}, evaluation=Evaluation(AtEnd()))
    both = [engines(s, replace(s, seed=1), dataset=few) for s in (watched, alone)]
    for first, second in zip(*both, strict=True):
        outcomes(first)
        outcomes(second)
        assert_same_state(first.state(), second.state(), tolerance=0)


def test_probes_see_the_gradients_of_all_parameters_and_that_some_do_not_move(few):
    plain, frozen = (serial(spec(trained=trained), few).metrics for trained in ("all", "norm"))
    for layer in ("", "hidden1", "out"):
        gradients = [rows(table, "", "grad_norm", layer) for table in (plain, frozen)]
        assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-6)
        assert all(value > 0 for value in gradients[1].values())
    assert set(rows(frozen, "", "update_ratio", "hidden1").values()) == {0.0}
    assert min(rows(frozen, "", "update_ratio").values()) > 0


@pytest.mark.parametrize("at", [1, 10, 20])
@pytest.mark.parametrize("optim", OPTIMS)
def test_a_resumed_run_ends_bit_for_bit_as_if_it_had_never_stopped(optim, at, few):
    kind = spec(optim=OPTIMS[optim])
    for whole, part, rest in zip(*(engines(kind, dataset=few) for _ in range(3)), strict=True):
        expected = outcome(whole)
        train_until(part, at)
        rest.load([part.state()])
        ended = outcome(rest)
        assert ended.metrics.equals(expected.metrics)
        assert ended.final == expected.final


def test_each_engine_goes_on_from_the_others_state(few):
    kind = spec(optim=Adam(eps=1e-3), model=MLP(depth=2, width=16, activation="gelu"))
    alone = SerialRun(kind, few, CPU)
    train_until(alone, 7)
    stack = StackedRun([kind], few, CPU)
    stack.load([alone.state()])
    train_until(stack, 14)
    rest = SerialRun(kind, few, CPU)
    rest.load([stack.state()])
    assert_same_course(outcome(rest), serial(kind, few), tolerance=1e-5)


@pytest.mark.slow
def test_compiled_steps_leave_the_rest_alone_too(few):
    specs = [spec(seed=seed, model=MLP(depth=2, width=16, activation="gelu")) for seed in (0, 1)]
    stack, plain = StackedRun(specs, few, CPU, Program(2)), StackedRun(specs, few, CPU)
    ours, theirs = outcomes(stack), outcomes(plain)
    for run, one in enumerate(specs):
        assert_same_course(ours[one.run_id], theirs[one.run_id], tolerance=1e-5)
        assert_same_state(stack.state(run), plain.state(run), tolerance=1e-5)
    assert len(moved(stack, specs[0], few)) == 4
    alone = SerialRun(specs[0], few, CPU, compiled=True)
    assert_same_course(outcome(alone), serial(specs[0], few), tolerance=1e-4)
    assert len(moved(alone, specs[0], few)) == 4


@pytest.mark.parametrize("norm", ["norm=none", "norm.affine=false"])
def test_without_anything_to_train_it_is_refused_before_anything_trains(norm, command, tmp_path):
    status, _, err = command("-m", "trained=norm,all", norm, "steps=2")
    assert status == 2
    assert "trained=norm is not allowed if the norm has no parameters" in err
    assert Store(tmp_path / "results").finished() == []


def test_engines_refuse_it_too(few):
    with pytest.raises(ConfigError, match="trained=norm is not allowed"):
        SerialRun(spec(norm=BatchNorm(affine=False)), few, CPU)
