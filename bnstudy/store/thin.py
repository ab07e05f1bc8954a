"""Metrics without most training losses: they are nine tenths of a long run's rows.

The losses of a thin run are those at `LOSSES` log-spaced steps and wherever something else was measured. What claims
compute from all losses is kept beside them, exactly: their mean, and their sum up to each evaluation on test images.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from bnstudy.when import LogSpaced

LOSSES = 200

MEAN = "loss_mean"
"""The mean of all training losses, as a metric of the split `train` at the last step that has one."""
SUM = "loss_sum"
"""The sum of the training losses before a step, at each step with an evaluation on test images."""


def of_training(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a metric of the training batches: `loss`, `MEAN` or `SUM`; a probe's rows have another split."""
    return metrics[(metrics["split"] == "train") & (metrics["metric"] == name)]


def thin_metrics(metrics: pa.Table) -> pa.Table:
    """The metrics of a run without most training losses; unchanged if there are at most `LOSSES`, or not one a step."""
    steps, split, name = (metrics[column].to_numpy() for column in ("step", "split", "metric"))
    is_loss = (split == "train") & (name == "loss")
    n = int(is_loss.sum())
    if n <= LOSSES or not np.array_equal(np.sort(steps[is_loss]), np.arange(n)):
        return metrics
    kept = np.union1d(LogSpaced(LOSSES).resolve(n - 1), steps[~is_loss])
    thin = metrics.filter(pa.array(~is_loss | np.isin(steps, kept)))
    return pa.concat_tables([thin, _exact(metrics, steps, is_loss, n)]).unify_dictionaries().combine_chunks()


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
