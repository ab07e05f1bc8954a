"""scikit-learn's handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import distribution, version

import numpy as np
import torch

from bnstudy.data.cache import CachedData
from bnstudy.data.dataset import DecodedImages, stratified_split

_TEST_FRACTION = 0.2
_STEP = 15  # from scikit-learn's levels 0..16 to 0..240, without loss


@dataclass(frozen=True)
class Digits(CachedData):
    """1,797 digits of 8x8 pixels (the test part of UCI's optical recognition set): no download.

    A fixed, stratified fifth is the test split, since scikit-learn defines none.
    """

    val_fraction: float = field(default=0.2, kw_only=True)

    def source(self) -> str:
        return f"scikit-learn {version('scikit-learn')}"

    def decoding(self) -> tuple[object, ...]:
        return ()

    def decode(self) -> DecodedImages:
        # The file that load_digits reads. Importing scikit-learn takes a second, a fifth of a short sweep.
        path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        table = torch.from_numpy(np.loadtxt(str(path), delimiter=",", dtype=np.int64))
        x = (table[:, :-1] * _STEP).to(torch.uint8).view(-1, 1, 8, 8)
        y = table[:, -1].contiguous()
        test, train = stratified_split(y, _TEST_FRACTION)
        return DecodedImages(x[train], y[train], x[test], y[test], tuple("0123456789"))
