from __future__ import annotations

import pytest
import torch

from bnstudy.inits import initialize
from bnstudy.models.structure import weight_layers
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.dyt import DyT
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.rms import RMSNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.validation import ConfigError, to_dict
from tests.conftest import spec_of

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", [NoNorm, SkipInit, WeightNorm])
def test_norms_that_leave_activations_as_they_are_ignore_the_position_and_keep_biases(norm):
    assert norm(position="after") == norm()
    assert norm().keeps_bias
    assert torch.equal(norm().build(8, layout="maps")(X), X)


AFFINE = [BatchNorm, LayerNorm, InstanceNorm, GroupNorm, GhostBatchNorm, NoisyBatchNorm]


@pytest.mark.parametrize("norm", AFFINE)
def test_affine_norms_have_a_scale_and_shift_per_channel(norm):
    assert [p.shape for p in norm().build(8, layout="maps").parameters()] == [(8,), (8,)]
    assert list(norm(affine=False).build(8, layout="maps").parameters()) == []


@pytest.mark.parametrize("layout", ["units", "maps", "tokens"])
@pytest.mark.parametrize("norm", [*AFFINE, RMSNorm, DyT])
def test_gamma_is_the_initial_value_of_the_scales(norm, layout):
    if norm is InstanceNorm and layout != "maps":
        return
    small = {"groups": 2} if norm is GroupNorm else {}
    started, plain = (dict(norm(gamma=g, **small).build(8, layout).named_parameters()) for g in (0.1, None))
    assert started.keys() == plain.keys()
    for name, parameter in started.items():
        is_scale = name.rpartition(".")[2] == "weight"
        assert torch.equal(parameter, torch.full((8,), 0.1) if is_scale else plain[name])


@pytest.mark.parametrize("norm", [*AFFINE, RMSNorm, DyT])
def test_a_norm_with_the_usual_gamma_and_without_kept_biases_keeps_its_identity(norm):
    assert {"gamma", "bias"}.isdisjoint(to_dict(norm()))
    assert norm(gamma=1.0) == norm()
    assert to_dict(norm(gamma=0.1))["gamma"] == 0.1


@pytest.mark.parametrize("norm", AFFINE)
def test_a_key_keeps_the_biases_in_front_of_a_norm(norm):
    assert not norm().keeps_bias
    assert norm(bias=True).keeps_bias
    assert norm(bias=False) == norm()
    assert norm(bias=True, position="after") == norm(position="after")  # whose biases are not redundant


@pytest.mark.parametrize("model", ["model=mlp", "model=vgg", "model=resnet"])
def test_every_hidden_layer_keeps_its_bias_if_asked_to_and_the_bias_is_redundant(model):
    spec = spec_of(model, "norm=batch", "norm.bias=true")
    biased, plain = (spec.model.build(norm, (1, 8, 8), 10) for norm in (spec.norm, BatchNorm()))
    initialize(plain, spec.init, 0)
    initialize(biased, spec.init, 0)
    layers = weight_layers(biased)
    hidden = [name for name in layers if name != "out"]
    assert all(layers[name].bias is not None for name in hidden)
    assert all(weight_layers(plain)[name].bias is None for name in hidden)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in hidden:
        layers[name].bias.data += 0.7
    torch.testing.assert_close(biased(x), plain(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: GroupNorm(groups=3).build(8, True),
            r"norm.groups=3 .* a divisor of the layer's 8 channels \(1, 2, 4, 8\)",
        ),
        (lambda: GroupNorm(groups=8).build(8, False), "norm.groups=8 is not allowed"),
        (lambda: InstanceNorm().build(8, False), "norm=instance is not allowed with fully connected layers"),
        (lambda: spec_of("norm=batch", "batch_size=1"), "batch_size=1 is not allowed with norm=batch"),
        (lambda: BatchNorm(momentum=0), "norm.momentum=0 is not allowed"),
        (lambda: LayerNorm(eps=0), "norm.eps=0 is not allowed"),
        (lambda: RMSNorm(eps=0), "norm.eps=0 is not allowed"),
        (lambda: DyT(alpha=0), "norm.alpha=0 is not allowed: it must be a number above 0"),
        (lambda: BatchNorm(gamma=0), "norm.gamma=0 is not allowed: it must be a number above 0, or null for 1"),
        (lambda: DyT(gamma=0.1, affine=False), "norm.gamma=0.1 is not allowed with norm.affine=false"),
        (lambda: LayerNorm(bias="yes"), "norm.bias=yes is not allowed: it must be true or false"),
        (lambda: GhostBatchNorm(size=1), "norm.size=1 is not allowed: it must be at least 2"),
        (
            lambda: spec_of("norm=ghost", "batch_size=100"),
            "batch_size=100 is not allowed with norm=ghost and norm.size=16: it must be .* such as 96 or 112",
        ),
        (lambda: spec_of("norm=ghost", "batch_size=8"), "a multiple of norm.size, such as 16"),
        (lambda: spec_of("norm=noisy_batch", "batch_size=1"), "batch_size=1 is not allowed with norm=noisy_batch"),
        (lambda: NoisyBatchNorm(shift=-1), "norm.shift=-1 is not allowed: it must be 0 or more"),
        (lambda: NoisyBatchNorm(scale=0.5), "norm.scale=0.5 is not allowed: it must be at least 1"),
        (lambda: NoisyBatchNorm(jitter=-1), "norm.jitter=-1 is not allowed: it must be 0 or more"),
    ],
)
def test_values_and_inputs_for_which_a_norm_is_not_defined_are_refused(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()
