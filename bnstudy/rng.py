"""Named random streams of a run, and noise that is computed from numbers on the device.

A stream is a function of (seed, name, index) alone. So two arms with one seed share initial weights, batch order and
augmentation even if one has layers that the other lacks, and a run that resumes needs no generator state. Streams live
on the CPU, so that they are the same on every device.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Stream = Literal["init", "order", "augment", "length", "dropout", "probe"]


def stream(seed: int, name: Stream, index: int | str = "") -> torch.Generator:
    """A generator for draw `index` (a layer's name, an epoch) of the stream `name` of the run with `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@runtime_checkable
class Seeded(Protocol):
    """A module that draws noise. It gets a stream of its own when the network is initialized."""

    def seed_(self, generator: torch.Generator) -> None: ...


class Noise(nn.Module):
    """A module whose noise is a function of the run's seed, the module's place in the network and the number of draws.

    The noise is a hash of (key, count, index of the value) in integer arithmetic: the same on every device, alone and
    under vmap. `key` stands for the seed and the layer; `count` is the number of draws, one for each training batch.
    """

    key: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def draw(self, *shape: int) -> Tensor:
        """The next noise, uniform in [0, 1)."""
        noise = uniform(self.key, self.count, torch.Size(shape))
        self.count.add_(1)
        return noise

    @torch.no_grad()
    def seed_(self, generator: torch.Generator) -> None:
        """Draw the key and reset the count."""
        self.key.copy_(torch.randint(2**63 - 1, (), generator=generator))
        self.count.zero_()


WORD = 0xFFFFFFFF


def uniform(key: Tensor, count: Tensor, shape: torch.Size) -> Tensor:
    """Uniform multiples of 2^-24 in [0, 1), a function of two 0-dim int64 tensors, on their device.

    A Weyl sequence with start and odd stride from key and count, as in SplitMix; each term is hashed.
    """
    start = _mix(_mix(count & WORD) ^ (key & WORD))
    stride = _mix(start ^ (key >> 32)) | 1
    index = torch.arange(math.prod(shape), device=key.device)
    words = _mix(index * stride + start & WORD)
    return (words >> 8).view(shape).float() * 2**-24


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words held in int64: two rounds of xorshift and multiply (C. Wellons, hash prospector).

    No product exceeds 64 bits, so the result does not depend on how a compiler or a device handles overflow.
    """
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD & WORD
    x = x ^ (x >> 15)
    x = x * (0xD35A2D97 - 2**32) & WORD
    return x ^ (x >> 15)
