"""Norms of tokens [B, T, C], with and without a mask of those that are present, against loops over the tokens."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from bnstudy.norms.base import NormSpec
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.dyt import DyT
from bnstudy.norms.explicit import ExplicitNorm, make_numbers_buffers
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.rms import RMSNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.norms.weight import WeightNorm
from bnstudy.rng import stream
from bnstudy.validation import ConfigError

B, T, C = 6, 5, 4
X = 2 * torch.randn(B, T, C, generator=torch.Generator().manual_seed(0)) + 0.7
LENGTHS = torch.tensor([5, 1, 3, 0, 2, 4])
PRESENT = torch.arange(T) < LENGTHS.unsqueeze(1)

OVER_THE_BATCH = [
    BatchNorm(),
    BatchNorm(affine=False),
    BatchNorm(momentum=None),
    BatchNorm(track_running_stats=False),
    BatchNorm(gamma=0.1),
    GhostBatchNorm(size=2),
    GhostBatchNorm(size=4, momentum=None),
    NoisyBatchNorm(),
]
PER_TOKEN = [LayerNorm(), LayerNorm(affine=False), GroupNorm(groups=2), RMSNorm(), RMSNorm(affine=False), DyT()]
every_norm = pytest.mark.parametrize("spec", OVER_THE_BATCH + PER_TOKEN, ids=repr)
over_the_batch = pytest.mark.parametrize("spec", OVER_THE_BATCH, ids=repr)


def layer_of(spec: NormSpec) -> nn.Module:
    """The norm of tokens, with a random scale and shift, and noise of seed 0."""
    layer = spec.build(C, layout="tokens")
    for i, parameter in enumerate(layer.parameters()):
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    if isinstance(spec, NoisyBatchNorm):
        layer[1].seed_(stream(0, "dropout", "norm"))
    return layer


def present_values(x: torch.Tensor, present: torch.Tensor, channel: int) -> list[float]:
    """The channel's values of all tokens that are present, image by image."""
    pairs = [(image, t) for image in range(len(x)) for t in range(x.shape[1]) if present[image, t]]
    return [float(x[image, t, channel]) for image, t in pairs]


def mean_and_variance(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / len(values)


@pytest.mark.parametrize("present", [None, PRESENT, torch.ones(B, T, dtype=torch.bool)])
def test_batch_statistics_are_those_of_a_loop_over_all_present_tokens(present):
    layer, mask = BatchNorm(momentum=0.3, eps=1e-3).build(C, layout="tokens"), present
    present = torch.ones(B, T, dtype=torch.bool) if present is None else present
    out = layer(X, mask)
    for channel in range(C):
        values = present_values(X, present, channel)
        mean, var = mean_and_variance(values)
        torch.testing.assert_close(out[..., channel], (X[..., channel] - mean) / (var + 1e-3) ** 0.5)
        assert float(layer.running_mean[channel]) == pytest.approx(0.3 * mean, rel=1e-5)
        unbiased = var * len(values) / (len(values) - 1)
        assert float(layer.running_var[channel]) == pytest.approx(0.7 + 0.3 * unbiased, rel=1e-5)
        assert [float(m[channel]) for m in layer.batch_moments(X, mask)] == pytest.approx([mean, var], rel=1e-5)
    assert layer.num_batches_tracked == 1


def test_batch_norm_of_tokens_is_torchs_with_the_channels_first():
    ours, theirs = BatchNorm().build(C, layout="tokens"), nn.BatchNorm1d(C)
    for _ in range(2):
        torch.testing.assert_close(ours(X), theirs(X.mT).mT)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(X, PRESENT), theirs.eval()(X.mT).mT)


def test_ghost_batches_are_parts_of_the_images_with_their_tokens():
    layer = GhostBatchNorm(size=2, momentum=0.3).build(C, layout="tokens")
    out, parts = layer(X, PRESENT), [slice(0, 2), slice(2, 4), slice(4, 6)]
    for channel in range(C):
        means, variances = [], []
        for part in parts:
            values = present_values(X[part], PRESENT[part], channel)
            mean, var = mean_and_variance(values)
            torch.testing.assert_close(out[part, :, channel], (X[part, :, channel] - mean) / (var + 1e-5) ** 0.5)
            means.append(mean)
            variances.append(var * len(values) / (len(values) - 1))
        assert float(layer.running_mean[channel]) == pytest.approx(0.3 * sum(means) / 3, rel=1e-5)
        assert float(layer.running_var[channel]) == pytest.approx(0.7 + 0.3 * sum(variances) / 3, rel=1e-5)


