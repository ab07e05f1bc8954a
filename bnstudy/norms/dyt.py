"""Dynamic tanh: a learned function in place of a norm."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bnstudy.norms.base import Layout, Norm, ScaledNorm, scale_and_shift
from bnstudy.validation import PER_RUN


@dataclass(frozen=True)
class DyT(ScaledNorm):
    """Zhu et al. 2025: gamma tanh(alpha x) + beta for each value on its own, with a learned number alpha per layer.

    A bias in front moves the values within the tanh, which the shift beta behind it cannot, so it is not redundant, and
    stays.

    alpha: the initial value of alpha.
    """

    alpha: float = field(default=0.5, metadata=PER_RUN)

    def check(self) -> None:
        super().check()
        self.require(self.alpha > 0, "alpha", "a number above 0")

    def build(self, channels: int, layout: Layout) -> nn.Module:
        return self.start(DynamicTanh(channels, self.alpha, self.affine, layout == "tokens"))


class DynamicTanh(Norm):
    """weight tanh(alpha x) + bias."""

    def __init__(self, channels: int, alpha: float, affine: bool = True, tokens: bool = False) -> None:
        super().__init__(tokens)
        self.alpha = nn.Parameter(torch.tensor(alpha))
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def normalize(self, x: Tensor) -> Tensor:
        return scale_and_shift(torch.tanh(self.alpha * x), self.weight, self.bias)
