"""What the networks are made of, and how probes find their way in them.

A `Layer` is a weight layer with its normalization and activation. Its path in the model ("hidden1",
"stage1.block1.conv1") is the layer's name in metrics and in the `init` stream; it does not depend on the norm.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bnstudy.models.dropout import Dropout as Dropout
from bnstudy.norms import Reparametrized
from bnstudy.norms.base import NormSpec
from bnstudy.validation import ConfigError

ActivationName = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "linear"]


class LinearActivation(nn.Identity):
    """a = z. A class of its own, as nn.Identity also stands for no normalization, which is not where probes tap."""


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "linear": LinearActivation,
}


class NormAct(nn.Module):
    """A normalization and an activation, in the order that the norm's `position` asks for.

    ends_branch: whether the branch of a residual block ends here, which the norm may want to do something to.
    """

    def __init__(
        self, norm: NormSpec, channels: int, spatial: bool, activation: ActivationName, ends_branch: bool = False
    ) -> None:
        super().__init__()
        self.norm = norm.build(channels, spatial)
        self.ends_branch = ends_branch
        self.branch = norm.branch() if ends_branch else None
        self.act = ACTIVATIONS[activation]()
        self.norm_first = norm.position == "before"

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """`shortcut` is what a residual block adds: behind a norm that comes first, and before the activation."""
        x = self.norm(x) if self.norm_first else x
        x = self.act(x if shortcut is None else self.joined(x, shortcut))
        return x if self.norm_first else self.norm(x)

    def joined(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """The sum of a residual block's branch, which ends with `x`, and its shortcut."""
        return (x if self.branch is None else self.branch(x)) + shortcut


class Layer(nn.Module):
    """A weight layer followed by its normalization and activation; with neither, it makes the logits.

    adds_first: whether a residual block adds its shortcut right behind the weight, before the norm.
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

    def summed(self, x: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Where it `adds_first`: what norm and activation make of the sum, and the sum."""
        assert self.norm_act is not None
        total = self.norm_act.joined(self.weight(x), shortcut)
        return self.norm_act(total), total


class GlobalAveragePool(nn.Module):
    """[B, C, H, W] -> [B, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def dense(n_in: int, n_out: int, norm: NormSpec, activation: ActivationName) -> Layer:
    """A hidden fully connected layer."""
    weight = nn.Linear(n_in, n_out, bias=norm.keeps_bias)
    return Layer(norm.wrap(weight), NormAct(norm, n_out, False, activation))


def conv3x3(
    n_in: int,
    n_out: int,
    norm: NormSpec,
    activation: ActivationName,
    stride: int = 1,
    adds: Literal["nowhere", "before_norm", "behind_norm"] = "nowhere",
) -> Layer:
    """A 3x3 convolution that keeps the size, or divides it by `stride`.

    adds: where a residual block whose branch ends with this layer adds its shortcut.
    """
    weight = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=norm.keeps_bias)
    norm_act = NormAct(norm, n_out, True, activation, ends_branch=adds != "nowhere")
    return Layer(norm.wrap(weight), norm_act, adds == "before_norm")


def classifier(n_in: int, classes: int) -> Layer:
    return Layer(nn.Linear(n_in, classes))


def weight_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The fully connected and convolutional layers by name, in order of depth."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    return {name.removesuffix(".weight"): m for name, m in found.items()}


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """The activation modules by the name of their layer, in order of depth: where probes tap the network."""
    kinds = tuple(ACTIVATIONS.values())
    found = {n: m for n, m in model.named_modules() if isinstance(m, kinds)}
    return {name.removesuffix(".act").removesuffix(".norm_act"): m for name, m in found.items()}


def has_branches(model: nn.Module) -> bool:
    """Whether there are residual blocks."""
    return any(isinstance(module, NormAct) and module.ends_branch for module in model.modules())


def norm_parameters(model: nn.Module) -> set[str]:
    """The names of the parameters that the norm has brought: scales, shifts, and what it does to branches."""
    brought: set[str] = set()
    for path, module in model.named_modules():
        if isinstance(module, NormAct):
            brought |= {f"{path}.{name}" for name, _ in module.named_parameters()}
        elif isinstance(module, Reparametrized):
            brought |= {f"{path}.{name}" for name, _ in module.named_parameters() if name not in ("weight", "bias")}
    return brought


def check_made_by(norm: NormSpec, model: nn.Module) -> None:
    """Raises ConfigError: the norm is one of weights, and none of the network's hidden layers is its."""
    if type(norm).wrap is NormSpec.wrap or _is_linear(model):
        return
    if not any(isinstance(module, Reparametrized) for module in model.modules()):
        raise ConfigError(
            f"The norm {type(norm).__name__} is not allowed with this network: it is one of weights, and would change "
            "none of them. Build the network's hidden layers by dense and conv3x3 of bnstudy.models.layers, or hand "
            "their weights to norm.wrap; or choose another norm, such as norm=batch."
        )


def check_trainable(model: nn.Module) -> None:
    """Raises ConfigError: the norm has brought no parameters, or they are where they are not found."""
    if norm_parameters(model):
        return
    if _is_linear(model) or any(isinstance(module, NormAct | Reparametrized) for module in model.modules()):
        raise ConfigError(
            "trained=norm is not allowed where normalization has no parameters, as with norm=none or "
            "norm.affine=false; it must be all, or choose a norm with scales and shifts, such as norm=batch."
        )
    raise ConfigError(
        "trained=norm is not allowed with this network: the parameters of its norms are found only in the layers of "
        "bnstudy.models.layers (dense, conv3x3, NormAct), and it has none of these; it must be all, or build the "
        "network of such layers."
    )


def _is_linear(model: nn.Module) -> bool:
    """Whether there is a classifier and nothing before it, so that nothing is normalized."""
    return len(weight_layers(model)) == 1
