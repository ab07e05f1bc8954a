"""Means over seeds and paired differences, with their intervals.

Runs of one seed share initial weights and batches, so arms are compared seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from bnstudy.stats.means import ALPHA, all_equal, confidence_interval


def effect_size(d: ArrayLike) -> float:
    """d_z = mean / standard deviation of the differences (Cohen 1988): NaN where n < 2 or a value is not finite, 0
    where all are 0, infinite where all are equal."""
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    if all_equal(values):
        return math.copysign(math.inf, values[0]) if values[0] else 0.0
    return float(values.mean() / values.std(ddof=1))


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and its 95% interval; the bounds are NaN where n < 2."""

    mean: float
    low: float
    high: float
    n: int


def half_width(sd: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Half the width of the 95% t interval of a mean: `sd` is the sample's (n - 1), NaN where n < 2."""
    n_ = np.asarray(n, float)
    return stats.t.ppf(1 - ALPHA / 2, n_ - 1) * np.asarray(sd, float) / np.sqrt(n_)


def mean_interval(values: pd.Series, possible: tuple[float, float] = (-math.inf, math.inf)) -> Estimate:
    """Mean of the values, one per seed, with its 95% t interval; missing values are left out. It ends where values are
    not `possible`."""
    found = values.dropna()
    half = float(half_width(found.std(), len(found)))
    mean = float(found.mean())
    low, high = np.clip([mean - half, mean + half], *possible)
    return Estimate(mean, float(low), float(high), len(found))


def paired_difference(with_: pd.Series, without: pd.Series) -> Estimate:
    """Mean of `with_ - without` over the seeds (their index) that both have, with the interval of verdicts.

    Raises:
        ValueError: a seed occurs twice; its runs would count as independent.
    """
    if not (with_.index.is_unique and without.index.is_unique):
        raise ValueError("A seed occurs twice in an arm: only one run per seed can be paired.")
    shared = with_.index.intersection(without.index)
    d = (with_.loc[shared] - without.loc[shared]).dropna()
    return Estimate(float(d.mean()), *confidence_interval(d), len(d))


def summarize(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """One row per group that occurs: `by`, then `mean` `low` `high` `n` of `value`, as `mean_interval` gives them."""
    groups = frame.groupby(list(by), observed=True)[value]
    table = groups.agg(mean="mean", sd="std", n="count").reset_index()
    half = half_width(table["sd"], table["n"])
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)[[*by, "mean", "low", "high", "n"]]
