"""A correction for several tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), in their order; the family-wise error is at most alpha."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(np.asarray(p, float)[order] * factors))
    back = np.empty(len(p))
    back[order] = adjusted
    return [float(value) for value in back]
