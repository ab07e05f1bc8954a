"""Forward passes that only find out what a network does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnstudy.norms.explicit import tensors_to_buffers
from bnstudy.validation import ConfigError


@contextmanager
def trial(model: nn.Module) -> Iterator[None]:
    """Let forward passes in training mode leave no trace in the network."""
    tensors_to_buffers(model)
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    with keep_buffers(model), torch.no_grad():
        model.train()
        yield
    for module, before in attributes:  # the mode, and what the module kept, such as its features
        vars(module).clear()
        vars(module).update(before)


@contextmanager
def keep_buffers(model: nn.Module) -> Iterator[None]:
    """Let forward passes change no buffer."""
    owned = [(m, name, b) for m in model.modules() for name, b in m._buffers.items() if b is not None]
    values = [b.clone() for _, _, b in owned]
    yield
    with torch.no_grad():
        for (module, name, buffer), value in zip(owned, values, strict=True):
            module._buffers[name] = buffer.copy_(value)  # the module may have assigned another tensor


def refuse_memory(model: nn.Module, shape: tuple[int, int, int], name: str) -> None:
    """Raises ConfigError if a forward pass depends on an earlier one by something that is not in a buffer.

    name: of the network, for messages.
    """
    images, others = torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(0))
    with trial(model):
        with keep_buffers(model):
            first = model(images)
        for batch in (others, images):
            with keep_buffers(model):
                last = model(batch)
    if isinstance(first, Tensor) and not torch.allclose(first, last, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ConfigError(
            f"{name} is not allowed: a forward pass depends on the one before it by an attribute that is no buffer, so "
            "that a run could not continue from a checkpoint; register_buffer makes it a part of the network's state."
        )
