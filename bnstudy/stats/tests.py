"""A test of paired differences, and a correction for several tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

ALPHA = 0.05


ENUMERATED = 20
"""The largest number of differences of which all 2^n signs are tried; beyond, a fixed sample."""

FLIPS = 100_000


def sign_flip_p(d: ArrayLike) -> float:
    """Two-sided p of the mean under random signs (Fisher 1935): the share of signs whose mean is as far from 0.

    Exact for up to 20 differences, with 2/2^n the smallest value; beyond, from a fixed sample of signs that includes
    the identity (Phipson & Smyth 2010). 1 for no differences, or where one is not finite. scipy's `permutation_test`
    gives the same, more slowly.
    """
    values = np.asarray(d, float)
    if not np.isfinite(values).all():
        return 1.0
    if len(values) <= ENUMERATED:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        sums = np.append(_signs(len(values)) @ values, values.sum())
    rounding = 1e-9 * np.abs(values).sum()
    return float((np.abs(sums) >= abs(values.sum()) - rounding).mean())


@lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    """The sample of signs [flips, n] for n differences."""
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, n))


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), in their order; the family-wise error is at most alpha."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(np.asarray(p, float)[order] * factors))
    back = np.empty(len(p))
    back[order] = adjusted
    return [float(value) for value in back]
