"""Dropout whose noise is a function of the run's seed, whatever else is drawn, trained beside it or computes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WORD = 0xFFFFFFFF


class Dropout(nn.Module):
    """Srivastava et al. 2014: in training each value is 0 with probability p, the others are divided by 1 - p.

    The noise is a hash of (key, count, index of the value), integers throughout: the same on every device, alone and
    under vmap. `key` stands for the seed and the layer; `count` is the number of batches seen in training.
    """

    p: Tensor
    key: Tensor
    count: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(p), persistent=False)
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = uniform(self.key, self.count, x.shape) >= self.p
        self.count.add_(1)
        return x * (keep / (1 - self.p)).to(x.dtype)

    @torch.no_grad()
    def seed_(self, generator: torch.Generator) -> None:
        """Draw the key, and begin."""
        self.key.copy_(torch.randint(2**63 - 1, (), generator=generator))
        self.count.zero_()


def uniform(key: Tensor, count: Tensor, shape: torch.Size) -> Tensor:
    """Uniform multiples of 2^-24 in [0, 1), a function of two 0-dim int64 tensors, on their device.

    A Weyl sequence whose start and odd stride come from key and count, as in SplitMix, each term hashed.
    """
    start = _mix(_mix(count & WORD) ^ (key & WORD))
    stride = _mix(start ^ (key >> 32)) | 1
    index = torch.arange(math.prod(shape), device=key.device)
    words = _mix(index * stride + start & WORD)
    return (words >> 8).view(shape).float() * 2**-24


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words held in int64: two rounds of xorshift and multiply (C. Wellons, hash prospector).

    No product leaves 64 bits, so that nothing depends on how a compiler or a device overflows.
    """
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD & WORD
    x = x ^ (x >> 15)
    x = x * (0xD35A2D97 - 2**32) & WORD
    return x ^ (x >> 15)
