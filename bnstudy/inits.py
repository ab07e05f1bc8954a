"""Initialization schemes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bnstudy.norms.weight import ReparametrizedLayer
from bnstudy.rng import stream
from bnstudy.validation import ConfigError, Spec

log = logging.getLogger(__name__)

Kind = Literal["conv", "dense"]
"""Of a layer: a convolution, or any other."""


@dataclass(frozen=True)
class InitSpec(Spec):
    """The initial weights.

    gain: multiplies the standard deviation of the scheme.
    draws: whether it replaces the weights that the network's constructor drew.
    """

    group: ClassVar[str] = "init"
    draws: ClassVar[bool] = True
    gain: float = 1.0

    def check(self) -> None:
        self.require(self.gain >= 0, "gain", "0 or more")

    def of(self, kind: Kind) -> InitSpec:  # noqa: ARG002
        """The scheme for the layers of a kind."""
        return self

    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fill a weight matrix [out, in] or kernel [out, in, h, w] in place, without `gain`."""
        raise NotImplementedError

    def bias_(self, bias: Tensor, fan_in: int, generator: torch.Generator) -> None:  # noqa: ARG002
        """Fill the bias [out] of a layer whose units have `fan_in` inputs; with zeros by default."""
        bias.zero_()


@dataclass(frozen=True)
class Keep(InitSpec):
    """The initial weights that the network's constructor gives it, drawn under the run's seed."""

    draws: ClassVar[bool] = False

    def check(self) -> None:
        self.require(self.gain == 1, "gain", "1, as no scheme draws the weights")


@dataclass(frozen=True)
class ByKind(InitSpec):
    """One scheme for convolutions and another for all other layers, as in torchvision's VGG."""

    conv: InitSpec = field(kw_only=True)
    dense: InitSpec = field(kw_only=True)

    def check(self) -> None:
        self.require(self.gain == 1, "gain", "1: each scheme has its own gain")
        for name in ("conv", "dense"):
            scheme = getattr(self, name)
            if not scheme.draws or isinstance(scheme, ByKind):
                raise ConfigError(f"init.{name}={scheme.label} is not allowed: it must be a scheme that draws weights.")

    def of(self, kind: Kind) -> InitSpec:
        return self.conv if kind == "conv" else self.dense


@torch.no_grad()
def initialize(model: nn.Module, init: InitSpec, seed: int) -> None:
    """Fill the weights and biases of all weight layers and the keys of layers that draw noise, in place.

    Each tensor has its own random stream, named by its layer. Norms start at scale 1 and shift 0 and draw nothing, so
    arms that differ only in norms start with the same weights. Parameters that the scheme does not cover keep the
    values that the constructor gave them.
    """
    if init.draws:
        draw_weights_(model, init, seed)
    for module in model.modules():
        if isinstance(module, ReparametrizedLayer):
            module.start_()
    for name, module in model.named_modules():
        if hasattr(module, "seed_"):  # of `Seeded`, whose check by isinstance takes longer than all the draws
            module.seed_(stream(seed, "dropout", name))


def draw_weights_(model: nn.Module, init: InitSpec, seed: int) -> None:
    """Fill the weights that the scheme covers, and the biases beside them; name the others."""
    covered: set[nn.Parameter] = set()
    for part in covered_weights(model):
        scheme, generator = init.of(part.kind), stream(seed, "init", part.name)
        for weight in part.matrices():
            filled = (
                weight if weight.is_contiguous() else torch.empty_like(weight, memory_format=torch.contiguous_format)
            )
            scheme.weight_(filled, generator)
            weight.copy_(filled.mul_(scheme.gain))
        covered.add(part.weight)
        if part.bias is not None:
            fan_in = part.matrices()[0][0].numel()
            scheme.bias_(part.bias, fan_in, stream(seed, "init", part.bias_name))
            covered.add(part.bias)
    others = [name for name, p in model.named_parameters() if p not in covered and not is_constant(p)]
    if others:
        name_others(init.label, tuple(others))


def is_constant(p: Tensor) -> bool:
    """Whether all values are equal: the scale of a norm, or a bias of zeros."""
    return bool((p == p.flatten()[:1]).all())


@cache
def name_others(scheme: str, names: tuple[str, ...]) -> None:
    """Say once which parameters a scheme does not cover."""
    log.warning(
        "init=%s does not cover %s: %s the network's own initial values, drawn under the seed.",
        scheme,
        ", ".join(names),
        "it keeps" if len(names) == 1 else "they keep",
    )


@dataclass(frozen=True)
class Weights:
    """A weight that init schemes cover, with the bias beside it.

    name, bias_name: of their streams.
    kind: of their layer.
    parts: matrices of which the weight consists: the gates of a recurrent layer, the projections of attention.
    transposed: whether they are [in, out, ...], not [out, in, ...].
    """

    name: str
    weight: nn.Parameter
    bias_name: str
    bias: nn.Parameter | None
    kind: Kind
    parts: int = 1
    transposed: bool = False

    def matrices(self) -> list[Tensor]:
        """Views of the weight, [out, in, ...] each."""
        parts = self.weight.chunk(self.parts)
        return [part.transpose(0, 1) if self.transposed else part for part in parts]


TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d | TRANSPOSED
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


def covered_weights(model: nn.Module) -> Iterator[Weights]:
    """All weights that init schemes cover, in order of depth."""
    for path, module in model.named_modules():
        layer = path.removesuffix(".weight")
        for name, weight in module.named_parameters(recurse=False):
            parts = weight_parts(module, name)
            if parts:
                bias_name = name.replace("weight", "bias")
                bias = module._parameters.get(bias_name)
                kind: Kind = "conv" if isinstance(module, CONVOLUTIONS) else "dense"
                is_transposed = isinstance(module, TRANSPOSED)
                yield Weights(f"{layer}.{name}", weight, f"{layer}.{bias_name}", bias, kind, parts, is_transposed)


def weight_parts(module: nn.Module, name: str) -> int:
    """Of how many matrices a parameter of the module consists; 0 if schemes do not cover it."""
    match module:
        case nn.Linear() | nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return int(name == "weight")
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            return module.groups * (name == "weight")
        case nn.RNNBase():
            gates = 1 if name.startswith("weight_hr") else GATES[module.mode]
            return gates * name.startswith("weight_")
        case nn.RNNCellBase():
            return module.weight_ih.shape[0] // module.hidden_size * name.startswith("weight_")
        case nn.MultiheadAttention():
            return {"in_proj_weight": 3, "q_proj_weight": 1, "k_proj_weight": 1, "v_proj_weight": 1}.get(name, 0)
    return 0


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, ...]; a connection counts once for each position of the kernel."""
    receptive = weight[0][0].numel()
    return weight.shape[1] * receptive, weight.shape[0] * receptive


@dataclass(frozen=True)
class _Kaiming(InitSpec):
    """He et al. 2015: variance 2/fan, which keeps the second moment of ReLU activations (or of gradients).

    mode: fan_in keeps the moment of activations, fan_out that of gradients.
    """

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
    """A Gaussian of the same standard deviation in every layer.

    std: the standard deviation.
    """

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
