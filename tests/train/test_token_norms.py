"""The engines agree on norms of tokens, and on RMSNorm, dynamic tanh, initial scales and biases in all layouts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from torch import nn

from bnstudy.models.base import ModelSpec
from bnstudy.models.layers import classifier, needs_bias
from bnstudy.norms.base import NormSpec
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.dyt import DyT
from bnstudy.norms.group import GroupNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.rms import RMSNorm
from bnstudy.run import RunSpec
from bnstudy.sweep.plan import try_network
from bnstudy.train.loop import start_serial, start_stacked
from bnstudy.validation import ConfigError
from tests.conftest import CPU, spec_of
from tests.train.helpers import assert_same_outcome, assert_same_state, train_all, train_one
from tests.train.test_stacked import EXACT, MEASURED, MODELS, ROUNDED, spec

NORMS = {
    "none": NoNorm(),
    "batch": BatchNorm(),
    "batch, gamma": BatchNorm(gamma=0.1, bias=True),
    "batch, cumulative": BatchNorm(momentum=None),
    "batch, untracked": BatchNorm(track_running_stats=False),
    "ghost": GhostBatchNorm(size=4, eps=0.1),
    "noisy_batch": NoisyBatchNorm(),
    "layer": LayerNorm(),
    "group": GroupNorm(groups=2),
    "rms": RMSNorm(),
    "dyt": DyT(),
}


@dataclass(frozen=True)
class TokenNetwork(ModelSpec):
    """The mean over the rows of an image of act(norm(linear(row))), of rows that are bright enough."""

    def build(self, norm, shape, classes):
        return TokenNet(norm, shape[0] * shape[2], classes)


class TokenNet(nn.Module):
    def __init__(self, norm: NormSpec, features: int, classes: int):
        super().__init__()
        self.hidden1 = nn.Linear(features, 16, bias=needs_bias(norm))
        self.norm = norm.build(16, "tokens")
        self.act = nn.GELU()
        self.out = classifier(16, classes)

    def forward(self, x):
        rows = x.transpose(1, 2).flatten(2)
        present = rows.mean(-1) > -0.3
        hidden = self.act(self.norm(self.hidden1(rows), present)) * present.unsqueeze(-1)
        return self.out(hidden.sum(1) / present.sum(1, keepdim=True).clamp_min(1))


def runs(model: ModelSpec, norm: NormSpec, **changes) -> list[RunSpec]:
    kind = spec(model=model, norm=norm, probe={}, steps=30, **changes)
    return [kind, replace(kind, seed=1, lr=2 * kind.lr)]


def assert_engines_agree(specs, dataset, tolerance: float, **how) -> None:
    stack = start_stacked(specs, dataset, CPU, **how)
    stacked = train_all(stack)
    for run, one in enumerate(specs):
        alone = start_serial(one, dataset, CPU)
        assert_same_outcome(stacked[one.run_id], train_one(alone), max(tolerance, MEASURED))
        assert_same_state(stack.engine.state(run), alone.engine.state(0), tolerance)


@pytest.mark.parametrize("norm", NORMS)
def test_the_engines_agree_for_norms_of_tokens(norm, wide):
    assert_engines_agree(runs(TokenNetwork(), NORMS[norm]), wide, EXACT)


@pytest.mark.parametrize("norm", ["rms", "dyt", "batch, gamma"])
@pytest.mark.parametrize("model", MODELS)
def test_the_engines_agree_for_the_norms_of_transformers_and_kept_biases(model, norm, wide):
    assert_engines_agree(runs(MODELS[model], NORMS[norm]), wide, EXACT)


@pytest.mark.parametrize("model", [MODELS["mlp"], TokenNetwork()], ids=["mlp", "tokens"])
@pytest.mark.parametrize(
    ("norm", "numbers"),
    [
        (BatchNorm(gamma=0.5), {"gamma": 0.1, "eps": 0.5, "momentum": 0.9}),
        (LayerNorm(gamma=0.5), {"gamma": 0.1, "eps": 0.5}),
        (RMSNorm(gamma=0.5), {"gamma": 0.1, "eps": 0.5}),
        (DyT(gamma=0.5), {"gamma": 0.1, "alpha": 1.5}),
    ],
    ids=["batch", "layer", "rms", "dyt"],
)
def test_runs_of_a_stack_may_differ_in_the_numbers_of_their_norms(model, norm, numbers, wide):
    one = runs(replace(model, activation="gelu") if model is MODELS["mlp"] else model, norm)[0]
    specs = [one, *(replace(one, norm=replace(norm, **{name: value})) for name, value in numbers.items())]
    assert len({spec.stack_key for spec in specs}) == 1
    assert_engines_agree(specs, wide, ROUNDED, free=True)
    ends = {train_one(start_serial(spec, wide, CPU)).final["val_loss"] for spec in specs}
    assert len(ends) == len(specs)


def test_a_network_that_gives_a_norm_tokens_of_one_feature_is_refused():
    @dataclass(frozen=True)
    class OneFeature(ModelSpec):
        def build(self, norm, shape, classes):
            model = TokenNet(norm, shape[0] * shape[2], classes)
            model.hidden1, model.out = nn.Linear(shape[2], 1), classifier(1, classes)
            return model

    for norm in (LayerNorm(affine=False), RMSNorm(affine=False)):
        with pytest.raises(ConfigError, match="has a single value to normalize, which loses its size"):
            try_network(replace(spec_of(), model=OneFeature(), norm=norm), (1, 8, 8), 10)
    assert try_network(replace(spec_of(), model=TokenNetwork(), norm=LayerNorm()), (1, 8, 8), 10)


def test_the_network_of_these_tests_has_absent_tokens(few):
    rows = few.train.x.transpose(1, 2).flatten(2).mean(-1) > -0.3
    assert 0.1 < float(rows.float().mean()) < 0.9
