"""Whether runs of a network can be trained at once: tried with two of them on a few images, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from bnstudy.models.functional import run_with
from bnstudy.run import RunSpec
from bnstudy.sweep.same_networks import Inputs
from bnstudy.train.build import is_of_users, network_of
from bnstudy.train.engine import training_loss
from bnstudy.train.program import NotRecorded, Program
from bnstudy.train.stacked import MIN_ROWS, prepare_norms
from bnstudy.validation import ConfigError

Tensors = dict[str, Tensor]

IMAGES = 4


def why_not_stacked(run: RunSpec, inputs: Inputs, norms_vary: bool) -> str:
    """Why the loss of two runs and its gradients cannot be computed at once; "" if they can."""
    return why_not(run, inputs, norms_vary, lambda function, *tensors: function(*tensors))


def why_not_compiled(run: RunSpec, inputs: Inputs, norms_vary: bool) -> str:
    """Why the step of a network that can be stacked cannot be compiled; "" if it can, as that of each built-in one."""
    return why_not(run, inputs, norms_vary, Program) if is_of_users(run) else ""


def why_not(run: RunSpec, inputs: Inputs, norms_vary: bool, evaluate: Callable[..., Any]) -> str:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try_step(run, inputs, norms_vary, evaluate)
    except (ConfigError, NotRecorded) as error:
        return str(error)
    except Exception as error:  # vmap fails in many ways
        return one_line(error)
    return ""


def try_step(run: RunSpec, inputs: Inputs, norms_vary: bool, evaluate: Callable[..., Any]) -> None:
    """Compute the losses of two runs, and their gradients, as a step of the stacked engine does."""
    network = network_of(run, inputs.shape, inputs.classes).train()
    prepare_norms(network, norms_vary)
    params = {n: torch.stack([p.detach()] * MIN_ROWS).requires_grad_() for n, p in network.named_parameters()}
    buffers = {name: torch.stack([buffer] * MIN_ROWS) for name, buffer in network.named_buffers()}

    def loss(params: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return training_loss(run, lambda images: run_with(network, {**params, **buffers}, images), x, y)

    def gradients(x: Tensor, y: Tensor) -> Any:
        losses = vmap(loss)(params, buffers, x, y)
        return torch.autograd.grad(losses.sum(), list(params.values()), materialize_grads=True)

    evaluate(gradients, torch.randn(MIN_ROWS, IMAGES, *inputs.shape), inputs.targets(MIN_ROWS, IMAGES))


def one_line(failure: Exception) -> str:
    """The type and the first line of the message: torch may add many."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__
