"""A run's network with its initial weights."""

from __future__ import annotations

from torch import nn

from bnstudy.data.dataset import Dataset
from bnstudy.inits import initialize
from bnstudy.models.structure import check_norm_has_effect, check_norm_is_trainable, has_branches, norm_parameters
from bnstudy.run import RunSpec


def build_model(spec: RunSpec, dataset: Dataset) -> nn.Module:
    """Build the run's network with its initial weights, on the CPU."""
    model = network_of(spec, dataset.shape, dataset.classes)
    initialize(model, spec.init, spec.seed)
    return model


def network_of(spec: RunSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the run's network without drawing its initial weights.

    Raises:
        ConfigError: the images, the network, its norm and the parameters to train do not fit together.
    """
    model = spec.model.build(spec.norm, shape, classes)
    spec.norm.check_network(has_branches(model))
    check_norm_has_effect(spec.norm, model)
    if spec.trained == "norm":
        check_norm_is_trainable(model)
    return model


def trained_mask(spec: RunSpec, model: nn.Module) -> list[bool]:
    """Whether training changes each parameter, in their order. A network may freeze some by `requires_grad=False`."""
    named = dict(model.named_parameters())
    chosen = set(named) if spec.trained == "all" else norm_parameters(model)
    return [name in chosen and p.requires_grad for name, p in named.items()]
