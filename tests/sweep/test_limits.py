from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.sweep import limits
from bnstudy.sweep.cost import NetworkCost, measure_network
from bnstudy.sweep.limits import check_memory, limit_network
from bnstudy.validation import ConfigError, machine_bytes
from tests.conftest import spec_of


@dataclass(frozen=True)
class Own(ModelSpec):
    """A model of the user's: its own loop and its own parameters."""

    blocks: int = 1
    side: int = 1

    def build(self, norm, shape, classes):  # noqa: ARG002
        model = nn.Module()
        for i in range(self.blocks):
            model.add_module(f"block{i}", nn.Module())
            model.get_submodule(f"block{i}").weight = nn.Parameter(torch.empty(self.side, self.side))
        return model


def build(model: ModelSpec) -> nn.Module:
    with torch.device("meta"), limit_network(model):
        return model.build(spec_of().norm, (1, 8, 8), 10)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            Own(blocks=10**8),
            "model=Own with blocks=100000000, side=1 is not allowed: the network has more than 10000 mo",
        ),
        (Own(side=10**7), "model=Own with blocks=1, side=10000000 is not allowed: its parameters alone need more than"),
        (Own(blocks=9_000, side=10**5), "its parameters alone need more than"),
        (Own(side=10**12), "its parameters alone need more than"),
        (spec_of("model.width=1000000000").model, "model=MLP with depth=3, width=1000000000 is not allowed"),
        (spec_of("model.depth=100000000").model, "model=MLP with depth=100000000, width=128 is not allowed"),
        (spec_of("model=resnet", "model.width=1000000").model, "model=ResNet with .*width=1000000 is not allowed"),
    ],
)
def test_a_network_that_cannot_be_held_is_refused_while_it_is_built(model, sentence):
    begin = time.process_time()
    with pytest.raises(ConfigError, match=sentence):
        build(model)
    assert time.process_time() - begin < 5


def test_the_modules_of_each_network_are_counted_and_only_inside(monkeypatch):
    monkeypatch.setattr(limits, "MAX_MODULES", 100)
    for _ in range(2):
        assert len(list(build(Own(blocks=100, side=3)).modules())) == 1 + 100
    with pytest.raises(ConfigError, match="the network has more than 100 modules"):
        build(Own(blocks=101))
    Own(blocks=101).build(None, None, None)


def measured(*overrides: str) -> NetworkCost:
    spec = spec_of(*overrides)
    return measure_network(spec.model.build(spec.norm, (1, 8, 8), 10), torch.zeros(4, 1, 8, 8))


@pytest.mark.parametrize(
    ("overrides", "changes", "sentence"),
    [
        (("steps=100000000",), {}, "steps=100000000 is not allowed: a run needs 10 GB of memory for the loss of each"),
        (
            ("epochs=5e6",),
            {},
            r"epochs=5e\+06 is not allowed: a run needs 8.5 GB of memory for the loss of each of its s",
        ),
        (
            ("steps=20000000", "evaluation.when.regular=20000000"),
            {},
            "steps=20000000 with evaluation.when is not allowed",
        ),
        (("probe.gradients.when.regular=20000000", "steps=20000000"), {}, "with probe.gradients.when is not allowed"),
        (
            ("optim.momentum=0.9",),
            {"params": 10**9},
            "model=MLP .*: a run needs 12 GB of memory for parameters, gradients",
        ),
        (("batch_size=1000",), {"units": 10**7}, "batch_size=1000 is not allowed: a run needs 40 GB .* all layers"),
    ],
)
def test_a_run_that_does_not_fit_into_the_memory_is_refused(monkeypatch, overrides, changes, sentence):
    monkeypatch.setattr(limits, "memory_bytes", lambda _: 8 * 10**9)
    spec = spec_of(*overrides)
    network = NetworkCost(**{"params": 10**4, "units": 300, "products": 10**4, "convolves": False, **changes})
    with pytest.raises(ConfigError, match=sentence):
        check_memory(spec, spec.total_steps(1150), network, "cpu")


def test_the_memory_of_the_gpu_is_for_its_network_only(monkeypatch):
    monkeypatch.setattr(limits, "memory_bytes", {"cpu": 10**9, "cuda": 10**12}.__getitem__)
    large = NetworkCost(params=10**9, units=300, products=10**9, convolves=False)
    check_memory(spec_of(), 20, large, "cuda")
    with pytest.raises(ConfigError, match="this machine has 1 GB"):
        check_memory(spec_of(), 20, large, "cpu")


def test_ordinary_runs_fit():
    for overrides in ((), ("model=resnet", "data=cifar10"), ("steps=1000000",)):
        check_memory(spec_of(*overrides), spec_of(*overrides).total_steps(50_000), measured(*overrides[:1]), "cpu")
    assert machine_bytes() > 10**9
