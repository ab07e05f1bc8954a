"""Noise whose distribution changes with each update."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bnstudy.rng import Noise


class Unsteady(Noise):
    """Scales and shifts each sample's units, or channels, in training: see `NoisyBatchNorm`."""

    shift: Tensor
    scale: Tensor
    jitter: Tensor

    def __init__(self, shift: float, scale: float, jitter: float) -> None:
        super().__init__()
        for name, number in (("shift", shift), ("scale", scale), ("jitter", jitter)):
            self.register_buffer(name, torch.tensor(number), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, units] or [N, channels, H, W]."""
        if not self.training:
            return x
        shifts, scales = self._noise(*x.shape[:2])
        wide, each = torch.promote_types(x.dtype, torch.float32), (*x.shape[:2], *[1] * (x.ndim - 2))
        return (x * scales.to(wide).view(each) + shifts.to(wide).view(each)).to(x.dtype)

    def _noise(self, samples: int, units: int) -> tuple[Tensor, Tensor]:
        """What to add to each unit of each sample and what to multiply it by first: [samples, units] each."""
        drawn = self.draw(2 + 3 * samples, units)
        shift, scale = self.shift * (2 * drawn[0] - 1), 1 + (self.scale - 1) * drawn[1]
        u, v, w = drawn[2:].view(3, samples, units)
        return shift + self.jitter * (2 * u - 1), scale + self.jitter * normal(v, w)


def normal(u: Tensor, v: Tensor) -> Tensor:
    """Standard normal numbers from two uniform in [0, 1), float64 (Box & Muller 1958)."""
    # In float32 the logarithm's last bit depends on how many runs there are.
    return (-2 * torch.log1p(-u.double())).sqrt() * (2 * math.pi * v.double()).cos()
