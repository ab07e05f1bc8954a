"""Weight layers that multiply by a function of their weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WeightLayer = nn.Linear | nn.Conv2d


class Reparametrized(nn.Module):
    """A weight layer that multiplies by `used()`, which does not change when `weight` is multiplied by a positive
    number. Derive a class from this one and `nn.Linear`, another from this one and `nn.Conv2d`."""

    weight: Tensor

    def used(self) -> Tensor:
        """What the inputs are multiplied by, of the weight's shape."""
        raise NotImplementedError

    def start_(self) -> None:
        """Called once weight and bias have been drawn: set what else there is."""


class WeightNormed(Reparametrized):
    """w = g v / ||v||, the norm of each unit or channel: `weight` is v, and g has the shape [out, 1, ...]."""

    g: nn.Parameter

    @staticmethod
    def of(layer: WeightLayer) -> WeightLayer:
        """A layer like this one, whose weights are not drawn yet."""
        return WeightNormedLinear(layer) if isinstance(layer, nn.Linear) else WeightNormedConv2d(layer)

    def used(self) -> Tensor:
        return self.weight * (self.g / self.lengths())

    def lengths(self) -> Tensor:
        """||v||, above 0."""
        dims = list(range(1, self.weight.ndim))
        length = torch.linalg.vector_norm(self.weight, dim=dims, keepdim=True)
        return length.clamp_min(torch.finfo(length.dtype).tiny)

    @torch.no_grad()
    def start_(self) -> None:
        self.g.copy_(self.lengths())


class WeightNormedLinear(WeightNormed, nn.Linear):
    def __init__(self, like: nn.Linear) -> None:
        nn.Linear.__init__(self, like.in_features, like.out_features, like.bias is not None)
        self.g = nn.Parameter(torch.ones(like.out_features, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.used(), self.bias)


class WeightNormedConv2d(WeightNormed, nn.Conv2d):
    def __init__(self, like: nn.Conv2d) -> None:
        nn.Conv2d.__init__(
            self,
            like.in_channels,
            like.out_channels,
            like.kernel_size,  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            like.padding,  # type: ignore[arg-type]
            like.dilation,  # type: ignore[arg-type]
            like.groups,
            like.bias is not None,
            like.padding_mode,
        )
        self.g = nn.Parameter(torch.ones(like.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.used(), self.bias)
