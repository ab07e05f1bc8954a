"""A run's network with its initial weights."""

from __future__ import annotations

import torch
from torch import nn

from bnstudy.data.dataset import Dataset
from bnstudy.inits import initialize
from bnstudy.models.attention import make_attention_explicit
from bnstudy.models.construction import construct_under, materialize
from bnstudy.models.module import Module
from bnstudy.models.seeded_dropout import seed_dropout
from bnstudy.models.structure import (
    check_norm_has_effect,
    check_norm_is_trainable,
    hand_written_norm,
    has_branches,
    norm_parameters,
    weight_layers,
)
from bnstudy.models.trial import refuse_memory
from bnstudy.norms.explicit import tensors_to_buffers
from bnstudy.norms.keep import KeepNorm
from bnstudy.run import RunSpec
from bnstudy.validation import ConfigError, show


def build_model(spec: RunSpec, dataset: Dataset) -> nn.Module:
    """Build the run's network with its initial weights, on the CPU."""
    model = network_of(spec, dataset.shape, dataset.classes)
    initialize(model, spec.init, spec.seed)
    return model


def network_of(spec: RunSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the run's network with the weights that its constructor gives it, drawn under the run's seed.

    Raises:
        ConfigError: the images, the network, its norm and the parameters to train do not fit together.
    """
    check_parts(spec)
    torch.backends.mha.set_fastpath_enabled(False)  # torch's own rounds differently, and only in evaluation
    with construct_under(spec.seed):
        model = spec.model.build(spec.norm, shape, classes)
        materialize(model, shape)
    tensors_to_buffers(model)
    make_attention_explicit(model)
    if is_of_users(spec):
        seed_dropout(model, shape, f"model={spec.model.label}")
        refuse_memory(model, shape, f"model={spec.model.label}")
    spec.norm.check_network(has_branches(model))
    check_norm_has_effect(spec.norm, model)
    if spec.trained == "hidden" and len(weight_layers(model)) < 2:
        raise ConfigError(
            "trained=hidden is not allowed with this network: it has no layer of weights before its last one; it must "
            "be all, or choose a network with hidden layers."
        )
    if spec.trained == "norm":
        check_norm_is_trainable(model, hand_written_norm(model, shape) if is_of_users(spec) else "")
    return model


def check_parts(spec: RunSpec) -> None:
    """Raises ConfigError for parts of a plain module where there is none, or that contradict each other."""
    if not isinstance(spec.model, Module):
        if isinstance(spec.norm, KeepNorm):
            raise ConfigError(
                f"norm=keep is not allowed with model={spec.model.label}, which has no norms of its own; it is for "
                "model=module. Choose another norm, such as norm=batch."
            )
    elif spec.model.weights is not None and spec.init.draws:
        raise ConfigError(
            f"model.weights={show(spec.model.weights)} is not allowed with init={spec.init.label}, which would draw "
            "other weights: type init=keep."
        )


def is_of_users(spec: RunSpec) -> bool:
    """Whether the network may have dropout, attention and norms of any kind; those of built-in networks are known."""
    is_built_in = type(spec.model).__module__.startswith("bnstudy.") and not isinstance(spec.model, Module)
    return not is_built_in and torch.get_default_device().type != "meta"


def trained_mask(spec: RunSpec, model: nn.Module) -> list[bool]:
    """Whether training changes each parameter, in their order. A network may freeze some by `requires_grad=False`."""
    named = dict(model.named_parameters())
    match spec.trained:
        case "all":
            chosen = {*named}
        case "norm":
            chosen = norm_parameters(model)
        case "hidden":
            chosen = {*named} - last_layer(model)
    return [name in chosen and p.requires_grad for name, p in named.items()]


def last_layer(model: nn.Module) -> set[str]:
    """The names of the parameters of the last weight layer, in the order in which the network lists them."""
    name = [*weight_layers(model)][-1]
    return {f"{name}.{parameter}" for parameter, _ in model.get_submodule(name).named_parameters()}
