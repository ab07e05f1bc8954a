"""What the families of probes saw, made ready to be drawn: frame -> frame, as in `panels`.

Frames of layers have `run_id`, `arm`, `step`, `layer`, `depth` and `value`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnstudy.claims.metrics import OUTPUT
from bnstudy.report.transforms import MeanBand, Panel, UntilDivergence


def over_time(panel: Panel, metric: str) -> pd.DataFrame:
    """Rows of a metric of the whole network that describe all runs of their arm: up to the first divergence."""
    return UntilDivergence(panel.shown_runs)(panel.measured(metric))


def layers_over_time(panel: Panel, metric: str) -> pd.DataFrame:
    """The same by layer, with `depth`."""
    return UntilDivergence(panel.shown_runs)(panel.by_layer(metric))


def last_hidden(rows: pd.DataFrame) -> pd.DataFrame:
    """Each run's rows of its deepest layer but the output."""
    hidden = rows[rows["layer"] != OUTPUT]
    return hidden[hidden["depth"] == hidden.groupby("run_id", observed=True)["depth"].transform("max")]


def first_seed(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of the run with the smallest seed of each arm: for what has no mean over seeds, such as one unit."""
    smallest = runs.sort_values("seed", kind="stable").drop_duplicates("arm")
    return rows[rows["run_id"].isin(smallest["run_id"])]


@dataclass(frozen=True)
class Picked:
    """Rows of at most `n` depths, evenly spread, the first and the last among them."""

    n: int = 9

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        depths = np.sort(rows["depth"].unique())
        chosen = depths[np.linspace(0, len(depths) - 1, min(self.n, len(depths))).round().astype(int)]
        return rows[rows["depth"].isin(chosen)]


@dataclass(frozen=True)
class Between:
    """`mean` `low` `high` at each arm and step, and depth where there is one: the means over the runs of a middle
    value and of the bounds that go with it, so that a band can be drawn of a range that is no interval of a mean.

    log: geometric means.
    """

    log: bool = False

    def __call__(self, middle: pd.DataFrame, lower: pd.DataFrame, upper: pd.DataFrame) -> pd.DataFrame:
        by = ["arm", *(["depth"] if "depth" in middle else []), "step"]
        mean = MeanBand(by, self.log)
        parts = {"mean": mean(middle), "low": mean(lower), "high": mean(upper)}
        columns = [table.set_index(by)["mean"].rename(name) for name, table in parts.items()]
        return pd.concat(columns, axis=1, join="inner").reset_index()


def layers_by_time(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over the runs as a grid: a row a depth, a column a step."""
    return rows.pivot_table(index="depth", columns="step", values="value", aggfunc="mean", observed=True)


def layer_names(rows: pd.DataFrame) -> dict[int, str]:
    """depth -> the layer's name, or its number where arms have other layers at that depth."""
    names = rows.drop_duplicates(["depth", "layer"]).groupby("depth")["layer"].agg(["first", "size"])
    return {int(d): str(r["first"]) if r["size"] == 1 else f"layer {d}" for d, r in names.iterrows()}


def stability_limit(panel: Panel) -> pd.DataFrame:
    """2 (1 + momentum) / learning rate wherever that was recorded, for arms with plain SGD: `arm` `step` `value`.

    Gradient descent on a quadratic, with heavy-ball momentum or without, diverges where the curvature is above it
    (Polyak 1964). For other optimizers the limit is another.
    """
    runs = panel.shown_runs.drop_duplicates("arm").set_index("arm")
    plain = runs[(runs["optim"] == "SGD") & ~runs["optim.nesterov"].fillna(False).astype(bool)]
    rates = panel.measured("lr")
    rates = rates[(rates["value"] > 0) & rates["arm"].isin(plain.index)].drop_duplicates(["arm", "step"])
    factor = 2 * (1 + rates["arm"].map(plain["optim.momentum"]).astype(float))
    return rates.assign(value=factor / rates["value"])[["arm", "step", "value"]]
