from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from bnstudy.norms import BatchNorm, FreeNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm, free_numbers
from bnstudy.spec import ConfigError, NormSpec
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


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm, InstanceNorm, GroupNorm])
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
    ],
)
def test_what_is_not_defined_is_refused(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()


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
        free_numbers(model)
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
    return [*outputs, *grads, *model.buffers()]


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
    return [*outputs, *grads, *buffers.values()]


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
    assert isinstance(free[0], FreeNorm)
    assert [n for n, _ in free.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert list(free.state_dict()) == list(theirs.state_dict())
    both = alone(free, batches(shape)), alone(theirs, batches(shape))
    for mine, other in zip(*both, strict=False):  # eps and momentum are buffers beyond theirs
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@every_norm
def test_stacked_runs_may_differ_in_eps_and_momentum(spec, shape):
    specs = [replaced(spec, 1e-5, 0.1), replaced(spec, 0.5, 0.9)]
    singles = [alone(model_with(s, shape), batches(shape)) for s in specs]
    stacked = together([model_with(s, shape, free=True) for s in specs], torch.stack([batches(shape)] * 2))
    assert not torch.allclose(stacked[0][0], stacked[0][1])
    for mine, theirs in zip(stacked, map(torch.stack, zip(*singles, strict=True)), strict=False):
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
    with pytest.raises(ConfigError, match="the same for all runs trained at once where the norm is a RMSNorm"):
        free_numbers(nn.Sequential(nn.RMSNorm(8, eps=1e-5)))
