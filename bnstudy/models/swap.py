"""Puts norms in the place of a plain module's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.overrides import TorchFunctionMode

from bnstudy.models.activations import kind_of, name_of
from bnstudy.models.flow import NORM_FUNCTIONS, PRODUCTS, RESHAPES, SUMS
from bnstudy.models.structure import hand_written_norm
from bnstudy.models.trial import trial
from bnstudy.norms.base import Layout, NoActivationNorm, NormSpec
from bnstudy.norms.none import NoNorm
from bnstudy.validation import ConfigError

BY_CHANNEL = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
"""Norms whose channels are dimension 1 of their input."""

BY_FEATURE = (nn.LayerNorm, nn.RMSNorm)
"""Norms over the last dimensions of their input, `normalized_shape`."""

NORMS = (*BY_CHANNEL, *BY_FEATURE)


@dataclass(eq=False)
class Place:
    """A norm of the module, and how it is used.

    paths: its names in the module; several if it is shared.
    shapes: those of its input, in a pass of two images and one of three.
    has_bias: whether the input is a sum that has a learned bias already.
    weights: the weights of the layers whose output it normalizes directly; None for any other input.
    """

    norm: nn.Module
    paths: list[str]
    shapes: dict[int, torch.Size] = field(default_factory=dict)
    has_bias: bool = True
    weights: set[Tensor | None] = field(default_factory=set)

    @property
    def channel(self) -> int:
        """The dimension of the channels.

        Raises:
            ConfigError: it cannot be told.
        """
        shape, over = self.shapes[2], self.features
        if is_torchs(self.norm):
            if isinstance(self.norm, BY_CHANNEL) or (len(over) == 3 and len(shape) == 4):
                return 1
            if len(over) == 1:
                return len(shape) - 1
        elif len(over) == 1:  # a class derived from torch's may move the dimensions of its input
            same = {d for d in (1, len(shape) - 1) if shape[d] == over[0]}
            if len(same) == 1:
                return same.pop()
        raise ConfigError(
            f"The norm {self.paths[0]}, a {type(self.norm).__name__} over {list(over)}, cannot be replaced: its input "
            f"{list(shape)} does not say which dimension are the channels; choose norm=keep."
        )

    @property
    def features(self) -> tuple[int, ...]:
        """The channels, or the sizes of the dimensions that the norm is over."""
        norm: Any = self.norm
        if isinstance(norm, BY_FEATURE):
            return tuple(norm.normalized_shape)
        return (norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features,)

    @property
    def batch(self) -> int:
        """The dimension of the images."""
        changes = [i for i, (two, three) in enumerate(zip(self.shapes[2], self.shapes[3], strict=True)) if two != three]
        return changes[0] if changes else 0

    @property
    def layout(self) -> Layout:
        dims = len(self.shapes[2])
        return "units" if dims == 2 else "maps" if self.channel == 1 else "tokens"

    @property
    def has_shift(self) -> bool:
        return getattr(self.norm, "bias", None) is not None


def swap_norms(model: nn.Module, norm: NormSpec, shape: tuple[int, int, int], name: str) -> None:
    """Replace each batch, layer, group, instance and RMS norm of a plain module by `norm`, over the same features.

    Where a norm that needs a bias in front takes the place of one with a shift, a learned bias stays, unless the input
    has a bias already.

    name: of the module, for messages.

    Raises:
        ConfigError: a norm cannot be replaced, or there is none and `norm` is not norm=none.
    """
    if type(norm).branch is not NormSpec.branch:
        raise ConfigError(
            f"norm={norm.label} is not allowed with model=module, whose residual branches are not known; choose "
            "model=resnet, or norm=none."
        )
    places = find_norms(model, shape, name)
    if not places and not isinstance(norm, NoNorm):
        raise ConfigError(
            f"norm={norm.label} is not allowed with {name}: it has no batch, layer, group, instance or RMS norm that "
            "this one could replace, so all norms would give the same network; choose norm=keep."
        )
    if type(norm).wrap is not NormSpec.wrap:
        wrap_layers(model, places, norm)
    for place in places:
        new = replacement(place, norm)
        for path in place.paths:
            model.set_submodule(path, new)


def replacement(place: Place, norm: NormSpec) -> nn.Module:
    """The module that takes the norm's place."""
    shape, channel = place.shapes[2], place.channel
    needs_bias = norm.keeps_bias and place.has_shift and not place.has_bias
    bias = Shift(shape[channel], len(shape) - channel - 1) if needs_bias else None
    if isinstance(norm, NoActivationNorm):
        return bias or nn.Identity()
    new = norm.build(shape[channel], place.layout)
    usual = {"units": (2, 1), "maps": (4, 1), "tokens": (3, 2)}[place.layout]
    if place.batch != 0 or (len(shape), channel) != usual:
        new = Rearranged(new, place)
    return nn.Sequential(bias, new) if bias else new


class Shift(nn.Module):
    """A learned bias for each channel.

    trailing: dimensions behind that of the channels.
    """

    def __init__(self, channels: int, trailing: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.trailing = trailing

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, *[1] * self.trailing)


