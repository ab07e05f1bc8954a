"""The base classes of all normalizations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from bnstudy.validation import ADDED, PER_RUN, ConfigError, Spec

Module = TypeVar("Module", bound=nn.Module)

WeightLayer = nn.Linear | nn.Conv2d

Layout = Literal["units", "maps", "tokens"]
"""What a norm gets: units [B, C], feature maps [B, C, H, W], or tokens [B, T, C]."""


@dataclass(frozen=True)
class NormSpec(Spec):
    """A normalization. `build` makes its layer; the other methods have defaults that suit most norms.

    position: whether a hidden layer puts the norm before or after its activation. A norm does not read it.
    """

    group: ClassVar[str] = "norm"
    position: Literal["before", "after"] = "before"

    def build(self, channels: int, layout: Layout) -> nn.Module:
        """A layer for inputs of this layout with so many channels.

        It is called as layer(x). For tokens it is called as layer(x, present), where `present` [B, T] says which tokens
        an image has, or is None for all.

        Raises:
            ConfigError: the norm is not defined for such inputs.
        """
        raise NotImplementedError

    def build_steps(self, channels: int, steps: int, at_once: bool) -> nn.Module:  # noqa: ARG002
        """A layer for a network that reads sequences of up to so many steps.

        at_once: whether it gets the tokens of all steps at once, as that of `build`, or units [B, C] step by step. A
            norm with statistics of the batch then returns a `bnstudy.norms.steps.StepNorm`.

        Raises:
            ConfigError: the norm is not defined for such a network.
        """
        layer = self.build(channels, "tokens" if at_once else "units")
        if not at_once and len(layer.state_dict()) > len(list(layer.parameters())):
            raise ConfigError(
                f"The norm {self.label} is not allowed step by step in a recurrent network: it keeps statistics or "
                "other numbers from one call to the next; choose model.norm_path=input, or define build_steps in it."
            )
        return layer

    @property
    def keeps_bias(self) -> bool:
        """Whether a weight layer in front of the norm needs its bias; a norm with a shift makes it redundant."""
        return False

    @property
    def evaluates_by_batch(self) -> bool:
        """Whether evaluation uses statistics of the batch, so that its results depend on the size of the batch."""
        return False

    def wrap(self, layer: WeightLayer) -> WeightLayer:
        """The layer that replaces a hidden weight layer, and keeps its weight and bias.

        A norm of weights returns a `bnstudy.norms.weight.ReparametrizedLayer`; the others return `layer` itself.
        """
        return layer

    def branch(self) -> nn.Module | None:
        """A module that the branch of a residual block passes through before the addition; None for no such module."""
        return None

    def check_batch(self, batch_size: int) -> None:
        """Raises ConfigError if the norm's statistics are not defined for this batch size in training."""

    def check_network(self, has_branches: bool) -> None:
        """Raises ConfigError if the norm does not fit a network with, or without, residual branches."""


@dataclass(frozen=True)
class NoActivationNorm(NormSpec):
    """A norm that leaves activations as they are: weight layers keep their biases, and `position` has no effect."""

    def canonical(self) -> Mapping[str, object]:
        return {"position": "before"}

    @property
    def keeps_bias(self) -> bool:
        return True

    def build(self, channels: int, layout: Layout) -> nn.Module:  # noqa: ARG002
        return Unchanged()


@dataclass(frozen=True)
class ScaledNorm(NormSpec):
    """A norm with a learned scale and shift per channel, or with a scale alone, if `affine`.

    affine: false for no scale and shift.
    gamma: the initial value of the scales; null for 1. Cooijmans et al. 2017 start recurrent networks with 0.1.
    """

    affine: bool = True
    gamma: float | None = field(default=None, metadata={**ADDED, **PER_RUN})

    def canonical(self) -> Mapping[str, object]:
        return {"gamma": None if self.gamma == 1 else self.gamma}

    def check(self) -> None:
        self.require(self.gamma is None or self.gamma > 0, "gamma", "a number above 0, or null for 1")
        if self.gamma is not None and not self.affine:
            raise ConfigError(
                f"norm.gamma={self.gamma:g} is not allowed with norm.affine=false, which leaves out the scale that it "
                "initializes; it must be null, or choose norm.affine=true."
            )

    @property
    def keeps_bias(self) -> bool:
        return True  # only the subtraction of a mean makes it redundant

    def start(self, layer: Module) -> Module:
        """The layer, whose scales now have their initial value."""
        if self.gamma is not None:
            nn.init.constant_(layer.get_parameter("weight"), self.gamma)
        return layer


@dataclass(frozen=True)
class AffineNorm(ScaledNorm):
    """A norm that subtracts a mean and divides by a standard deviation, before the learned scale and shift.

    eps: added to the variance.
    bias: true to keep the bias of the weight layer in front of the norm, which most such norms make redundant.
    """

    eps: float = field(default=1e-5, metadata=PER_RUN)
    bias: bool | None = field(default=None, metadata=ADDED)

    def canonical(self) -> Mapping[str, object]:
        """Behind an activation the norm leaves all biases as they are."""
        return {**super().canonical(), "bias": (self.bias and self.position == "before") or None}

    def check(self) -> None:
        super().check()
        self.require(self.eps > 0, "eps", "a number above 0")

    @property
    def keeps_bias(self) -> bool:
        return self.bias is True


class Norm(nn.Module):
    """The layer of a norm. Probes take no function that it calls for an activation of the network.

    tokens: whether inputs are [B, T, C], of which each token is normalized on its own; else they are [B, C, ...].
    """

    def __init__(self, tokens: bool = False) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The output in the format of `x`, computed at least in float32."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        out = self.normalize(wide.flatten(0, 1)).unflatten(0, x.shape[:2]) if self.tokens else self.normalize(wide)
        return out.to(x.dtype)

    def normalize(self, x: Tensor) -> Tensor:
        """The output for x [N, C, ...], of images or of tokens."""
        raise NotImplementedError

    def values_together(self, x: Tensor) -> int | None:  # noqa: ARG002
        """How many values of an image share a mean for inputs x; None for a norm that is not over features."""
        return None


class Unchanged(nn.Identity):
    """No norm."""

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return x


def scale_and_shift(x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """x [N, C, ...] times the scales [C] plus the shifts [C], if there are any."""
    x = x if weight is None else x * per_channel(weight, x)
    return x if bias is None else x + per_channel(bias, x)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] in a shape that broadcasts against `x` [B, C, ...]."""
    return values.view(-1, *[1] * (x.ndim - 2))
