"""What becomes of residual branches before they are added to their shortcuts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """x times a learned scalar."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