class Rearranged(nn.Module):
    """A norm of maps [B, C, H, W] or tokens [B, T, C] for an input whose dimensions are in another order or number."""

    def __init__(self, norm: nn.Module, place: Place) -> None:
        super().__init__()
        self.norm = norm
        self.batch, self.channel, self.is_maps = place.batch, place.channel, place.layout == "maps"

    def forward(self, x: Tensor) -> Tensor:
        to = (0, 1) if self.is_maps else (0, x.ndim - 1)
        x = x.movedim((self.batch, self.channel), to)
        flat = x.flatten(2).unsqueeze(-1) if self.is_maps else x.flatten(1, -2)
        return self.norm(flat).reshape(x.shape).movedim(to, (self.batch, self.channel))


def wrap_layers(model: nn.Module, places: list[Place], norm: NormSpec) -> None:
    """Replace the weight layers in front of the norms by those that a norm of weights makes of them."""
    places_by_weight: dict[Tensor | None, Place] = {}
    for place in places:
        places_by_weight |= {weight: place for weight in place.weights if weight not in places_by_weight}
    for weight, place in places_by_weight.items():
        found = {
            path: layer
            for path, layer in model.named_modules(remove_duplicate=False)
            if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight is weight
        }
        layers = set(found.values())
        if not layers or not all(type(layer) in (nn.Linear, nn.Conv2d) for layer in layers):
            raise ConfigError(
                f"norm={norm.label} is not allowed with this module: it normalizes the weights of the layers in front "
                f"of the module's norms, and {place.paths[0]} does not directly follow an nn.Linear or nn.Conv2d; "
                "choose another norm."
            )
        if len(layers) > 1:
            raise ConfigError(
                f"norm={norm.label} is not allowed with this module: it normalizes weights, and "
                f"{' and '.join(found)} share theirs; choose another norm."
            )
        wrapped = norm.wrap(layers.pop())
        for path in found:
            model.set_submodule(path, wrapped)


def find_norms(model: nn.Module, shape: tuple[int, int, int], name: str) -> list[Place]:
    """The norms of a module that run in training, in its order.

    Raises:
        ConfigError: the module also normalizes by functions, which cannot be replaced.
    """
    places: dict[nn.Module, Place] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, NORMS):
            places.setdefault(module, Place(module, [])).paths.append(path)
    trace = Trace()

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        trace.depth += 1
        place, x = places[module], inputs[0]
        if place.shapes.setdefault(images, x.shape) != x.shape:
            raise ConfigError(
                f"The norm {place.paths[0]} cannot be replaced: it gets inputs of several shapes, "
                f"{list(place.shapes[images])} and {list(x.shape)}; choose norm=keep."
            )
        origin = trace.origin(x)
        place.has_bias &= origin.has_bias
        place.weights.add(origin.weight)

    def leave(*_: Any) -> None:
        trace.depth -= 1

    hooks = [module.register_forward_pre_hook(enter) for module in places]
    hooks += [module.register_forward_hook(leave) for module in places]
    with trial(model):
        for images in (2, 3):
            trace = Trace()
            with trace:
                model(torch.zeros(images, *shape))
    for hook in hooks:
        hook.remove()
    for function, where in ((trace.normalizing, "itself"), (trace.activation, "inside a norm")):
        if function:
            raise ConfigError(
                f"{name} is not allowed with other norms than its own: it calls {function} {where}, which cannot be "
                "replaced; make this a module, or choose norm=keep."
            )
    by_hand = hand_written_norm(model, shape)
    if by_hand:
        raise ConfigError(
            f"{name} is not allowed with other norms than its own: {by_hand}, normalizes its input by code of its own, "
            "which cannot be replaced; make it one of torch's norms, or choose norm=keep."
        )
    return [place for place in places.values() if place.shapes]


def is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


@dataclass(frozen=True)
class Origin:
    """What is known of a tensor.

    has_bias: whether it is a sum that has a learned bias.
    weight: that of the layer whose output it is.
    """

    has_bias: bool = False
    weight: Tensor | None = None


UNKNOWN = Origin()

LAYERS = {name for name in PRODUCTS if name == "linear" or name.startswith("conv")}


class Trace(TorchFunctionMode):
    """Follows where tensors come from.

    depth: of the norms' forward passes that it is in.
    normalizing: a function that normalizes, called outside of these.
    activation: an activation that is called inside of these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.normalizing = self.activation = ""
        self._origins: dict[int, tuple[Tensor, Origin]] = {}  # holds the tensors, so that no id is used twice

    def origin(self, x: Tensor) -> Origin:
        if isinstance(x, nn.Parameter):
            return Origin(has_bias=True)
        return self._origins.get(id(x), (x, UNKNOWN))[1]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        origin = self._origin_of_output(name, args, kwargs)
        if name in NORM_FUNCTIONS - {"normalize"} and not self.depth:
            self.normalizing = f"F.{name}"
        if self.depth and kind_of(func, args, kwargs):
            self.activation = name
        out = func(*args, **kwargs)
        if isinstance(out, Tensor):  # which may be an input, changed in place
            self._origins[id(out)] = out, origin
        return out

    def _origin_of_output(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Origin:
        if name in LAYERS:
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            return Origin(bias is not None, args[1] if len(args) > 1 else kwargs["weight"])
        if name in NORM_FUNCTIONS:
            scale_and_shift = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, nn.Parameter)]
            return Origin(len(scale_and_shift) > 1 or self.origin(args[0]).has_bias)
        if name in SUMS:
            return Origin(any(self.origin(arg).has_bias for arg in args if isinstance(arg, Tensor)))
        return self.origin(args[0]) if name in RESHAPES and isinstance(args[0], Tensor) else UNKNOWN
