from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from bnstudy.norms.base import NormSpec
from bnstudy.norms.batch import BatchNorm, GhostBatchNorm, NoisyBatchNorm
from bnstudy.norms.explicit import ExplicitNorm, make_numbers_buffers
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.validation import ConfigError

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


def model_with(spec: NormSpec, shape: tuple[int, ...], explicit: bool = False) -> nn.Module:
    """A model of the norm only, with a random scale and shift."""
    model = nn.Sequential(spec.build(8, layout="maps" if len(shape) == 4 else "units"))
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.5 * torch.randn(8, generator=torch.Generator().manual_seed(i))
    if explicit:
        make_numbers_buffers(model)
    return model


def batches(shape: tuple[int, ...]) -> torch.Tensor:
    """Three batches with different means and scales."""
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    return (x * torch.tensor([1.0, 3.0, 0.2]).view(3, *[1] * len(shape)) + 0.7).requires_grad_()


def run_serial(model: nn.Module, steps: torch.Tensor) -> list[torch.Tensor]:
    """Train on a batch a step and evaluate on the last: all outputs, gradients of a loss with respect to inputs and
    parameters, and buffers."""
    model.train()
    outputs = [model(x) for x in steps]
    outputs.append(model.eval()(steps[-1]))
    loss = sum(out.pow(3).sum() for out in outputs)
    grads = torch.autograd.grad(loss, [steps, *model.parameters()])
    return [*outputs, *grads, *persistent(model, dict(model.named_buffers()))]


def run_stacked(models: list[nn.Module], steps_by_run: torch.Tensor) -> list[torch.Tensor]:
    """`run_serial` of many runs at once; every tensor has a leading axis for the run."""
    params, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).train()
    run = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)))
    outputs = [run(params, buffers, steps_by_run[:, t]) for t in range(steps_by_run.shape[1])]
    skeleton.eval()
    outputs.append(run(params, buffers, steps_by_run[:, -1]))
    loss = sum(out.pow(3).sum() for out in outputs)
    grads = torch.autograd.grad(loss, [steps_by_run, *params.values()])
    return [*outputs, *grads, *persistent(skeleton, buffers)]


def persistent(model: nn.Module, buffers: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The buffers in the state_dict: without eps, momentum and other numbers, which not all models have as buffers."""
    return [b for name, b in buffers.items() if name in model.state_dict()]


def assert_all_close(tensors, expected) -> None:
    for tensor, other in zip(tensors, expected, strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-4)


@every_norm
def test_stacked_runs_equal_serial_runs(spec, shape):
    by_run = torch.stack([batches(shape).flip(0), batches(shape)])
    serial = [run_serial(model_with(spec, shape), x) for x in by_run.detach().requires_grad_().unbind()]
    stacked = run_stacked([model_with(spec, shape) for _ in by_run], by_run)
    assert_all_close(stacked, map(torch.stack, zip(*serial, strict=True)))


@every_norm
def test_an_explicit_norm_equals_that_of_torch(spec, shape):
    explicit, theirs = model_with(spec, shape, explicit=True), model_with(spec, shape)
    assert any(isinstance(module, ExplicitNorm) for module in explicit.modules())
    assert [n for n, _ in explicit.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert list(explicit.state_dict()) == list(theirs.state_dict())
    assert_all_close(run_serial(explicit, batches(shape)), run_serial(theirs, batches(shape)))


@every_norm
def test_stacked_runs_may_differ_in_eps_and_momentum(spec, shape):
    numbers = ("eps", "momentum") if getattr(spec, "momentum", None) else ("eps",)
    specs = [replace(spec, **dict(zip(numbers, values, strict=False))) for values in ((1e-5, 0.1), (0.5, 0.9))]
    serial = [run_serial(model_with(s, shape), batches(shape)) for s in specs]
    stacked = run_stacked([model_with(s, shape, explicit=True) for s in specs], torch.stack([batches(shape)] * 2))
    assert not torch.allclose(stacked[0][0], stacked[0][1])
    assert_all_close(stacked, map(torch.stack, zip(*serial, strict=True)))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_ghost_batch_norm_with_the_size_of_the_batch_is_batch_norm(shape, momentum):
    ghost = run_serial(model_with(GhostBatchNorm(size=6, momentum=momentum), shape), batches(shape))
    whole = run_serial(model_with(BatchNorm(momentum=momentum), shape), batches(shape))
    assert_all_close(ghost, whole)


def test_eps_and_momentum_are_buffers_outside_the_state_dict():
    model = model_with(BatchNorm(), (6, 8), explicit=True)
    names = {name for name, _ in model.named_buffers()}
    assert names - set(model.state_dict()) == {"0.eps", "0.momentum"}


@every_norm
@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("mean", [0.3, 30.0])
def test_statistics_are_in_float32_under_autocast(spec, shape, explicit, mean):
    """The output differs from that in float64 by its own rounding to bf16 alone."""
    x = (mean + torch.randn(64, *shape[1:], generator=torch.Generator().manual_seed(0))).bfloat16()
    norm = model_with(without_noise(spec), shape, explicit)
    wide = copy.deepcopy(norm).double()
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    torch.testing.assert_close(out.double(), wide(x.double()), rtol=2**-8, atol=1e-3)
    tracked = [(name, b) for name, b in norm.named_buffers() if "running" in name]
    assert all(torch.allclose(b.double(), wide.get_buffer(name), rtol=1e-5) for name, b in tracked)


def without_noise(spec: NormSpec) -> NormSpec:
    return replace(spec, shift=0, scale=1, jitter=0) if isinstance(spec, NoisyBatchNorm) else spec


def test_numbers_of_an_unknown_norm_are_refused():
    with pytest.raises(ConfigError, match="the same for all runs of a stack if the norm is a RMSNorm"):
        make_numbers_buffers(nn.Sequential(nn.RMSNorm(8, eps=1e-5)))
