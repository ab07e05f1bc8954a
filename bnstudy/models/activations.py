"""Activations as a network calls them: modules, functions and methods, in place or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary

from bnstudy.validation import ConfigError

RECTIFIERS = ("relu", "relu6")
"""Kinds whose outputs are 0 for all inputs below 0."""

KINDS = {
    **{name: name for name in ("relu", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish")},
    **{name: name for name in ("softplus", "softsign", "tanh", "sigmoid", "hardsigmoid", "hardswish", "hardshrink")},
    **{name: name for name in ("softshrink", "tanhshrink", "hardtanh", "threshold", "clamp")},
    "clamp_min": "clamp",
    "clip": "clamp",
    "expit": "sigmoid",
    "special_expit": "sigmoid",
    "linear_activation": "linear",
    "log_sigmoid": "logsigmoid",
    "logsigmoid": "logsigmoid",
    "relu6": "hardtanh",
}
"""Functions of torch by name. What the last three of the first group compute depends on their limits."""


def linear_activation(z: Tensor) -> Tensor:
    """a = z, as a function that probes see like those of torch."""
    if has_torch_function_unary(z):
        return handle_torch_function(linear_activation, (z,), z)
    return z


class LinearActivation(nn.Module):
    """a = z. Not an nn.Identity, which also stands for no norm."""

    def forward(self, z: Tensor) -> Tensor:
        return linear_activation(z)


@cache
def name_of(function: Callable[..., Any]) -> str:
    """The name of a function or method of torch, without the underscores of methods in place."""
    return str(getattr(function, "__name__", "")).strip("_")


def kind_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The kind of activation that this call computes; None if it computes none."""
    kind = KINDS.get(name_of(function))
    if kind not in ("clamp", "hardtanh", "threshold"):
        return kind
    low, high = (_argument(args, kwargs, at, *names) for at, names in enumerate(LIMITS, 1))
    if name_of(function) == "relu6" or (kind == "hardtanh" and _is_zero(low)):
        return "relu6"
    if kind == "clamp":
        return ("relu" if high is None else "relu6") if _is_zero(low) else None
    return "relu" if kind == "threshold" and _is_zero(low) and _is_zero(high) else kind


LIMITS = (("min", "min_val", "threshold"), ("max", "max_val", "value"))


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], at: int, *names: str) -> Any:
    return args[at] if len(args) > at else next((kwargs[name] for name in names if name in kwargs), None)


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def is_in_place(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the call overwrites its first argument."""
    name = str(getattr(function, "__name__", ""))
    by_name = (name.endswith("_") and not name.endswith("__")) or (name.startswith("__i") and name != "__invert__")
    return by_name or bool(kwargs.get("inplace")) or "out" in kwargs or any(a is True for a in args[1:])


@dataclass(frozen=True)
class Call:
    """One call of an activation in a forward pass.

    name: the layer whose output it gets; a second call behind the same layer has `.2` behind its name.
    kind: such as "relu"; "output" for the output of the network.
    channel, samples: the dimensions of its channels and of the samples.
    """

    name: str
    kind: str
    channel: int = 1
    samples: int = 0

    def arrange(self, x: Tensor) -> Tensor:
        """x with the samples first and the channels second: [N, units] or [N, channels, positions ...]."""
        if x.ndim == 1:
            return x.unsqueeze(1)
        if (self.samples, self.channel) == (0, 1):
            return x
        return x.movedim((self.samples, self.channel), (0, 1))


Keep = Callable[[Call, Tensor, Tensor], None]


class Taps(TorchFunctionMode):
    """Reads the inputs and outputs of activations while a network runs inside, also under vmap and vjp.

    Args:
        calls: those of the network in its present mode that `kind_of` knows, in order; None for one that is not read.
        keep: called with each call, its input z before any change in place, and its output.
        shifts: added to z, by name of the call.

    Raises:
        ConfigError: the network does not make these calls, and no others.
    """

    def __init__(self, calls: Sequence[Call | None], keep: Keep, shifts: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.calls, self.keep, self.shifts = calls, keep, shifts or {}
        self.count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func, args, kwargs)
        if kind is None:
            return func(*args, **kwargs)
        if self.count == len(self.calls):
            raise other_calls()
        call = self.calls[self.count]
        self.count += 1
        if call is None:
            return func(*args, **kwargs)
        if call.kind != kind:
            raise other_calls()
        name, rest = (None, args[1:]) if args else ("input", ())
        z, in_place = (args[0] if args else kwargs["input"]), is_in_place(func, args, kwargs)
        if call.name in self.shifts:
            shift = self.shifts[call.name]
            z = z.add_(shift) if in_place else z + shift
        kept = z.clone() if in_place else z
        a = func(z, *rest, **kwargs) if name is None else func(**{**kwargs, name: z})
        self.keep(call, kept, a)
        return a

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is None and self.count != len(self.calls):
            raise other_calls()


def other_calls() -> ConfigError:
    return ConfigError(
        "This network is not allowed with probes that read its activations: it does not call the same activations in "
        "each forward pass; choose probe=none, or remove dead_units, activations and backprop from the preset."
    )
