"""trained=norm, trained=hidden: all other parameters keep their initial values, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bnstudy.models.mlp import MLP
from bnstudy.models.resnet import ResNet
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.optim import SGD, Adam, AdamW
from bnstudy.run import RunSpec
from bnstudy.store.runs import Store
from bnstudy.train.build import build_model
from bnstudy.train.loop import Training
from bnstudy.validation import ConfigError
from tests.conftest import spec_of
from tests.train.helpers import ENGINES, train_all, train_serial, train_until, values_by_step

OPTIMS = {
    "sgd": SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": Adam(weight_decay=0.1),
    "adamw": AdamW(weight_decay=0.1),
}


def spec(**changes) -> RunSpec:
    """20 steps of a small network of which only the norms are trained."""
    small = replace(spec_of(), batch_size=8, lr=0.01, model=MLP(depth=2, width=16, dropout=0.1), trained="norm")
    return replace(small, **{"optim": OPTIMS["sgd"], **changes})


def moved(training: Training, spec: RunSpec, dataset) -> set[str]:
    """The names of the parameters of the first run that have changed since the start."""
    start = dict(build_model(spec, dataset).named_parameters())
    now = training.engine.state(0)["params"].split([p.numel() for p in start.values()])
    return {name for (name, p), value in zip(start.items(), now, strict=True) if not torch.equal(p.flatten(), value)}


HIDDEN = {f"hidden{i}.norm_act.norm.{p}" for i in (1, 2) for p in ("weight", "bias")}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        *(({"optim": optim}, HIDDEN) for optim in OPTIMS.values()),
        ({"norm": WeightNorm()}, {"hidden1.weight.g", "hidden2.weight.g"}),
        (
            {"norm": SkipInit(), "model": ResNet(width=4)},
            {f"stage{i}.block1.conv2.norm_act.branch.scale" for i in (1, 2, 3)},
        ),
    ],
    ids=[*OPTIMS, "weight", "skipinit"],
)
def test_only_the_parameters_of_norms_move(change, names, few):
    kind = spec(**change)
    for start in ENGINES.values():
        training = start([kind, replace(kind, seed=1)], few)
        train_all(training)
        assert moved(training, kind, few) == names


def test_steps_between_measurements_compute_gradients_of_trained_parameters_only(few, monkeypatch):
    kind, counts = spec(), []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, of, **how: counts.append(len(of)) or grad(loss, of, **how))
    for start in ENGINES.values():
        training = start([kind, replace(kind, seed=1)], few)
        training.engine.step(0)
        training.engine.step_with_grads(1)
    assert counts == [4, 8, 4, 8]


def test_optimizers_keep_no_state_for_untrained_parameters(few):
    kind = spec(optim=OPTIMS["adam"])
    for start in ENGINES.values():
        training = start([kind, replace(kind, seed=1)], few)
        slots = training.state()["slots"]
        assert {name: slot.shape for name, slot in slots.items()} == {"mean": (64,), "square": (64,)}


def test_probes_measure_the_gradients_of_untrained_parameters_and_no_movement(few):
    plain, frozen = (train_serial(spec(trained=trained), few).metrics for trained in ("all", "norm"))
    for layer in ("", "hidden1", "out"):
        gradients = [values_by_step(table, "", "grad_norm", layer) for table in (plain, frozen)]
        assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-6)
        assert all(value > 0 for value in gradients[1].values())
    assert set(values_by_step(frozen, "", "update_ratio", "hidden1").values()) == {0.0}
    assert min(values_by_step(frozen, "", "update_ratio").values()) > 0


@pytest.mark.parametrize("norm", ["norm=none", "norm.affine=false"])
def test_a_sweep_with_nothing_to_train_is_refused_before_training(norm, command, tmp_path):
    status, _, err = command("-m", "trained=norm,all", norm, "steps=2")
    assert status == 2
    assert "trained=norm is not allowed if the norm has no parameters" in err
    assert Store(tmp_path / "results").finished() == []


@pytest.mark.parametrize("norm", [NoNorm(), BatchNorm()])
def test_all_but_the_last_layer_move_where_the_hidden_layers_are_trained(norm, few):
    kind = spec(norm=norm, trained="hidden")
    for start in ENGINES.values():
        training = start([kind, replace(kind, seed=1)], few)
        train_until(training, 3)
        names = {name for name, _ in build_model(kind, few).named_parameters()}
        assert moved(training, kind, few) == names - {"out.weight.weight", "out.weight.bias"}


def test_hidden_layers_can_only_be_trained_where_there_are_any(few):
    with pytest.raises(ConfigError, match="trained=hidden is not allowed"):
        build_model(spec(model=MLP(depth=0), trained="hidden"), few)
