from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from bnstudy.inits import initialize
from bnstudy.models.mlp import MLP
from bnstudy.models.structure import weight_layers
from bnstudy.norms.base import NormSpec
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.explicit import ExplicitNorm, make_numbers_buffers
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.weight import ReparametrizedLayer, WeightNorm
from bnstudy.rng import stream, uniform
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


def test_no_norm_changes_nothing():
    assert torch.equal(NoNorm().build(8, spatial=True)(X), X)


def test_batch_norm_in_training_is_the_formula():
    mean, var = X.mean((0, 2, 3), keepdim=True), X.var((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(BatchNorm(eps=1e-3).build(8, spatial=True)(X), (X - mean) / (var + 1e-3).sqrt())


def test_running_statistics_move_by_momentum_with_the_unbiased_variance():
    layer = BatchNorm(momentum=0.3).build(8, spatial=True)
    layer(X)
    torch.testing.assert_close(layer.running_mean, 0.3 * X.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, 0.7 + 0.3 * X.var((0, 2, 3)))


def test_without_running_statistics_evaluation_uses_the_batch():
    layer = BatchNorm(track_running_stats=False).build(8, spatial=True)
    torch.testing.assert_close(layer.eval()(X), layer.train()(X))


def test_batch_norm_of_two_maps_a_unit_to_plus_and_minus_one():
    out = BatchNorm(eps=1e-12).build(3, spatial=False)(torch.tensor([[1.0, 5.0, -2.0], [3.0, 4.0, 7.0]]))
    torch.testing.assert_close(out, torch.tensor([[-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]))


def test_batch_norm_ignores_the_scale_of_its_input():
    layer = BatchNorm(eps=1e-12).build(8, spatial=True)
    torch.testing.assert_close(layer(7.5 * X), layer(X))


def test_layer_norm_is_over_all_features_of_a_sample():
    torch.testing.assert_close(LayerNorm().build(8, spatial=True)(X), F.layer_norm(X, X.shape[1:]))
    flat = X[:, :, 0, 0]
    torch.testing.assert_close(LayerNorm().build(8, spatial=False)(flat), F.layer_norm(flat, (8,)))


def test_group_norm_lies_between_layer_and_instance_norm():
    torch.testing.assert_close(GroupNorm(groups=1).build(8, spatial=True)(X), LayerNorm().build(8, spatial=True)(X))
    torch.testing.assert_close(GroupNorm(groups=8).build(8, spatial=True)(X), InstanceNorm().build(8, spatial=True)(X))


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm, InstanceNorm, GroupNorm, GhostBatchNorm, NoisyBatchNorm])
def test_affine_is_a_scale_and_shift_per_channel(norm):
    assert [p.shape for p in norm().build(8, spatial=True).parameters()] == [(8,), (8,)]
    assert list(norm(affine=False).build(8, spatial=True).parameters()) == []


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
def test_what_is_not_defined_is_refused(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()


# ------------------------------------------------------------------------------------------- ghost batches


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5, 5)])
def test_ghost_batches_are_normalized_one_by_one(shape):
    x, layer = torch.randn(shape), GhostBatchNorm(size=2).build(8, spatial=len(shape) == 4)
    parts = [nn.functional.batch_norm(part, None, None, training=True) for part in x.split(2)]
    torch.testing.assert_close(layer(x), torch.cat(parts))


def test_running_statistics_move_once_a_batch_to_the_average_of_its_parts():
    layer = GhostBatchNorm(size=3, momentum=0.3).build(8, spatial=True)
    layer(X)
    means, variances = ([f(part, (0, 2, 3)) for part in X.split(3)] for f in (torch.mean, torch.var))
    torch.testing.assert_close(layer.running_mean, 0.3 * (means[0] + means[1]) / 2)
    torch.testing.assert_close(layer.running_var, 0.7 + 0.3 * (variances[0] + variances[1]) / 2)
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5, 5)])
def test_a_ghost_batch_as_large_as_the_batch_is_the_batch(shape, momentum):
    ghost = alone(model_with(GhostBatchNorm(size=6, momentum=momentum), shape), batches(shape))
    whole = alone(model_with(BatchNorm(momentum=momentum), shape), batches(shape))
    for mine, theirs in zip(ghost, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("samples", "parts"), [(7, [4, 3]), (11, [4, 4, 3]), (5, [5]), (2, [2]), (6, [3, 3])])
