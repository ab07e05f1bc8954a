"""Whether runs of a network can be trained at once: tried with two of them on a few images, on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap

from bnstudy.models.functional import run_with
from bnstudy.run import RunSpec
from bnstudy.sweep.same_networks import Inputs
from bnstudy.train.build import network_of
from bnstudy.train.engine import training_loss
from bnstudy.train.stacked import MIN_ROWS, prepare_norms
from bnstudy.validation import ConfigError

Tensors = dict[str, Tensor]

IMAGES = 4


def why_not_stacked(run: RunSpec, inputs: Inputs, norms_vary: bool) -> str:
    """Why the loss of two runs and its gradients cannot be computed at once; "" if they can."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try_to_stack(run, inputs, norms_vary)
    except ConfigError as error:
        return str(error)
    except Exception as error:  # vmap fails in many ways
        return one_line(error)
    return ""


def try_to_stack(run: RunSpec, inputs: Inputs, norms_vary: bool) -> None:
    """Compute the losses of two runs, and their gradients, as a step of the stacked engine does."""
    network = network_of(run, inputs.shape, inputs.classes).train()
    prepare_norms(network, run, torch.device("cpu"), norms_vary, compiled=False)
    params = {n: torch.stack([p.detach()] * MIN_ROWS).requires_grad_() for n, p in network.named_parameters()}
    buffers = {name: torch.stack([buffer] * MIN_ROWS) for name, buffer in network.named_buffers()}
    x, y = torch.randn(MIN_ROWS, IMAGES, *inputs.shape), inputs.targets(MIN_ROWS, IMAGES)

    def loss(params: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return training_loss(run, lambda images: run_with(network, {**params, **buffers}, images), x, y)

    losses = vmap(loss)(params, buffers, x, y)
    torch.autograd.grad(losses.sum(), list(params.values()), allow_unused=True)


def one_line(failure: Exception) -> str:
    """The type and the first line of the message: torch may add many."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__
