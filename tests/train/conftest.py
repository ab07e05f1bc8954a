from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from bnstudy.data.dataset import Dataset, Split


@pytest.fixture(scope="session")
def few(digits: Dataset) -> Dataset:
    """256 digits to train, 32 to validate and 32 to test on."""
    cut = {name: Split(getattr(digits, name).x[:n], getattr(digits, name).y[:n]) for name, n in SIZES.items()}
    return replace(digits, **cut)


SIZES = {"train": 256, "val": 32, "test": 32}


@pytest.fixture
def wide(few: Dataset) -> Iterator[Dataset]:
    """The same digits in float64, with a little noise; everything is computed in float64.

    Without noise neighbouring pixels are equal, and rounding decides which of them max pooling sends a gradient to.
    """
    torch.set_default_dtype(torch.float64)
    noise = torch.Generator().manual_seed(0)
    images = {s: getattr(few, s).x.double() for s in SIZES}
    images = {s: x + 0.01 * torch.randn(x.shape, generator=noise) for s, x in images.items()}
    yield replace(few, **{s: Split(x, getattr(few, s).y) for s, x in images.items()})
    torch.set_default_dtype(torch.float32)
