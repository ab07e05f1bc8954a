"""Root mean square normalization."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bnstudy.norms.base import Layout, Norm, ScaledNorm, scale_and_shift
from bnstudy.norms.group import refuse_single_unit
from bnstudy.validation import PER_RUN


@dataclass(frozen=True)
class RMSNorm(ScaledNorm):
    """Zhang & Sennrich 2019: each sample divided by the root mean square of its features, (C) or (C, H, W), or each
    token by that of its own, (C).

    The scale is per channel. There is no shift, so a bias in front of the norm is not redundant, and stays.

    eps: added to the mean square.
    """

    eps: float = field(default=1e-5, metadata=PER_RUN)

    def check(self) -> None:
        super().check()
        self.require(self.eps > 0, "eps", "a number above 0")

    def build(self, channels: int, layout: Layout) -> nn.Module:
        if layout != "maps":
            refuse_single_unit("rms", channels)
        return self.start(RootMeanSquare(channels, self.eps, self.affine, layout == "tokens"))


class RootMeanSquare(Norm):
    """x / sqrt(mean(x^2) + eps) * weight."""

    eps: Tensor

    def __init__(self, channels: int, eps: float, affine: bool = True, tokens: bool = False) -> None:
        super().__init__(tokens)
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.register_buffer("eps", torch.tensor(eps), persistent=False)

    def normalize(self, x: Tensor) -> Tensor:
        square = x.square().mean(list(range(1, x.ndim)), keepdim=True)
        return scale_and_shift(x * torch.rsqrt(square + self.eps), self.weight)

    def values_together(self, x: Tensor) -> int:
        return (x[0, 0] if self.tokens else x[0]).numel()
