"""Runs a network with other tensors in the place of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def run_with(model: nn.Module, tensors: dict[str, Tensor], x: Tensor) -> Any:
    """The output for x with these parameters and buffers, which are named as by `named_parameters`: once if tied.

    As `torch.func.functional_call`, which would leave its tensors in a module that has two names, such as `self.conv`
    and `self.layers[0]`. In `tensors`, too, a buffer to which the network assigns another is replaced by that one.
    """
    all_names = {**tensors, **{other: tensors[name] for other, name in tied(model) if name in tensors}}
    out = functional_call(model, all_names, (x,), tie_weights=False)
    tensors.update({name: all_names[name] for name in tensors})
    return out


def tied(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The other names of tensors that several modules share, each with the first name."""
    first: dict[Tensor, str] = {}
    for path, module in model.named_modules():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            name = f"{path}.{key}" if path else key
            if tensor is not None and first.setdefault(tensor, name) != name:
                yield name, first[tensor]
