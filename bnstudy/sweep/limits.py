"""Refuse runs that this machine cannot hold, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from torch import nn
from torch.nn.modules import module as hooks

from bnstudy.models.base import ModelSpec
from bnstudy.run import RunSpec
from bnstudy.sweep.cost import NetworkCost, memory_bytes
from bnstudy.validation import ConfigError, gigabytes, machine_bytes, show

MAX_MODULES = 10_000
"""Layers and other modules of a network. Building so many takes about a second."""

LOSS_BYTES = 100
"""Memory for the loss of one step in the table of a run, at least."""

MEASUREMENT_BYTES = 500
"""Memory for one evaluation, or one measurement of a probe, at least."""


@contextmanager
def limit_network(model: ModelSpec) -> Iterator[None]:
    """Stop a network of this model that is built inside when it becomes too large.

    Raises:
        ConfigError: it has too many modules, or its parameters do not fit into the memory.
    """
    modules = parameters = 0
    most = max(machine_bytes(), memory_bytes("cuda")) // 4

    def count_module(*_: object) -> None:
        nonlocal modules
        modules += 1
        if modules > MAX_MODULES:
            raise ConfigError(f"{describe(model)} is not allowed: the network has more than {MAX_MODULES} modules.")

    def count_parameters(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters
        if parameter is not None and not nn.parameter.is_lazy(parameter):
            parameters += parameter.numel()
        if parameters > most:
            raise too_many_parameters(model, most)

    handles = [
        hooks.register_module_module_registration_hook(count_module),
        hooks.register_module_parameter_registration_hook(count_parameters),
    ]
    try:
        yield
    except RuntimeError as error:
        if "overflow" in str(error):  # a tensor of more bytes than torch can count
            raise too_many_parameters(model, most) from None
        raise
    finally:
        for handle in handles:
            handle.remove()


def too_many_parameters(model: ModelSpec, most: int) -> ConfigError:
    return ConfigError(f"{describe(model)} is not allowed: its parameters alone need more than {gigabytes(4 * most)}.")


def describe(model: ModelSpec) -> str:
    """`"model=MLP with depth=3, width=128"`: the sizes of a network."""
    sizes = {f.name: getattr(model, f.name) for f in fields(model)}
    numbers = [f"{name}={show(v)}" for name, v in sizes.items() if type(v) in (int, float) and v]
    return f"model={model.label}" + (f" with {', '.join(numbers)}" if numbers else "")


def check_memory(spec: RunSpec, steps: int, network: NetworkCost, device: str) -> None:
    """Refuse a run that does not fit into the memory of the device, or its record into that of the machine.

    The estimates are low, so that no run that fits is refused.

    Raises:
        ConfigError: it does not fit.
    """
    length = f"epochs={show(spec.epochs)}" if spec.steps is None else f"steps={spec.steps}"
    whens = {"evaluation": spec.evaluation.when, **{f"probe.{name}": probe.when for name, probe in spec.probe.items()}}
    most = {name: when.most(steps) for name, when in whens.items()}
    frequent = max(most, key=lambda name: most[name])
    slots = len(spec.optim.slots())
    needs = [
        (LOSS_BYTES * steps, "cpu", length, "the loss of each of its steps"),
        (
            MEASUREMENT_BYTES * most[frequent],
            "cpu",
            f"{length} with {frequent}.when",
            f"up to {most[frequent]} measurements",
        ),
        (4 * network.params * (2 + slots), device, describe(spec.model), "parameters, gradients and optimizer state"),
        (4 * network.units * spec.batch_size, device, f"batch_size={spec.batch_size}", "the outputs of all layers"),
    ]
    for need, where, setting, what in needs:
        if need > (room := memory_bytes(where)):
            owner = "this machine" if where == "cpu" else "the GPU"
            raise ConfigError(
                f"{setting} is not allowed: a run needs {gigabytes(need)} of memory for {what}; {owner} has "
                f"{gigabytes(room)}."
            )
