"""Finds the parts of a network: its weight layers, residual branches and norm parameters."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn

from bnstudy.models.layers import NormAct, TokenNorm
from bnstudy.models.rnn import PathNorms
from bnstudy.norms.base import Norm, NormSpec
from bnstudy.norms.weight import ReparametrizedLayer
from bnstudy.validation import ConfigError


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
        if isinstance(module, NormAct | TokenNorm | PathNorms):
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


def check_norm_is_trainable(model: nn.Module) -> None:
    """Raises ConfigError if the norm has no parameters, or if `norm_parameters` cannot find them."""
    if norm_parameters(model):
        return
    kinds = (NormAct, TokenNorm, PathNorms, ReparametrizedLayer)
    if _is_linear(model) or any(isinstance(module, kinds) for module in model.modules()):
        raise ConfigError(
            "trained=norm is not allowed if the norm has no parameters, as with norm=none or norm.affine=false; "
            "it must be all, or choose a norm with scales and shifts, such as norm=batch."
        )
    raise ConfigError(
        "trained=norm is not allowed with this network: norm parameters are found only in the layers of "
        "bnstudy.models.layers (dense, conv, NormAct, TokenNorm), and the network has none of these; it must be all, "
        "or build the network of such layers."
    )


def _is_linear(model: nn.Module) -> bool:
    """Whether the classifier is the only layer, so that the network has nothing to normalize."""
    return len(weight_layers(model)) == 1
