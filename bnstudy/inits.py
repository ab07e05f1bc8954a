"""Initialization schemes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bnstudy.models.structure import weight_layers
from bnstudy.norms.weight import ReparametrizedLayer
from bnstudy.rng import Seeded, stream
from bnstudy.validation import Spec


@dataclass(frozen=True)
class InitSpec(Spec):
    """The initial weights. `gain` multiplies the standard deviation of the scheme."""

    group: ClassVar[str] = "init"
    gain: float = 1.0

    def check(self) -> None:
        self.require(self.gain >= 0, "gain", "0 or more")

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill a weight matrix [out, in] or kernel [out, in, h, w] in place, without `gain`."""
        raise NotImplementedError

    def bias_(self, bias: Tensor, fan_in: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Fill the bias [out] of a layer whose units have `fan_in` inputs; with zeros by default."""
        bias.zero_()


@torch.no_grad()
def initialize(model: nn.Module, init: InitSpec, seed: int) -> None:
    """Fill the weights and biases of all weight layers and the keys of layers that draw noise, in place.

    Each tensor has its own random stream, named by its layer. Norms start at scale 1 and shift 0 and draw nothing, so
    arms that differ only in norms start with the same weights.
    """
    for name, layer in weight_layers(model).items():
        init.weight_(layer.weight, stream(seed, "init", f"{name}.weight"))
        layer.weight.mul_(init.gain)
        if layer.bias is not None:
            fan_in = layer.weight[0].numel()
            init.bias_(layer.bias, fan_in, stream(seed, "init", f"{name}.bias"))
        if isinstance(layer, ReparametrizedLayer):
            layer.start_()
    for name, module in model.named_modules():
        if isinstance(module, Seeded):
            module.seed_(stream(seed, "dropout", name))


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, ...]; a connection counts once for each position of the kernel."""
    receptive = weight[0][0].numel()
    return weight.shape[1] * receptive, weight.shape[0] * receptive


@dataclass(frozen=True)
class _Kaiming(InitSpec):
    """He et al. 2015: variance 2/fan, which keeps the second moment of ReLU activations (or of gradients)."""

    mode: Literal["fan_in", "fan_out"] = "fan_in"

    def std(self, weight: Tensor) -> float:
        return math.sqrt(2 / fans(weight)[self.mode == "fan_out"])


@dataclass(frozen=True)
class KaimingNormal(_Kaiming):
    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        weight.normal_(0, self.std(weight), generator=generator)


@dataclass(frozen=True)
class KaimingUniform(_Kaiming):
    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        uniform_(weight, self.std(weight), generator)


@dataclass(frozen=True)
class XavierNormal(InitSpec):
    """Glorot & Bengio 2010: variance 2/(fan_in + fan_out)."""

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        weight.normal_(0, math.sqrt(2 / sum(fans(weight))), generator=generator)


@dataclass(frozen=True)
class XavierUniform(InitSpec):
    """Glorot & Bengio 2010: variance 2/(fan_in + fan_out), uniform."""

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        uniform_(weight, math.sqrt(2 / sum(fans(weight))), generator)


@dataclass(frozen=True)
class LecunNormal(InitSpec):
    """LeCun et al. 1998: variance 1/fan_in."""

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        weight.normal_(0, math.sqrt(1 / fans(weight)[0]), generator=generator)


@dataclass(frozen=True)
class Orthogonal(InitSpec):
    """Saxe et al. 2014: a random (semi-)orthogonal matrix [out, in * positions]."""

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        nn.init.orthogonal_(weight, generator=generator)


@dataclass(frozen=True)
class Normal(InitSpec):
    """A Gaussian of the given standard deviation in every layer."""

    std: float = 0.01

    def check(self) -> None:
        super().check()
        self.require(self.std >= 0, "std", "0 or more")

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        weight.normal_(0, self.std, generator=generator)


@dataclass(frozen=True)
class TorchDefault(InitSpec):
    """The default of `nn.Linear` and `nn.Conv2d`: weights and biases uniform in +-1/sqrt(fan_in)."""

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        uniform_(weight, 1 / math.sqrt(3 * fans(weight)[0]), generator)

    def bias_(self, bias: Tensor, fan_in: int, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(fan_in)
        bias.uniform_(-bound, bound, generator=generator)


def uniform_(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with a uniform distribution of standard deviation `std`, which is on +-std*sqrt(3)."""
    bound = std * math.sqrt(3)
    weight.uniform_(-bound, bound, generator=generator)
