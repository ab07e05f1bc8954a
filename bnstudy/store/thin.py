"""Metrics without most losses, which are nine tenths of a long run's rows.

A thin run has the training losses at `LOSSES` log-spaced steps and wherever something else was measured, all but the
first rounded to `BITS` bits, and no other losses. What claims compute from all training losses is kept beside them,
exactly: their mean, and their sum up to each evaluation on test images. Losses at the end are in the run's summary.
The times of a stacked run, which are shares of those of its stack, are rounded as well.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from bnstudy.when import LogSpaced

LOSSES = 200
BITS = 8
"""Significant bits of a training loss or a time: within 0.4%. The other bits are noise, and most of the
bytes of a store."""

MEAN = "loss_mean"
"""The mean of all training losses, as a metric of the split `train` at the last step that has one."""
SUM = "loss_sum"
"""The sum of the training losses before a step, at each step with an evaluation on test images."""


def of_training(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a metric of the training batches: `loss`, `MEAN` or `SUM`; a probe's rows have another split."""
    return metrics[(metrics["split"] == "train") & (metrics["metric"] == name)]


def thin_metrics(metrics: pa.Table) -> pa.Table:
    """The metrics of a run without most losses; unchanged if they are thin or the training losses are not one a
    step."""
    steps, split, name = (metrics[column].to_numpy() for column in ("step", "split", "metric"))
    is_loss = (split == "train") & (name == "loss")
    n = int(is_loss.sum())
    is_thin = ((split == "train") & (name == MEAN)).any()
    if is_thin or not n or not np.array_equal(np.sort(steps[is_loss]), np.arange(n)):
        return metrics
    kept = np.union1d(LogSpaced(LOSSES).resolve(max(1, n - 1)), steps[~is_loss])
    is_kept = np.where(is_loss, np.isin(steps, kept), (name != "loss") | ~np.isin(split, ("val", "test")))
    values = metrics["value"].to_numpy()
    rounded = metrics.set_column(
        metrics.schema.get_field_index("value"),
        metrics.schema.field("value"),
        pa.array(np.where(is_loss & (steps > 0), _round(values), values)),
    )
    thin = rounded.filter(pa.array(is_kept))
    return pa.concat_tables([thin, _exact(metrics, steps, is_loss, n)]).unify_dictionaries().combine_chunks()


def thin_timing(timing: pa.Table) -> pa.Table:
    """The times of a run, rounded."""
    for name in ("seconds", "step_seconds"):
        place, field = timing.schema.get_field_index(name), timing.schema.field(name)
        timing = timing.set_column(place, field, pa.array(_round(timing[name].to_numpy())))
    return timing


def _round(values: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2**BITS) / 2**BITS, exponent)


def _exact(metrics: pa.Table, steps: np.ndarray, is_loss: np.ndarray, n: int) -> pa.Table:
    """The rows of `MEAN` and `SUM`, computed as the claims compute them from all losses."""
    epochs, values = (metrics[column].to_numpy() for column in ("epoch", "value"))
    losses = pd.Series(values[is_loss])
    sums = losses.iloc[np.argsort(steps[is_loss], kind="stable")].cumsum().to_numpy()
    is_test = (metrics["split"].to_numpy() == "test") & (metrics["metric"].to_numpy() == "accuracy")
    ends, first = np.unique(np.minimum(steps[is_test], n), return_index=True)
    ends, at = ends[ends > 0], epochs[is_test][first][ends > 0]
    mean, last = losses.groupby(np.zeros(n)).mean().iloc[0], epochs[is_loss][np.argmax(steps[is_loss])]
    count = 1 + len(ends)
    columns = {
        "step": np.array([n - 1, *ends]), "epoch": np.array([last, *at]), "split": ["train"] * count,
        "metric": [MEAN, *[SUM] * len(ends)], "layer": [""] * count, "value": np.array([mean, *sums[ends - 1]]),
    }  # fmt: skip
    return pa.table(columns).cast(metrics.schema)
