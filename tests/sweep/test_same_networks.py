"""Arms that are the same network are refused, and no others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.mlp import MLP
from bnstudy.norms.base import NormSpec
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.group import LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.same_networks import Inputs, Networks, refuse_same_networks
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

IMAGES = Inputs((1, 8, 8), 10)


@dataclass(frozen=True)
class Ignoring(ModelSpec):
    """A convolutional network with a batch norm of its own, which never asks for the chosen norm."""

    def build(self, norm, shape, classes):  # noqa: ARG002
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.bn = nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4)
                self.fc = nn.Linear(4, classes)

            def forward(self, x):
                return self.fc(F.relu(self.bn(self.conv(x))).mean((2, 3)))

        return Net()


@dataclass(frozen=True)
class AlwaysBefore(ModelSpec):
    """A network that asks for the norm and ignores its position."""

    def build(self, norm, shape, classes):
        hidden = nn.Linear(math.prod(shape), 16)
        return nn.Sequential(nn.Flatten(), hidden, norm.build(16, "units"), nn.ReLU(), nn.Linear(16, classes))


@dataclass(frozen=True)
class Detached(NormSpec):
    """A layer norm that may hide its statistics from the gradient."""

    detach: bool = False

    def build(self, channels, layout):  # noqa: ARG002
        detach = self.detach

        class Norm(nn.Module):
            def forward(self, x):
                mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
                return (x - mean.detach()) / std.detach() if detach else (x - mean) / std

        return Norm()


def check(model: ModelSpec, *norms: NormSpec, **changes) -> None:
    specs = [replace(spec_of(), model=model, norm=norm, **changes) for norm in norms]
    runs = [PlannedRun(spec, "", "") for spec in specs]
    refuse_same_networks(runs, {spec.data: IMAGES for spec in specs})


@pytest.mark.parametrize("norms", [(BatchNorm(),), (NoNorm(), BatchNorm(), LayerNorm())])
def test_a_model_that_ignores_norms_is_refused_even_with_a_single_arm(norms):
    with pytest.raises(ConfigError, match="norm=BatchNorm is not allowed with model=Ignoring, which ignores it"):
        check(Ignoring(), *norms)


def test_a_model_that_ignores_norms_is_allowed_without_them():
    check(Ignoring(), NoNorm())


def test_a_model_that_ignores_the_position_is_refused():
    with pytest.raises(ConfigError, match="position=after is not allowed with model=AlwaysBefore, which ignores it"):
        check(AlwaysBefore(), BatchNorm(position="after"))
    check(AlwaysBefore(), BatchNorm(), NoNorm())
    check(MLP(depth=1), BatchNorm(position="after"), BatchNorm())


def test_two_norms_are_refused_where_there_is_nothing_to_normalize_and_one_is_allowed():
    check(MLP(depth=0), BatchNorm())
    with pytest.raises(ConfigError, match="norm=NoNorm and norm=BatchNorm are not allowed together with model=MLP"):
        check(MLP(depth=0), NoNorm(), BatchNorm())


def test_a_number_without_effect_is_named():
    untracked = [BatchNorm(track_running_stats=False, momentum=m) for m in (0.1, 0.01)]
    with pytest.raises(ConfigError, match=r"norm.momentum=0.1 and norm.momentum=0.01 are not allowed together"):
        check(MLP(depth=1), *untracked)


@pytest.mark.parametrize(
    "norms",
    [
        [BatchNorm(eps=eps) for eps in (1e-5, 1e-8, 1e-9, 1e-10)],
        [BatchNorm(momentum=momentum) for momentum in (0.1, 0.01, None)],
        [GhostBatchNorm(size=size) for size in (8, 16, 32)],
        [NoisyBatchNorm(shift=shift) for shift in (0.5, 0.6)],
        [NoisyBatchNorm(jitter=jitter) for jitter in (0.0, 0.1)],
        [LayerNorm(eps=eps) for eps in (1e-5, 1e-9)],
        [Detached(detach=detach) for detach in (False, True)],
    ],
    ids=["eps", "momentum", "ghost", "noise", "jitter", "layer", "gradient"],
)
def test_small_differences_between_norms_are_seen(norms):
    check(MLP(depth=2, width=16), *norms, batch_size=32)


def model_of(name: str) -> ModelSpec:
    return spec_of(f"model={name}").model


NORMS = ("none", "batch", "layer", "group", "instance", "ghost", "noisy_batch", "weight", "skipinit")


@pytest.mark.parametrize("name", ["mlp", "vgg", "resnet"])
def test_built_in_norms_are_different_networks(name):
    networks, specs = Networks(), []
    for norm in NORMS:
        for position in ("before", "after"):
            spec = replace(spec_of(f"model={name}", f"norm={norm}"), batch_size=32)
            spec = replace(spec, norm=replace(spec.norm, position=position))
            try:
                networks.has_hidden_layers(spec, IMAGES)
            except ConfigError:  # the norm does not fit the model
                continue
            specs += [spec] if spec not in specs else []
    assert len(specs) > 10
    for first, second in combinations(specs, 2):
        assert not networks.are_same(first, second, IMAGES), (first.norm, second.norm)


def test_equal_networks_are_the_same_however_often_they_are_built():
    networks, spec = Networks(), replace(spec_of(), model=MLP(depth=2), norm=NoisyBatchNorm())
    assert networks.are_same(spec, replace(spec, lr=1.0, seed=3), IMAGES)
    assert Networks().sketch(spec, IMAGES) == networks.sketch(spec, IMAGES)


def test_the_comparison_leaves_torchs_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check(MLP(depth=2), BatchNorm(), NoNorm())
    assert torch.equal(torch.rand(4), expected)


def test_the_command_refuses_it_in_one_sentence(command, tmp_path):
    (tmp_path / "mine.py").write_text(MODEL)
    own = (
        "model=inception",
        "model._target_=mine.Net",
        "~model.depth",
        "~model.width",
        "~model.activation",
        "~model.dropout",
        "~model.stride",
    )
    status, _, err = command("-m", *own, "norm=none,batch", "seed=0,1", "steps=3")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "norm=BatchNorm is not allowed with model=Net, which ignores it" in err
    assert command(*own, "norm=none", "steps=3")[0] == 0


MODEL = """
from dataclasses import dataclass
from torch import nn
from bnstudy.models.base import ModelSpec

@dataclass(frozen=True)
class Net(ModelSpec):
    def build(self, norm, shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))
"""
