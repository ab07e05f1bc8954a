"""Named random streams of a run.

A stream is a function of (seed, name, index) alone: nothing that another stream or another layer draws moves it.
So two arms of one seed share their initial weights, batch order and augmentation although one of them has layers
the other lacks, and a run resumed at update t needs no generator state. Streams live on the CPU, so that they are
the same on every device.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

Stream = Literal["init", "order", "augment", "dropout", "probe"]


def stream(seed: int, name: Stream, index: int | str = "") -> torch.Generator:
    """A generator for draw `index` (a layer's name, an epoch) of the stream `name` of the run with `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