def test_a_ghost_batch_without_a_token_does_not_change_the_running_statistics():
    some = PRESENT.clone()
    some[2:4] = False
    ghost, rest = (GhostBatchNorm(size=2, momentum=0.3).build(C, layout="tokens") for _ in range(2))
    ghost(X, some)
    rest(X[[0, 1, 4, 5]], PRESENT[[0, 1, 4, 5]])
    torch.testing.assert_close(ghost.state_dict(), rest.state_dict())


@over_the_batch
def test_a_batch_without_a_token_breaks_nothing(spec):
    layer = layer_of(spec)
    before, x = copy.deepcopy(layer.state_dict()), X.clone().requires_grad_()
    out = layer(x, torch.zeros(B, T, dtype=torch.bool))
    [grad] = torch.autograd.grad(out.sum(), [x])
    assert out.isfinite().all()
    assert grad.isfinite().all()
    after = {name: value for name, value in layer.state_dict().items() if not name.endswith("count")}
    torch.testing.assert_close(after, {name: before[name] for name in after})
    layer(X, PRESENT)
    assert all(value.isfinite().all() for value in layer.state_dict().values())


@over_the_batch
def test_absent_tokens_have_no_influence_on_the_others(spec):
    """Neither on outputs, nor on gradients, nor on running statistics."""
    found = []
    for filling in (0.0, 1e6):
        layer, x = layer_of(spec), X.clone().masked_fill(~PRESENT.unsqueeze(-1), filling).requires_grad_()
        out = layer(x, PRESENT)[PRESENT]
        [grad] = torch.autograd.grad(out.pow(3).sum(), [x])
        assert grad[~PRESENT].abs().max() == 0
        found.append([out, grad, layer.state_dict()])
    torch.testing.assert_close(found[1], found[0])


@every_norm
def test_a_mask_of_all_tokens_changes_nothing(spec):
    masked, plain = layer_of(spec), layer_of(spec)
    torch.testing.assert_close(masked(X, torch.ones(B, T, dtype=torch.bool)), plain(X))
    torch.testing.assert_close(masked.state_dict(), plain.state_dict())


@pytest.mark.parametrize("spec", PER_TOKEN, ids=repr)
def test_each_token_is_normalized_as_the_units_of_a_fully_connected_layer(spec):
    layer, dense = layer_of(spec), spec.build(C, layout="units")
    dense.load_state_dict(layer.state_dict())
    expected = torch.stack([torch.stack([dense(token.unsqueeze(0))[0] for token in image]) for image in X])
    torch.testing.assert_close(layer(X, PRESENT), expected)


def test_the_noise_is_the_same_for_all_tokens_of_an_image():
    layer, plain = layer_of(NoisyBatchNorm(affine=False)), BatchNorm(affine=False).build(C, layout="tokens")
    noisy, quiet = layer(X, PRESENT), plain(X, PRESENT)
    scale = (noisy[:, 1:] - noisy[:, :1]) / (quiet[:, 1:] - quiet[:, :1])
    shift = noisy - scale[:, :1] * quiet
    torch.testing.assert_close(scale, scale[:, :1].expand_as(scale), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=1e-3, atol=1e-3)
    assert scale[:, 0].unique().numel() == B * C


@pytest.mark.parametrize("spec", [NoNorm(), WeightNorm(), SkipInit()])
def test_norms_that_leave_activations_as_they_are_take_a_mask(spec):
    layer = spec.build(C, layout="tokens")
    assert layer(X, PRESENT) is X
    assert layer(X) is X


@pytest.mark.parametrize(
    ("spec", "channels", "sentence"),
    [
        (InstanceNorm(), 4, "norm=instance is not allowed with tokens: .*; choose norm=layer"),
        (LayerNorm(), 1, "norm=layer is not allowed with a fully connected layer of one unit"),
        (RMSNorm(), 1, "norm=rms is not allowed with a fully connected layer of one unit"),
        (GroupNorm(groups=4), 4, "norm.groups=4 is not allowed: it must be less than the layer's 4 units"),
        (GroupNorm(groups=3), 4, "norm.groups=3 is not allowed: it must be a divisor"),
    ],
)
def test_norms_that_are_not_defined_for_tokens_are_refused(spec, channels, sentence):
    with pytest.raises(ConfigError, match=sentence):
        spec.build(channels, layout="tokens")


