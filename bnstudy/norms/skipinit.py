"""SkipInit: a learned scalar on each residual branch instead of a norm."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bnstudy.norms.base import NoActivationNorm
from bnstudy.validation import PER_RUN, ConfigError


@dataclass(frozen=True)
class SkipInit(NoActivationNorm):
    """De & Smith 2020: no normalization; each residual branch is multiplied by a learned scalar.

    initial: the scalars' initial value. With 0 every block starts as its shortcut. The gradient of the branch's
        weights is proportional to the scalar, so these weights start to change at the second step.
    """

    initial: float = field(default=0.0, metadata=PER_RUN)

    def branch(self) -> nn.Module:
        return BranchScale(self.initial)

    def check_network(self, has_branches: bool) -> None:
        if not has_branches:
            raise ConfigError(
                "norm=skipinit is not allowed with a network without residual branches, because it scales these; "
                "choose model=resnet or model=transformer, or norm=none."
            )


class BranchScale(nn.Module):
    """Multiplies its input by a learned scalar."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
