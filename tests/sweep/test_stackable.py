"""Networks that cannot be stacked are found before training, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.store.runs import Store
from bnstudy.sweep.same_networks import Inputs
from bnstudy.sweep.stackable import why_not_stacked
from tests.conftest import spec_of

IMAGES = Inputs((1, 8, 8), 10)

GRU = """
from dataclasses import dataclass
import torch
from torch import nn
from bnstudy.models.base import ModelSpec

@dataclass(frozen=True)
class Rows(ModelSpec):
    def build(self, norm, shape, classes):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.gru, self.out = nn.GRU(shape[2], 8, batch_first=True), nn.Linear(8, classes)
            def forward(self, x):
                return self.out(self.gru(x[:, 0])[0][:, -1])
        return Net()
"""
NUMBER = """
from dataclasses import dataclass
import torch
from torch import nn
from bnstudy.models.base import ModelSpec

@dataclass(frozen=True)
class Scaled(ModelSpec):
    def build(self, norm, shape, classes):
        class Net(nn.Sequential):
            def forward(self, x):
                return super().forward(x) * torch.ones(()).exp().item()
        return Net(nn.Flatten(), nn.Linear(64, classes))
"""
REPLACED = ("model=inception", "~model.depth", "~model.width", "~model.activation", "~model.dropout", "~model.stride")
OWN = (*REPLACED, "model._target_=mine.Rows", "norm=none")


@dataclass(frozen=True)
class Own(ModelSpec):
    """A network with dropout, which is stackable as the stream of each run draws it, or with a branch, which is not."""

    part: str = "none"

    def build(self, norm, shape, classes):  # noqa: ARG002
        part = self.part

        class Branch(nn.Module):
            def forward(self, x):
                return x if part == "none" or x.sum() > 0 else -x

        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5) if part == "dropout" else Branch())


@pytest.mark.parametrize(("part", "reason"), [("none", ""), ("dropout", ""), ("branch", "data-dep")])
def test_the_reason_is_the_error_of_vmap(part, reason):
    found = why_not_stacked(replace(spec_of(), model=Own(part)), IMAGES, norms_vary=False)
    assert (found == "") == (reason == "")
    assert reason in found


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize("words", [("norm=none",), ("norm=batch",), ("norm=layer",), ("norm=noisy_batch",)])
def test_built_in_networks_can_be_stacked(model, words):
    spec = spec_of(f"model={model}", *words)
    for precision in ("fp32", "bf16"):
        for vary in (False, True):
            assert why_not_stacked(replace(spec, precision=precision), IMAGES, vary) == ""


def test_the_trial_leaves_torchs_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    why_not_stacked(spec_of(), IMAGES, norms_vary=False)
    assert torch.equal(torch.rand(4), expected)


def test_targets_that_are_no_labels_fit_their_loss():
    spec = spec_of("loss=mse")
    assert why_not_stacked(spec, Inputs((1, 8, 8), 3, is_labelled=False), norms_vary=False) == ""


def test_a_network_that_cannot_be_stacked_is_trained_one_by_one_and_this_is_said_once(command, tmp_path):
    (tmp_path / "mine.py").write_text(GRU)
    words = ("-m", *OWN, "seed=0,1", "lr=0.1,0.01", "steps=3")
    said = "model=Rows cannot be stacked ("
    status, out, _ = command(*words, "dry_run=true")
    assert (status, out.count(said), " 4  -       serial      3 " in out) == (0, 1, True)
    status, _, err = command(*words)
    assert (status, err.count(said)) == (0, 1)
    assert "going on" not in err
    store = Store(tmp_path / "results")
    for run_id in store.finished():
        summary = store.summary(run_id)
        assert summary["engine"] == "serial"
        assert "Error" in summary["not_stacked_because"]


def test_a_network_whose_step_cannot_be_compiled_is_trained_without_and_refused_with_compile_true(command, tmp_path):
    (tmp_path / "scaled.py").write_text(NUMBER)
    words = ("-m", *REPLACED, "model._target_=scaled.Scaled", "norm=none", "steps=3")
    because = "cannot be compiled (its Python code reads a number from a tensor that changes)"
    status, out, err = command(*words, "seed=0,1")
    assert (status, (out + err).count(f"model=Scaled {because}: its steps take longer.")) == (0, 1)
    store = Store(tmp_path / "results")
    summaries = [store.summary(run_id) for run_id in store.finished()]
    assert {(s["engine"], s["compiled"], s["not_stacked_because"]) for s in summaries} == {("stacked", False, None)}
    status, _, err = command(*words, "seed=2,3", "compile=true")
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"compile=true is not allowed with model=Scaled and norm=NoNorm: its step {because}; choose compile=a" in err


def test_a_network_that_cannot_be_stacked_is_refused_with_engine_stacked(command, tmp_path):
    (tmp_path / "mine.py").write_text(GRU)
    status, _, err = command("-m", *OWN, "seed=0,1", "steps=3", "engine=stacked")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "engine=stacked is not allowed with model=Rows and norm=NoNorm: it cannot be stacked (" in err