def test_what_does_not_divide_into_ghost_batches_is_cut_as_evenly_as_can_be(samples, parts):
    x = torch.randn(samples, 8)
    layer = GhostBatchNorm(size=3, track_running_stats=False).build(8, spatial=False).eval()
    expected = [nn.functional.batch_norm(part, None, None, training=True) for part in x.split(parts)]
    torch.testing.assert_close(layer(x), torch.cat(expected))


# ------------------------------------------------------------------------------------------- noise


def noisy(spec: NoisyBatchNorm, spatial: bool = True, seed: int = 0) -> nn.Module:
    layer = spec.build(8, spatial)
    layer[1].seed_(stream(seed, "dropout", "hidden1"))
    return layer


def test_the_noise_is_that_of_a_loop_over_units_and_samples():
    spec = NoisyBatchNorm(shift=0.5, scale=1.25, jitter=0.1)
    layer, plain = noisy(spec), BatchNorm().build(8, spatial=True)
    for update in range(2):
        drawn = uniform(layer[1].key, torch.tensor(update), torch.Size((2 + 3 * 6, 8))).double()
        expected = plain(X).detach()
        for unit in range(8):
            mean, scale = 0.5 * (2 * drawn[0, unit] - 1), 1 + 0.25 * drawn[1, unit]
            for sample in range(6):
                u, v, w = (drawn[2 + 6 * i + sample, unit] for i in range(3))
                gauss = (-2 * (1 - v).log()).sqrt() * (2 * torch.pi * w).cos()
                expected[sample, unit] *= scale + 0.1 * gauss
                expected[sample, unit] += mean + 0.1 * (2 * u - 1)
        torch.testing.assert_close(layer(X), expected)


def test_the_noise_has_the_distribution_that_it_is_said_to_have():
    """Of many units one sample, then of one unit many samples."""
    unsteady = NoisyBatchNorm().build(1, spatial=False)[1]
    shift, scale = unsteady.draw_shift_and_scale(1, 40_000)
    assert float(shift.mean()) == pytest.approx(0, abs=0.01)
    assert float(shift.var()) == pytest.approx((1 + 0.2**2) / 12, rel=0.05)
    assert float(scale.mean()) == pytest.approx(1.125, abs=0.01)
    assert float(scale.var()) == pytest.approx(0.25**2 / 12 + 0.1**2, rel=0.05)
    shift, scale = unsteady.draw_shift_and_scale(40_000, 1)
    assert abs(float(shift.mean())) < 0.5
    assert float(shift.var()) == pytest.approx(0.2**2 / 12, rel=0.05)
    assert float(scale.var()) == pytest.approx(0.1**2, rel=0.05)
    centred = (scale - scale.mean()) / scale.std()
    assert float((centred**4).mean()) == pytest.approx(3, abs=0.2)  # of a normal distribution


def test_each_update_and_seed_has_noise_of_its_own_and_evaluation_has_none():
    layer, other = noisy(NoisyBatchNorm()), noisy(NoisyBatchNorm(), seed=1)
    first, second = layer(X), layer(X)
    assert not torch.allclose(first, second, atol=0.1)
    assert not torch.allclose(first, other(X), atol=0.1)
    assert torch.equal(layer.eval()(X), layer[0].eval()(X))
    assert layer[1].count == 2


def test_without_shift_scale_and_jitter_noisy_batch_norm_is_batch_norm():
    quiet = noisy(NoisyBatchNorm(shift=0, scale=1, jitter=0))
    torch.testing.assert_close(quiet(X), BatchNorm().build(8, spatial=True)(X))


# ------------------------------------------------------------------------------------------- weights

LAYERS = [nn.Linear(6, 8), nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(6, 8, bias=False)]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_weight_norm_is_torchs(layer):
    ours, theirs = WeightNorm().wrap(layer), copy.deepcopy(layer)
    ours.load_state_dict({**ours.state_dict(), **layer.state_dict()})
    ours.start_()
    nn.utils.parametrizations.weight_norm(theirs)
    g, v = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    factors = torch.linspace(0.5, 2, 8).view(g.shape)
    with torch.no_grad():
        for scale in (ours.g, g):
            scale.mul_(factors)
    x = torch.randn(4, 6) if isinstance(layer, nn.Linear) else torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    mine = torch.autograd.grad(ours(x).pow(3).sum(), [ours.g, ours.weight])
    other = torch.autograd.grad(theirs(x).pow(3).sum(), [g, v])
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert abs((mine[1] * ours.weight).sum()) < 1e-3 * mine[1].norm() * ours.weight.norm()


