"""Models from elsewhere that put the norm between layers of their own: what works with them, and what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import dense
from bnstudy.models.mlp import MLP
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.weight import WeightNorm
from bnstudy.train.serial import SerialRun
from bnstudy.train.stacked import StackedRun
from bnstudy.train.state import are_trained, network_of
from bnstudy.validation import ConfigError
from tests.conftest import CPU, spec_of
from tests.train.courses import assert_same_course, outcomes, serial


@dataclass(frozen=True)
class Plain(ModelSpec):
    """A hidden layer of torch's own, and what `norm.build` gives behind it. wraps: the norm may replace the layer."""

    wraps: bool = False

    def build(self, norm, shape, classes):
        hidden = nn.Linear(math.prod(shape), 16)
        hidden = norm.wrap(hidden) if self.wraps else hidden
        return nn.Sequential(nn.Flatten(), hidden, norm.build(16, spatial=False), nn.ReLU(), nn.Linear(16, classes))


@dataclass(frozen=True)
class Mixed(ModelSpec):
    """The layers of bnstudy.models.layers in a network of one's own."""

    def build(self, norm, shape, classes):
        return nn.Sequential(nn.Flatten(), dense(math.prod(shape), 16, norm, "relu"), nn.Linear(16, classes))


def spec(**changes):
    return replace(spec_of("batch_size=8", "lr=0.01"), **changes)


def test_both_engines_train_them_with_norms_that_are_built(few):
    first = spec(model=Plain(), norm=BatchNorm())
    specs = [first, replace(first, seed=1)]
    stacked = outcomes(StackedRun(specs, few, CPU))
    for one in specs:
        assert_same_course(stacked[one.run_id], serial(one, few), tolerance=1e-4)


def test_a_norm_of_weights_that_would_change_none_is_refused(few):
    with pytest.raises(ConfigError, match="WeightNorm is not allowed with this network: it normalizes weights"):
        SerialRun(spec(model=Plain(), norm=WeightNorm()), few, CPU)


@pytest.mark.parametrize("model", [Plain(wraps=True), Mixed(), MLP(depth=1), MLP(depth=0)])
def test_one_that_changes_all_that_there_are_is_not(model, few):
    network = network_of(spec(model=model, norm=WeightNorm()), few.shape, few.classes)
    assert network(few.train.x[:2]).shape == (2, few.classes)


def test_norms_that_are_not_found_are_not_said_to_have_no_parameters(few):
    with pytest.raises(ConfigError, match="found only in the layers of bnstudy"):
        network_of(spec(model=Plain(), norm=BatchNorm(), trained="norm"), few.shape, few.classes)


@pytest.mark.parametrize(
    ("model", "norm"),
    [(Mixed(), NoNorm()), (Mixed(), BatchNorm(affine=False)), (MLP(depth=1), NoNorm()), (MLP(depth=0), BatchNorm())],
)
def test_those_that_have_none_are(model, norm, few):
    with pytest.raises(ConfigError, match="trained=norm is not allowed if the norm has no parameters"):
        network_of(spec(model=model, norm=norm, trained="norm"), few.shape, few.classes)


def test_what_is_found_is_trained(few):
    for model, norm in ((Mixed(), BatchNorm()), (Plain(wraps=True), WeightNorm())):
        asked = spec(model=model, norm=norm, trained="norm")
        moved = are_trained(asked, network_of(asked, few.shape, few.classes))
        assert any(moved)
        assert not all(moved)