def train_alone(layer: nn.Module, steps: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of training on a batch a step, of evaluation on the last, gradients of a loss, and buffers."""
    layer.train()
    outputs = [layer(x, mask) for x, mask in zip(steps, present, strict=True)]
    outputs.append(layer.eval()(steps[-1], present[-1]))
    loss = sum(out.pow(3).sum() for out in outputs)
    return [*outputs, *torch.autograd.grad(loss, [steps, *layer.parameters()]), *layer.buffers()]


def train_stacked(layers: list[nn.Module], steps: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
    """`train_alone` of many runs at once; each tensor has a leading axis for the run."""
    params, buffers = stack_module_state(layers)
    skeleton = copy.deepcopy(layers[0]).train()
    run = vmap(lambda p, b, x, mask: functional_call(skeleton, (p, b), (x, mask)))
    outputs = [run(params, buffers, steps[:, t], present[:, t]) for t in range(steps.shape[1])]
    skeleton.eval()
    outputs.append(run(params, buffers, steps[:, -1], present[:, -1]))
    loss = sum(out.pow(3).sum() for out in outputs)
    return [*outputs, *torch.autograd.grad(loss, [steps, *params.values()]), *buffers.values()]


@pytest.fixture
def batches() -> tuple[torch.Tensor, torch.Tensor]:
    """Of two runs three batches each, and which of their tokens are present."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, B, T, C, generator=generator) * torch.tensor([1.0, 3.0, 0.2]).view(3, 1, 1, 1) + 0.7
    return x.requires_grad_(), torch.rand(2, 3, B, T, generator=generator) < 0.7


@every_norm
def test_stacked_runs_on_tokens_equal_serial_runs(spec, batches):
    alone = [train_alone(layer_of(spec), *of_run) for of_run in zip(batches[0].unbind(), batches[1], strict=True)]
    stacked = train_stacked([layer_of(spec), layer_of(spec)], *batches)
    for ours, theirs in zip(stacked, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-4)


NUMBERS = {"eps": (1e-5, 0.5), "momentum": (0.1, 0.9), "gamma": (0.1, 2.0), "alpha": (0.5, 2.0), "shift": (0.5, 1.5)}


def numbers_of(spec: NormSpec) -> list[str]:
    """The names of the norm's numbers that have an effect."""
    left_out = {"gamma"} if not spec.affine else set()
    left_out |= (
        {"momentum"} if not getattr(spec, "track_running_stats", True) or not getattr(spec, "momentum", None) else set()
    )
    return [name for name in NUMBERS if hasattr(spec, name) and name not in left_out]


@pytest.mark.parametrize(
    ("spec", "number"), [(spec, number) for spec in OVER_THE_BATCH + PER_TOKEN for number in numbers_of(spec)], ids=repr
)
def test_stacked_runs_on_tokens_may_differ_in_the_numbers_of_the_norm(spec, number, batches):
    layers = [layer_of(replace(spec, **{number: value})) for value in NUMBERS[number]]
    alone = [
        train_alone(copy.deepcopy(norm), batches[0][0].detach().requires_grad_(), batches[1][0]) for norm in layers
    ]
    for layer in layers:
        make_numbers_buffers(nn.Sequential(layer))
    stacked = train_stacked(layers, *(t[:1].expand(2, *t.shape[1:]) for t in batches))
    assert not all(torch.allclose(a, b) for a, b in (t.unbind() for t in stacked))
    for ours, theirs in zip(stacked, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-4)


def test_a_copy_for_probes_does_not_track():
    layer = BatchNorm().build(C, layout="tokens")
    assert isinstance(layer, ExplicitNorm)
    layer.tracks = False
    layer(X, PRESENT)
    assert layer.num_batches_tracked == 0
    assert layer.running_mean.abs().max() == 0


@every_norm
def test_statistics_of_tokens_are_in_float32_under_autocast(spec):
    """The output differs from that in float64 by its own rounding to bf16 alone."""
    spec = replace(spec, shift=0, scale=1, jitter=0) if isinstance(spec, NoisyBatchNorm) else spec
    x, norm = (X + 30).bfloat16(), layer_of(spec)
    wide = copy.deepcopy(norm).double()
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x, PRESENT)
    torch.testing.assert_close(out.double(), wide(x.double(), PRESENT), rtol=2**-8, atol=1e-3)
