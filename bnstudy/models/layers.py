"""The parts that networks are made of.

A `Layer` is a weight layer with its norm and activation. Its path in the model ("hidden1", "stage1.block1.conv1") is
the layer's name in metrics and in the `init` stream, and does not depend on the norm.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bnstudy.models.activations import LinearActivation
from bnstudy.models.sequences import Present, normalize_tokens
from bnstudy.norms.base import Layout, NormSpec
from bnstudy.norms.steps import StepNorm
from bnstudy.rng import Noise

Addition = Literal["nowhere", "before_norm", "behind_norm"]
ActivationName = Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid", "linear"]


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "linear": LinearActivation,
}


class NormAct(nn.Module):
    """A norm and an activation, in the order of the norm's `position`.

    ends_branch: the branch of a residual block ends here; the norm may add a module to it.
    """

    def __init__(
        self, norm: NormSpec, channels: int, layout: Layout, activation: ActivationName, ends_branch: bool = False
    ) -> None:
        super().__init__()
        self.norm = norm.build(channels, layout)
        self.ends_branch = ends_branch
        self.branch = norm.branch() if ends_branch else None
        self.act = ACTIVATIONS[activation]()
        self.norm_first = norm.position == "before"

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Adds `shortcut`, that of a residual block, just before the activation."""
        x = self.norm(x) if self.norm_first else x
        x = self.act(x if shortcut is None else self.add(x, shortcut))
        return x if self.norm_first else self.norm(x)

    def add(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """The sum of a residual block's branch and its shortcut."""
        return (branch if self.branch is None else self.branch(branch)) + shortcut


class TokenNorm(nn.Module):
    """A norm of tokens [B, T, C].

    tokens: the largest T.
    ends_branch: a residual branch ends here, before or behind the norm; the norm may add a module to it.
    """

    def __init__(self, norm: NormSpec, channels: int, tokens: int, ends_branch: bool = False) -> None:
        super().__init__()
        self.norm = norm.build_steps(channels, tokens, at_once=True)
        self.ends_branch = ends_branch
        self.branch = norm.branch() if ends_branch else None

    def forward(self, x: Tensor, present: Present) -> Tensor:
        out = normalize_tokens(self.norm, x, present)
        if isinstance(self.norm, StepNorm):
            self.norm.update_(present.images)
        return out

    def add(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """The sum of a residual branch and its shortcut."""
        return (branch if self.branch is None else self.branch(branch)) + shortcut


class Layer(nn.Module):
    """A weight layer followed by its norm and activation, or by neither if it computes the logits.

    adds_first: whether a residual block adds its shortcut right behind the weight layer, before the norm.
    """

    def __init__(
        self, weight: nn.Linear | nn.Conv2d, norm_act: NormAct | None = None, adds_first: bool = False
    ) -> None:
        super().__init__()
        self.weight = weight
        self.norm_act = norm_act
        self.adds_first = adds_first

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        z = self.weight(x)
        return z if self.norm_act is None else self.norm_act(z, shortcut)

    def add_first(self, x: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """For a layer that `adds_first`: its output, and the sum before norm and activation."""
        assert self.norm_act is not None
        total = self.norm_act.add(self.weight(x), shortcut)
        return self.norm_act(total), total


class Dropout(Noise):
    """Srivastava et al. 2014: in training each value is 0 with probability p, and the others are divided by 1 - p.

    The noise is a function of the run's seed.
    """

    p: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(p), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = self.draw(*x.shape) >= self.p
        return x * (keep / (1 - self.p)).to(x.dtype)


class MaxPool(nn.MaxPool2d):
    """`nn.MaxPool2d`, on a CPU with the channels of a position side by side, which takes a third of the time."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        channels_last = ContiguousGradient.apply(x).movedim(1, -1).contiguous().movedim(-1, 1)
        return super().forward(channels_last).contiguous()


class ContiguousGradient(torch.autograd.Function):
    """The identity. Its gradient is laid out like a new tensor, as two tensors of different layouts take several times
    as long to combine."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        return grad.contiguous()


class GlobalAveragePool(nn.Module):
    """[B, C, H, W] -> [B, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def needs_bias(norm: NormSpec) -> bool:
    """Whether a hidden weight layer has a bias: not if the norm follows it directly and makes the bias redundant."""
    return norm.keeps_bias or norm.position == "after"


def dense(n_in: int, n_out: int, norm: NormSpec, activation: ActivationName) -> Layer:
    """A hidden fully connected layer."""
    weight = nn.Linear(n_in, n_out, bias=needs_bias(norm))
    return Layer(norm.wrap(weight), NormAct(norm, n_out, "units", activation))


def conv(
    n_in: int,
    n_out: int,
    kernel: int,
    norm: NormSpec,
    activation: ActivationName,
    stride: int = 1,
    adds: Addition = "nowhere",
) -> Layer:
    """A convolution that keeps the size of the image, or divides it by `stride`.

    kernel: its height and width, an odd number.
    adds: where a residual block whose branch ends with this layer adds its shortcut.
    """
    weight = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=needs_bias(norm))
    norm_act = NormAct(norm, n_out, "maps", activation, ends_branch=adds != "nowhere")
    return Layer(norm.wrap(weight), norm_act, adds == "before_norm")


def conv3x3(
    n_in: int, n_out: int, norm: NormSpec, activation: ActivationName, stride: int = 1, adds: Addition = "nowhere"
) -> Layer:
    """A 3x3 convolution; see `conv`."""
    return conv(n_in, n_out, 3, norm, activation, stride, adds)


def classifier(n_in: int, classes: int) -> Layer:
    return Layer(nn.Linear(n_in, classes))