def built(norm: str, *overrides: str) -> nn.Module:
    spec = spec_of(f"norm={norm}", *overrides)
    model = spec.model.build(spec.norm, (1, 8, 8), 10)
    initialize(model, spec.init, 3)
    return model


@pytest.mark.parametrize("init", ["kaiming_normal", "torch_default", "orthogonal"])
@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_with_weight_norm_a_network_begins_as_the_one_without(model, init):
    x = torch.randn(4, 1, 8, 8)
    plain, normed = (built(norm, f"model={model}", f"init={init}") for norm in ("none", "weight"))
    assert torch.equal(normed(x), plain(x))
    assert list(weight_layers(normed)) == list(weight_layers(plain))
    own = dict(normed.named_parameters())
    assert all(torch.equal(p, own[name]) for name, p in plain.named_parameters())
    hidden = [name for name in weight_layers(plain) if name != "out"]
    assert own.keys() - dict(plain.named_parameters()).keys() == {f"{name}.weight.g" for name in hidden}


def test_weight_norm_does_not_depend_on_the_length_of_v_and_stands_zero():
    layer = WeightNorm().wrap(nn.Linear(6, 8))
    x, before = torch.randn(4, 6), layer.effective_weight().detach()
    with torch.no_grad():
        layer.weight.mul_(7.5)
    torch.testing.assert_close(layer.effective_weight(), before)
    zero = built("weight", "init.gain=0")
    out = zero(torch.randn(4, 1, 8, 8))
    assert out.abs().max() == 0
    grads = torch.autograd.grad(out.sum(), list(zero.parameters()))
    assert all(g.isfinite().all() for g in grads)
    assert layer(x).isfinite().all()


class UnitRows(ReparametrizedLayer, nn.Linear):
    """Weights of length 1 for each unit."""

    def effective_weight(self):
        return F.normalize(self.weight, dim=1)

    def forward(self, x):
        return F.linear(x, self.effective_weight(), self.bias)


@dataclass(frozen=True)
class UnitNorm(NormSpec):
    """A norm of weights from elsewhere."""

    def wrap(self, layer):
        return UnitRows(layer.in_features, layer.out_features, layer.bias is not None)

    def build(self, channels, spatial):  # noqa: ARG002
        return nn.Identity()


def test_a_norm_of_weights_may_come_from_elsewhere():
    model = MLP(depth=1, width=8).build(UnitNorm(), (1, 1, 6), 3)
    initialize(model, spec_of().init, 0)
    x = torch.randn(4, 1, 1, 6)
    v = model.hidden1.weight.weight
    hidden = (x.flatten(1) @ (v / v.norm(dim=1, keepdim=True)).T).relu()
    torch.testing.assert_close(model(x), model.out(hidden))
    assert list(weight_layers(model)) == ["hidden1", "out"]
    assert model.hidden1.weight.bias is None


def test_weight_norm_has_no_position_and_is_not_none():
    assert WeightNorm(position="after") == WeightNorm()
    assert WeightNorm().keeps_bias
    assert not WeightNorm().is_none
    assert isinstance(WeightNorm().build(8, spatial=True), nn.Identity)


# ------------------------------------------------------------------------------------ several runs at once, vmapped

NORMS = [
    BatchNorm(),
    BatchNorm(affine=False),
    BatchNorm(momentum=None),
    BatchNorm(track_running_stats=False),
    BatchNorm(track_running_stats=False, momentum=None),
    LayerNorm(),
    LayerNorm(affine=False),
    InstanceNorm(),
    GroupNorm(groups=2),
    GhostBatchNorm(size=2),
    GhostBatchNorm(size=4, affine=False, momentum=None),
    NoisyBatchNorm(),
]
SHAPES = [(6, 8), (6, 8, 5, 5)]
CASES = [(n, shape) for n in NORMS for shape in SHAPES if len(shape) == 4 or not isinstance(n, InstanceNorm)]
every_norm = pytest.mark.parametrize(("spec", "shape"), CASES, ids=repr)


def model_with(spec: NormSpec, shape: tuple[int, ...], free: bool = False) -> nn.Module:
    """The norm alone, with a scale and shift that are not those of the start."""
    model = nn.Sequential(spec.build(8, spatial=len(shape) == 4))
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.5 * torch.randn(8, generator=torch.Generator().manual_seed(i))
    if free:
        make_numbers_buffers(model)
    return model


def batches(shape: tuple[int, ...]) -> torch.Tensor:
    """Three batches, each with a mean and scale of its own."""
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    return (x * torch.tensor([1.0, 3.0, 0.2]).view(3, *[1] * len(shape)) + 0.7).requires_grad_()


