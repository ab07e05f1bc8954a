"""Models of the user's own that place the norm between other layers."""

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
from bnstudy.probes.activations import Activations
from bnstudy.probes.gradients import Backprop, GradientNorm
from bnstudy.probes.shift import CovariateShift
from bnstudy.probes.units import DeadUnits
from bnstudy.probes.weights import WeightSize
from bnstudy.sweep.plan import try_network
from bnstudy.train.build import network_of, trained_mask
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.validation import ConfigError
from bnstudy.when import At
from tests import own_networks
from tests.conftest import CPU, spec_of
from tests.probes.test_network import HandWritten
from tests.train.helpers import assert_same_outcome, train_all, train_serial


@dataclass(frozen=True)
class Plain(ModelSpec):
    """A hidden nn.Linear followed by what `norm.build` returns.

    wraps: the norm may replace the layer.
    """

    wraps: bool = False

    def build(self, norm, shape, classes):
        hidden = nn.Linear(math.prod(shape), 16)
        hidden = norm.wrap(hidden) if self.wraps else hidden
        return nn.Sequential(nn.Flatten(), hidden, norm.build(16, layout="units"), nn.ReLU(), nn.Linear(16, classes))


@dataclass(frozen=True)
class Mixed(ModelSpec):
    """A model of the user's own with layers of bnstudy.models.layers."""

    def build(self, norm, shape, classes):
        return nn.Sequential(nn.Flatten(), dense(math.prod(shape), 16, norm, "relu"), nn.Linear(16, classes))


def spec(**changes):
    return replace(spec_of("batch_size=8", "lr=0.01"), **changes)


def test_both_engines_train_models_that_call_norm_build(few):
    first = spec(model=Plain(), norm=BatchNorm())
    specs = [first, replace(first, seed=1)]
    stacked = train_all(start_stacked(specs, few, CPU))
    for one in specs:
        assert_same_outcome(stacked[one.run_id], train_serial(one, few), tolerance=1e-4)


@dataclass(frozen=True)
class Own(ModelSpec):
    """One of the networks that know nothing of bnstudy, by the name of its class; `Idle` has an unused layer."""

    kind: str = "Thrice"

    def build(self, norm, shape, classes):  # noqa: ARG002
        net = getattr(own_networks, self.kind.removesuffix("Idle"))()
        if self.kind.endswith("Idle"):
            net.idle = nn.Linear(3, 3)
        return net


@pytest.mark.parametrize("kind", ["Thrice", "SharedActivation", "Residual", "ThriceIdle"])
def test_both_engines_train_and_probe_networks_of_someone_elses(kind, few):
    when = At((0, 3))
    probes = (DeadUnits(when=when), Activations(when=when), Backprop(when=when), GradientNorm(when=when))
    probe = {type(one).__name__: one for one in (*probes, CovariateShift(when=when), WeightSize(when=when))}
    first = spec(model=Own(kind=kind), probe=probe, steps=4, epochs=None)
    specs = [first, replace(first, seed=1)]
    training = start_stacked(specs, few, CPU)
    stacked = train_all(training)
    for one in specs:
        assert_same_outcome(stacked[one.run_id], train_serial(one, few), tolerance=1e-3)
    metrics = stacked[first.run_id].metrics.to_pandas()
    assert {"dead_share", "backprop_rms", "grad_norm", "ics_norm", "z_mean"} <= set(metrics["metric"])
    norms = metrics[(metrics["metric"] == "grad_norm") & metrics["layer"].str.startswith("idle")]["value"]
    assert norms.empty
    said = [sentence for sentence in training.probing.seen.unseen if "never uses idle.weight, idle.bias" in sentence]
    assert bool(said) == kind.endswith("Idle")


@dataclass(frozen=True)
class Pair(ModelSpec):
    """Returns logits and something else, in training only."""

    def build(self, norm, shape, classes):  # noqa: ARG002
        class Net(nn.Linear):
            def forward(self, x):
                logits = super().forward(x.flatten(1))
                return (logits, x) if self.training else logits

        return Net(math.prod(shape), classes)


def test_a_network_that_returns_more_than_logits_is_refused_before_training(few):
    with pytest.raises(ConfigError, match="it returns a tuple; it must return a tensor"):
        try_network(spec(model=Pair()), few.shape, few.classes)
    with pytest.raises(ConfigError, match="it returns a tuple; it must return a tensor"):
        start_serial(spec(model=Pair(), probe={"dead": DeadUnits()}), few, CPU)


def test_a_weight_norm_that_changes_no_layer_is_refused(few):
    with pytest.raises(
        ConfigError, match="The norm WeightNorm is not allowed with this network: it normalizes weights"
    ):
        start_serial(spec(model=Plain(), norm=WeightNorm()), few, CPU)


@pytest.mark.parametrize("model", [Plain(wraps=True), Mixed(), MLP(depth=1), MLP(depth=0)])
def test_a_weight_norm_that_changes_all_hidden_layers_is_accepted(model, few):
    network = network_of(spec(model=model, norm=WeightNorm()), few.shape, few.classes)
    assert network(few.train.x[:2]).shape == (2, few.classes)


@dataclass(frozen=True)
class Bare(ModelSpec):
    """Two layers without any norm."""

    def build(self, norm, shape, classes):  # noqa: ARG002
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 16), nn.ReLU(), nn.Linear(16, classes))


@dataclass(frozen=True)
class WithHandWrittenNorm(ModelSpec):
    """A hidden layer with a batch norm of the user's own."""

    assigned: bool = False

    def build(self, norm, shape, classes):  # noqa: ARG002
        hidden = nn.Linear(math.prod(shape), 16), HandWritten(16, self.assigned), nn.ReLU()
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(16, classes))


ABSENT = "trained=norm is not allowed if the norm has no parameters"


@pytest.mark.parametrize(
    ("model", "norm", "reason"),
    [
        (Bare(), BatchNorm(), "it has no norm with parameters"),
        (WithHandWrittenNorm(), BatchNorm(), "parameters of 2, a HandWritten, are not known"),
        (Mixed(), NoNorm(), ABSENT),
        (Mixed(), BatchNorm(affine=False), ABSENT),
        (MLP(depth=1), NoNorm(), ABSENT),
        (MLP(depth=0), BatchNorm(), ABSENT),
    ],
)
def test_training_only_the_norm_is_refused_where_none_of_its_parameters_is_found(model, norm, reason, few):
    with pytest.raises(ConfigError, match=reason):
        network_of(spec(model=model, norm=norm, trained="norm"), few.shape, few.classes)


def test_training_only_the_norm_trains_some_parameters(few):
    for model, norm in ((Mixed(), BatchNorm()), (Plain(), BatchNorm()), (Plain(wraps=True), WeightNorm())):
        kind = spec(model=model, norm=norm, trained="norm")
        mask = trained_mask(kind, network_of(kind, few.shape, few.classes))
        assert any(mask)
        assert not all(mask)


def test_both_engines_keep_the_statistics_of_hand_written_norms(few):
    """Whether the norm changes a buffer in place or assigns a new tensor to an attribute."""
    outcomes = []
    for assigned in (False, True):
        first = spec(model=WithHandWrittenNorm(assigned), norm=NoNorm(), lr=0.1)
        specs = [first, replace(first, seed=1)]
        stacked = train_all(start_stacked(specs, few, CPU))
        for one in specs:
            assert_same_outcome(stacked[one.run_id], train_serial(one, few), tolerance=1e-4)
        outcomes.append([stacked[one.run_id].final["val_loss"] for one in specs])
    assert outcomes[0] == pytest.approx(outcomes[1], rel=1e-5)
