"""Weight normalization, and the base of layers that multiply by a function of their weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.norms.base import NoActivationNorm, WeightLayer


@dataclass(frozen=True)
class WeightNorm(NoActivationNorm):
    """Salimans & Kingma 2016, section 2: the weights of each unit (channel) are w = g v / ||v||.

    In hidden layers the vector v and the number g replace w; the classifier is plain. v is drawn as w would be and g
    starts at ||v||, so the network starts as with norm=none. The data-dependent initialization of the paper's
    section 3 is left out.
    """

    def wrap(self, layer: WeightLayer) -> WeightLayer:
        return WeightNormLinear(layer) if isinstance(layer, nn.Linear) else WeightNormConv2d(layer)


class ReparametrizedLayer(nn.Module):
    """A weight layer that multiplies by `effective_weight()`, a function of `weight` that ignores its positive scale.

    Derive one class from this and `nn.Linear`, another from this and `nn.Conv2d`.
    """

    weight: Tensor

    def effective_weight(self) -> Tensor:
        """The tensor that multiplies the inputs, in the shape of `weight`."""
        raise NotImplementedError

    def start_(self) -> None:
        """Initialize all parameters but weight and bias, which are drawn before this call."""


class WeightNormLayer(ReparametrizedLayer):
    """`weight` is v; g has shape [out, 1, ...]."""

    g: nn.Parameter

    def effective_weight(self) -> Tensor:
        return self.weight * (self.g / self.lengths())

    def lengths(self) -> Tensor:
        """||v|| of each unit or channel, kept above 0: [out, 1, ...]."""
        dims = list(range(1, self.weight.ndim))
        length = torch.linalg.vector_norm(self.weight, dim=dims, keepdim=True)
        return length.clamp_min(torch.finfo(length.dtype).tiny)

    @torch.no_grad()
    def start_(self) -> None:
        self.g.copy_(self.lengths())


class WeightNormLinear(WeightNormLayer, nn.Linear):
    def __init__(self, like: nn.Linear) -> None:
        nn.Linear.__init__(self, like.in_features, like.out_features, like.bias is not None, device="meta")
        self.weight, self.bias = like.weight, like.bias
        self.g = nn.Parameter(torch.ones(like.out_features, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.effective_weight(), self.bias)


class WeightNormConv2d(WeightNormLayer, nn.Conv2d):
    def __init__(self, like: nn.Conv2d) -> None:
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        nn.Conv2d.__init__(self, bias=like.bias is not None, device="meta", **{key: getattr(like, key) for key in keys})
        self.weight, self.bias = like.weight, like.bias
        self.g = nn.Parameter(torch.ones(like.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.effective_weight(), self.bias)
