"""Finds the parts of a network: its weight layers, residual branches and norm parameters."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.models.flow import cancels_scale, is_norm
from bnstudy.models.layers import NormAct, TokenNorm
from bnstudy.models.rnn import PathNorms
from bnstudy.models.trial import trial
from bnstudy.norms.base import Norm, NormSpec
from bnstudy.norms.weight import ReparametrizedLayer
from bnstudy.validation import ConfigError

PLACED_NORMS = (NormAct, TokenNorm, PathNorms)
"""The modules that hold norms, whatever their classes, and nothing else with parameters."""


def weight_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The fully connected and convolutional layers by name, in order of depth."""
    return {n.removesuffix(".weight"): m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def has_branches(model: nn.Module) -> bool:
    """Whether the network has residual branches."""
    return any(isinstance(module, NormAct | TokenNorm) and module.ends_branch for module in model.modules())


def norm_parameters(model: nn.Module) -> set[str]:
    """The names of the norm's parameters: scales, shifts, and those that it adds to weights and branches."""
    names: set[str] = set()
    for path, module in model.named_modules():
        if isinstance(module, PLACED_NORMS) or is_norm(module):
            names |= {f"{path}.{name}" for name, _ in module.named_parameters()}
        elif isinstance(module, ReparametrizedLayer):
            names |= {f"{path}.{name}" for name, _ in module.named_parameters() if name not in ("weight", "bias")}
    return names


def check_norm_has_effect(norm: NormSpec, model: nn.Module) -> None:
    """Raises ConfigError if the norm is one of weights and the network has no layer of it."""
    if type(norm).wrap is NormSpec.wrap or _is_linear(model):
        return
    if not any(isinstance(module, ReparametrizedLayer) for module in model.modules()):
        raise ConfigError(
            f"The norm {type(norm).__name__} is not allowed with this network: it normalizes weights, and would change "
            "none of the network's. Build its hidden layers with dense and conv of bnstudy.models.layers, or pass "
            "their weight layers to norm.wrap; or choose another norm, such as norm=batch."
        )


def refuse_single_values(norm: NormSpec, model: nn.Module) -> None:
    """Make the network raise ConfigError where a norm over the features of an image normalizes single values."""

    def check(path: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
        if values_together(module, inputs[0]) == 1:
            raise ConfigError(
                f"norm={norm.label} is not allowed with this network: in {path.partition('.norm_act')[0]} it has a "
                "single value to normalize, which loses its size; choose wider layers, larger images, or norm=batch."
            )

    for path, module in model.named_modules():
        if isinstance(module, FEATURE_NORMS):
            module.register_forward_pre_hook(partial(check, path))


FEATURE_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, Norm)


def values_together(module: nn.Module, x: Tensor) -> int | None:
    """How many values of an image share a mean; None if the module is no norm over the features of an image."""
    match module:
        case nn.LayerNorm():
            return math.prod(module.normalized_shape)
        case nn.GroupNorm():
            return x[0].numel() // module.num_groups
        case nn.InstanceNorm1d() | nn.InstanceNorm2d():
            return x[0].numel() // module.num_features
        case Norm():
            return module.values_together(x)
    return None


def hand_written_norm(model: nn.Module, shape: tuple[int, int, int]) -> str:
    """A norm of the network that someone wrote by hand, such as "norm1, a MyNorm"; "" if none is found."""
    found: list[str] = []

    def check(path: str, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(out, Tensor) and cancels_scale(module, inputs, out):
            found.append(f"{path}, a {type(module).__name__}")

    known = {part for module in model.modules() if isinstance(module, PLACED_NORMS) for part in module.modules()}
    hooks = [
        module.register_forward_hook(partial(check, path))
        for path, module in model.named_modules()
        if module not in known and not is_norm(module) and not any(module.children())
    ]
    with trial(model):
        model(torch.randn(32, *shape, generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    return found[0] if found else ""


def check_norm_is_trainable(model: nn.Module, by_hand: str) -> None:
    """Raises ConfigError if the norm has no parameters, or if `norm_parameters` does not find all.

    by_hand: one of the network's norms that someone wrote by hand; "" if there is none.
    """
    if by_hand:
        raise ConfigError(
            f"trained=norm is not allowed with this network: the parameters of {by_hand}, are not known as those of a "
            "norm; it must be all, or put the norm in a NormAct or TokenNorm of bnstudy.models.layers."
        )
    if norm_parameters(model):
        return
    known = (*PLACED_NORMS, ReparametrizedLayer)
    if _is_linear(model) or any(isinstance(module, known) or is_norm(module) for module in model.modules()):
        raise ConfigError(
            "trained=norm is not allowed if the norm has no parameters, as with norm=none or norm.affine=false; "
            "it must be all, or choose a norm with scales and shifts, such as norm=batch."
        )
    raise ConfigError(
        "trained=norm is not allowed with this network: it has no norm with parameters that is one of torch's, of "
        "bnstudy.norms, or in a NormAct or TokenNorm of bnstudy.models.layers; it must be all, or build the network "
        "of such layers."
    )


def _is_linear(model: nn.Module) -> bool:
    """Whether the classifier is the only layer, so that the network has nothing to normalize."""
    return len(weight_layers(model)) == 1
