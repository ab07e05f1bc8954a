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
    """The same digits in float64; everything is computed in float64."""
    torch.set_default_dtype(torch.float64)
    yield replace(few, **{s: Split(getattr(few, s).x.double(), getattr(few, s).y) for s in SIZES})
    torch.set_default_dtype(torch.float32)
