from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bnstudy.inits import Keep, fans, initialize, name_others
from bnstudy.models.structure import weight_layers
from bnstudy.train.build import network_of
from bnstudy.validation import ConfigError
from tests.conftest import spec_of


def initialized(*overrides: str, norm: str = "none", seed: int = 0) -> nn.Module:
    spec = spec_of(f"norm={norm}", *overrides)
    model = spec.model.build(spec.norm, (1, 28, 28), 10)
    initialize(model, spec.init, seed)
    return model


@pytest.mark.parametrize(
    ("scheme", "variance"),
    [
        ("kaiming_normal", lambda n_in, n_out: 2 / n_in),
        ("kaiming_uniform", lambda n_in, n_out: 2 / n_in),
        ("xavier_normal", lambda n_in, n_out: 2 / (n_in + n_out)),
        ("xavier_uniform", lambda n_in, n_out: 2 / (n_in + n_out)),
        ("lecun_normal", lambda n_in, n_out: 1 / n_in),
        ("torch_default", lambda n_in, n_out: 1 / (3 * n_in)),
        ("normal", lambda n_in, n_out: 0.01**2),
    ],
)
def test_the_variance_of_weights_is_that_of_the_scheme(scheme, variance):
    for layer in weight_layers(initialized(f"init={scheme}", "model.width=300")).values():
        n_out, n_in = layer.weight.shape
        expected = math.sqrt(variance(n_in, n_out))
        assert layer.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(layer.weight.numel()))


def test_uniform_schemes_stay_within_their_bound():
    weight = initialized("init=kaiming_uniform").hidden1.weight.weight
    assert weight.abs().max() <= math.sqrt(6 / 784)


def test_fan_out_counts_outputs():
    weight = torch.empty(16, 3, 3, 3)
    assert fans(weight) == (27, 144)
    conv = initialized("init=kaiming_normal", "init.mode=fan_out", "model=vgg").conv1.weight
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.3)


def test_orthogonal_rows_are_orthonormal():
    weight = initialized("init=orthogonal").hidden1.weight.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(128), atol=1e-5, rtol=0)


def test_convolutions_and_other_layers_may_have_schemes_of_their_own():
    own = initialized("init=by_kind", "init@init.conv=orthogonal", "init@init.dense=torch_default", "model=vgg")
    for scheme, layer in (("orthogonal", "conv2"), ("torch_default", "out")):
        alone = initialized(f"init={scheme}", "model=vgg")
        assert torch.equal(getattr(own, layer).weight.weight, getattr(alone, layer).weight.weight)


@pytest.mark.parametrize("wrong", ["init.gain=2", "init@init.conv=keep", "init@init.dense=by_kind"])
def test_schemes_by_kind_draw_weights_and_have_their_own_gain(wrong):
    with pytest.raises(ConfigError, match="is not allowed: it must be"):
        spec_of("init=by_kind", wrong)


def test_the_gain_multiplies_the_weights():
    base, scaled = (initialized(f"init.gain={gain}").hidden1.weight.weight for gain in (1, 3))
    torch.testing.assert_close(scaled, 3 * base)


def test_biases_are_zero_except_with_torch_default():
    assert initialized("init=kaiming_normal").hidden1.weight.bias.abs().max() == 0
    bias = initialized("init=torch_default").hidden1.weight.bias
    assert 0 < bias.abs().max() <= 1 / math.sqrt(784)


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_arms_of_a_seed_share_identical_weights(model, norm):
    plain, normalized = (weight_layers(initialized(f"model={model}", norm=n, seed=3)) for n in ("none", norm))
    assert list(plain) == list(normalized)
    for name, layer in plain.items():
        assert torch.equal(layer.weight, normalized[name].weight)


def test_initial_weights_never_change_between_releases():
    """Otherwise the run_ids of stored runs would stand for other trainings."""
    weight = initialized("init=kaiming_normal", seed=5).out.weight.weight
    assert weight[0, :3].tolist() == pytest.approx([-0.0492826, 0.1038932, 0.0175903], rel=1e-4)


def test_seeds_give_different_weights():
    first, second = (initialized(seed=seed).out.weight.weight for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_layers_weights_do_not_depend_on_the_other_layers():
    shallow, deep = (initialized(f"model.depth={depth}").hidden1.weight.weight for depth in (1, 4))
    assert torch.equal(shallow, deep)


RECURRENT = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}


def drawn(model: nn.Module, scheme: str, seed: int = 0) -> nn.Module:
    initialize(model, spec_of(f"init={scheme}").init, seed)
    return model


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("is_cell", [False, True])
def test_schemes_fill_recurrent_weights_gate_by_gate(kind, is_cell):
    layer = drawn(getattr(nn, f"{kind.__name__}Cell")(3, 5) if is_cell else kind(3, 5), "orthogonal")
    weights = {name: p for name, p in layer.named_parameters() if "weight" in name}
    assert len(weights) == 2
    for name, weight in weights.items():
        gates = weight.detach().view(RECURRENT[kind], 5, -1)
        for gate in gates:
            square = gate @ gate.T if "hh" in name else gate.T @ gate
            torch.testing.assert_close(square, torch.eye(len(square)), atol=1e-5, rtol=0)
        assert len({float(gate[0, 0]) for gate in gates}) == len(gates)
    assert all(not p.any() for name, p in layer.named_parameters() if "bias" in name)


def test_schemes_fill_the_projections_of_attention_one_by_one():
    attention = drawn(nn.MultiheadAttention(8, 2), "orthogonal")
    for matrix in (*attention.in_proj_weight.view(3, 8, 8), attention.out_proj.weight):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv1d(40, 60, 3), 120),
        (nn.Conv3d(10, 60, 3), 270),
        (nn.ConvTranspose2d(40, 60, 3), 360),
        (nn.ConvTranspose2d(40, 60, 3, groups=4), 90),
    ],
)
def test_schemes_fill_convolutions_of_all_kinds(layer, fan_in):
    weight = drawn(layer, "lecun_normal").weight.detach()
    assert float(weight.std()) == pytest.approx(fan_in**-0.5, rel=5 / math.sqrt(weight.numel()))


class WithPosition(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.LayerNorm(4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
        self.pos_embedding = nn.Parameter(torch.randn(2, 4))


def test_what_a_scheme_does_not_cover_stays_and_is_named_once(caplog):
    model = WithPosition()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    name_others.cache_clear()
    for _ in range(2):
        drawn(model, "kaiming_normal")
    [message] = caplog.messages
    assert message == (
        "init=KaimingNormal does not cover pos_embedding, 2.bias, 2.parametrizations.weight.original0, "
        "2.parametrizations.weight.original1: they keep the network's own initial values, drawn under the seed."
    )
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"0.weight", "0.bias"}


def test_keep_draws_nothing():
    model = WithPosition()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    initialize(model, Keep(), 0)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_arms_that_keep_the_networks_own_weights_share_them(model):
    arms = [network_of(spec_of(f"model={model}", "init=keep", f"norm={n}"), (1, 16, 16), 10) for n in NORMS_OF_ARMS]
    plain, *others = ({n: m.weight for n, m in weight_layers(arm).items()} for arm in arms)
    for other in others:
        assert all(torch.equal(weight, other[name]) for name, weight in plain.items())


NORMS_OF_ARMS = ("none", "batch", "weight")
