"""Dropout whose noise is a function of the run's seed."""

from __future__ import annotations

import torch
from torch import Tensor

from bnstudy.rng import Noise


class Dropout(Noise):
    """Srivastava et al. 2014: in training each value is 0 with probability p, the others are divided by 1 - p."""

    p: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(p), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = self.draw(*x.shape) >= self.p
        return x * (keep / (1 - self.p)).to(x.dtype)
