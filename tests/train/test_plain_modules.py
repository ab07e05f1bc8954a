"""Plain modules in training: both engines, and loops written by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.data.batches import BatchStream
from bnstudy.models.base import ModelSpec
from bnstudy.models.module import Module
from bnstudy.models.seeded_dropout import SeededDropout
from bnstudy.norms.none import NoNorm
from bnstudy.train.build import build_model, trained_mask
from bnstudy.train.loop import start_serial, start_stacked
from tests.conftest import CPU, spec_of
from tests.train.helpers import assert_same_outcome, assert_same_state, train_all, train_until


def spec(target: str, norm: str = "keep", init: str = "keep", **kwargs):
    base = spec_of(f"norm={norm}", f"init={init}", "batch_size=8", "lr=0.05", "steps=5", "probe=none")
    return replace(base, model=Module(target=f"tests.plain_modules.{target}", kwargs=kwargs))


@pytest.mark.parametrize(
    ("target", "norm", "kwargs"),
    [
        ("Cnn", "keep", {"p": 0.3}),
        ("Cnn", "none", {}),
        ("Cnn", "group", {"p": 0.3}),
        ("Cnn", "weight", {}),
        ("Encoder", "keep", {"p": 0.2}),
        ("Encoder", "none", {"batch_first": False}),
        ("Lazy", "batch", {}),
        ("TwoNames", "keep", {}),
        ("TwoNames", "weight", {"shared": True}),
    ],
)
def test_both_engines_train_plain_modules_alike(target, norm, kwargs, few):
    first = spec(target, norm, **kwargs)
    specs = [first, replace(first, seed=1)]
    stacked = start_stacked(specs, few, CPU)
    outcomes = train_all(stacked)
    for row, one in enumerate(specs):
        serial = start_serial(one, few, CPU)
        [outcome] = train_all(serial).values()
        assert_same_outcome(outcomes[one.run_id], outcome, tolerance=1e-4)
        assert_same_state(stacked.engine.state(row), serial.engine.state(), tolerance=1e-4)


def test_a_plain_module_is_trained_as_by_hand(few):
    run = spec("Cnn")
    model, stream = build_model(run, few).train(), BatchStream(few, None, 8, run.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=run.optim.momentum)
    for t in range(5):
        x, y = stream(t)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    training = start_serial(run, few, CPU)
    train_until(training, 5)
    for name, p in training.engine.model.named_parameters():
        torch.testing.assert_close(p, dict(model.named_parameters())[name])


def test_recurrent_layers_of_torchs_are_seeded(few):
    for init in ("keep", "kaiming_normal"):
        run = spec("Recurrent", init=init)
        first, again, other = (build_model(replace(run, seed=seed), few) for seed in (0, 0, 1))
        for name, p in first.named_parameters():
            assert torch.equal(p, dict(again.named_parameters())[name])
            if "weight" in name and "norm" not in name:
                assert not torch.equal(p, dict(other.named_parameters())[name])


def test_arms_share_all_weights_but_those_of_norms(few):
    for target in ("Cnn", "Encoder", "Recurrent"):
        kept, without = (build_model(spec(target, norm), few) for norm in ("keep", "none"))
        shared = dict(kept.named_parameters()).keys() & dict(without.named_parameters()).keys()
        names = {name for name in shared if "bn" not in name and "norm" not in name}
        assert {name.split(".")[0] for name in names} >= {"out"}
        for name in names:
            assert torch.equal(kept.get_parameter(name), without.get_parameter(name))


def test_a_layer_with_two_names_trains_as_if_it_had_one(few):
    run = replace(spec("TwoNames", shared=True), steps=8)
    model, stream = build_model(run, few).train(), BatchStream(few, None, 8, run.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=run.optim.momentum)
    for t in range(8):
        x, y = stream(t)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    training = start_serial(run, few, CPU)
    train_all(training)  # with evaluations between the steps
    for name, p in training.engine.model.named_parameters():
        torch.testing.assert_close(p, dict(model.named_parameters())[name])


def test_training_only_the_norms_of_a_plain_module_trains_all_of_them(few):
    run = replace(spec("Cnn"), trained="norm")
    model = build_model(run, few)
    chosen = [name for (name, _), c in zip(model.named_parameters(), trained_mask(run, model), strict=True) if c]
    assert chosen == ["bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"]


@dataclass(frozen=True)
class Own(ModelSpec):
    """A model spec whose network has dropout, and a parameter that it does not use."""

    def build(self, norm, shape, classes):
        class Network(nn.Sequential):
            def __init__(self) -> None:
                super().__init__(
                    nn.Flatten(), nn.Linear(math.prod(shape), 16), norm.build(16, "units"), nn.Dropout(0.4)
                )
                self.unused = nn.Parameter(torch.randn(16, classes))

        return nn.Sequential(Network(), nn.Linear(16, classes))


def test_dropout_of_a_model_spec_of_ones_own_is_seeded(few):
    run = replace(spec("Cnn"), model=Own(), norm=NoNorm())
    specs = [run, replace(run, seed=1)]
    torch.manual_seed(3)
    stacked = train_all(start_stacked(specs, few, CPU))
    torch.manual_seed(4)
    for one in specs:
        training = start_serial(one, few, CPU)
        assert isinstance(training.engine.model, SeededDropout)
        [outcome] = train_all(training).values()
        assert_same_outcome(stacked[one.run_id], outcome, tolerance=1e-4)


@pytest.mark.parametrize("norm", ["keep", "none", "group"])
def test_a_torchvision_network_trains(norm, few):
    pytest.importorskip("torchvision")
    base = replace(spec("Cnn", norm), model=Module("torchvision.models.resnet18", {"num_classes": 10}))
    colored = replace(few, **{s: replace(getattr(few, s), x=images(few, s)) for s in ("train", "val", "test")})
    training = start_serial(replace(base, steps=1, batch_size=4, lr=1e-4), colored, CPU)
    [outcome] = train_all(training).values()
    assert outcome.status == "finished"


def images(dataset, split: str) -> torch.Tensor:
    """The first images of a split, in three channels of 32x32."""
    return F.interpolate(getattr(dataset, split).x, 32).expand(-1, 3, -1, -1).contiguous()