def alone(model: nn.Module, steps: torch.Tensor) -> list[torch.Tensor]:
    """All that a model makes of a batch per training step, then of the last one in evaluation: outputs, gradients of
    a loss with respect to inputs and parameters, buffers."""
    model.train()
    outputs = [model(x) for x in steps]
    outputs.append(model.eval()(steps[-1]))
    loss = sum(out.pow(3).sum() for out in outputs)
    grads = torch.autograd.grad(loss, [steps, *model.parameters()])
    return [*outputs, *grads, *saved(model, dict(model.named_buffers()))]


def together(models: list[nn.Module], steps_by_run: torch.Tensor) -> list[torch.Tensor]:
    """The same of many runs at once; everything has a leading axis for the run."""
    params, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).train()
    run = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)))
    outputs = [run(params, buffers, steps_by_run[:, t]) for t in range(steps_by_run.shape[1])]
    skeleton.eval()
    outputs.append(run(params, buffers, steps_by_run[:, -1]))
    loss = sum(out.pow(3).sum() for out in outputs)
    grads = torch.autograd.grad(loss, [steps_by_run, *params.values()])
    return [*outputs, *grads, *saved(skeleton, buffers)]


def saved(model: nn.Module, buffers: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Those that are saved: not eps, momentum and other numbers, which are buffers only here and there."""
    return [b for name, b in buffers.items() if name in model.state_dict()]


@every_norm
def test_runs_under_vmap_are_the_runs_alone(spec, shape):
    by_run = torch.stack([batches(shape).flip(0), batches(shape)])
    singles = [alone(model_with(spec, shape), x) for x in by_run.detach().requires_grad_().unbind()]
    stacked = together([model_with(spec, shape) for _ in by_run], by_run)
    for mine, theirs in zip(stacked, map(torch.stack, zip(*singles, strict=True)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@every_norm
def test_a_norm_with_free_numbers_is_torchs(spec, shape):
    free = model_with(spec, shape, free=True)
    theirs = model_with(spec, shape)
    assert any(isinstance(module, ExplicitNorm) for module in free.modules())
    assert [n for n, _ in free.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert list(free.state_dict()) == list(theirs.state_dict())
    both = alone(free, batches(shape)), alone(theirs, batches(shape))
    for mine, other in zip(*both, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@every_norm
def test_stacked_runs_may_differ_in_eps_and_momentum(spec, shape):
    specs = [replaced(spec, 1e-5, 0.1), replaced(spec, 0.5, 0.9)]
    singles = [alone(model_with(s, shape), batches(shape)) for s in specs]
    stacked = together([model_with(s, shape, free=True) for s in specs], torch.stack([batches(shape)] * 2))
    assert not torch.allclose(stacked[0][0], stacked[0][1])
    for mine, theirs in zip(stacked, map(torch.stack, zip(*singles, strict=True)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def replaced(spec: NormSpec, eps: float, momentum: float) -> NormSpec:
    changes = {"eps": eps}
    if getattr(spec, "momentum", None) is not None:
        changes["momentum"] = momentum
    return replace(spec, **changes)


def test_without_a_momentum_running_statistics_are_the_average_over_all_updates():
    ours, theirs = BatchNorm(momentum=None).build(8, spatial=True), nn.BatchNorm2d(8, momentum=None)
    for x in batches((6, 8, 5, 5)):
        ours(x), theirs(x)
    means = batches((6, 8, 5, 5)).detach().mean((1, 3, 4))
    torch.testing.assert_close(ours.running_mean, means.mean(0))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == 3
    torch.testing.assert_close(ours.eval()(X), theirs.eval()(X))


def test_free_numbers_are_no_part_of_what_is_saved():
    model = model_with(BatchNorm(), (6, 8), free=True)
    names = {name for name, _ in model.named_buffers()}
    assert names - set(model.state_dict()) == {"0.eps", "0.momentum"}


def test_half_precision_is_normalized_in_float32():
    x = 300 + torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    out = model_with(BatchNorm(affine=False), (64, 8), free=True)(x.bfloat16())
    assert out.dtype == torch.bfloat16
    expected = F.batch_norm(x.bfloat16().float(), None, None, training=True)
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-2)


def test_the_numbers_of_an_unknown_norm_are_not_guessed_at():
    with pytest.raises(ConfigError, match="the same for all runs of a stack if the norm is a RMSNorm"):
        make_numbers_buffers(nn.Sequential(nn.RMSNorm(8, eps=1e-5)))
