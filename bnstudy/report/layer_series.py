"""Transforms of what probes measured, over training and by layer: frame -> frame, as in `transforms`.

Frames of layers have the columns `run_id`, `arm`, `step`, `layer`, `depth` and `value`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bnstudy.claims.metrics import OUTPUT
from bnstudy.report.endings import until_divergence
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import mean_band


def network_series(panel: Panel, metric: str) -> pd.DataFrame:
    """Rows of a metric of the whole network, before the first divergence in each arm."""
    return until_divergence(panel.network_rows(metric), panel.arm_runs)


def layer_series(panel: Panel, metric: str) -> pd.DataFrame:
    """Rows of a metric of the layers, with `depth`, before the first divergence in each arm."""
    return until_divergence(panel.layer_rows(metric), panel.arm_runs)


def last_hidden_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Each run's rows of its deepest layer except the output."""
    hidden = rows[rows["layer"] != OUTPUT]
    return hidden[hidden["depth"] == hidden.groupby("run_id", observed=True)["depth"].transform("max")]


def first_seed(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of the run with the smallest seed of each arm, for values without a mean over seeds, such as one unit's."""
    smallest = runs.sort_values("seed", kind="stable").drop_duplicates("arm")
    return rows[rows["run_id"].isin(smallest["run_id"])]


def spread_layers(rows: pd.DataFrame, n: int = 9) -> pd.DataFrame:
    """Rows of at most `n` evenly spread depths, including the first and the last."""
    depths = np.sort(rows["depth"].unique())
    chosen = depths[np.linspace(0, len(depths) - 1, min(n, len(depths))).round().astype(int)]
    return rows[rows["depth"].isin(chosen)]


def mean_range(middle: pd.DataFrame, lower: pd.DataFrame, upper: pd.DataFrame, log: bool = False) -> pd.DataFrame:
    """The means over runs of a middle value, a lower and an upper bound, as `mean` `low` `high` by arm and step.

    If the rows have a `depth`, so does the result. log: geometric means.
    """
    by = ["arm", *(["depth"] if "depth" in middle else []), "step"]
    parts = {"mean": middle, "low": lower, "high": upper}
    columns = [mean_band(rows, by, log).set_index(by)["mean"].rename(name) for name, rows in parts.items()]
    return pd.concat(columns, axis=1, join="inner").reset_index()


def layer_grid(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over runs: one row per depth, one column per step."""
    return rows.pivot_table(index="depth", columns="step", values="value", aggfunc="mean", observed=True)


def layer_names(rows: pd.DataFrame) -> dict[int, str]:
    """The layer's short name by depth, or its number if arms have different layers at that depth."""
    names = rows.drop_duplicates(["depth", "layer"]).groupby("depth")["layer"].agg(["first", "size"])
    common = {int(d): str(r["first"]) for d, r in names.iterrows() if r["size"] == 1}
    short = dict(zip(common, shorten_names([*common.values()]), strict=True))
    return {int(depth): short.get(int(depth), f"layer {depth}") for depth in names.index}


def shorten_names(names: Sequence[str]) -> list[str]:
    """The names without the dotted prefix that all but the output have in common."""
    parts = [name.split(".") for name in names if name != OUTPUT]
    shortest = min(map(len, parts), default=1) - 1
    common = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), shortest)
    prefix = "".join(f"{part}." for part in parts[0][:common]) if parts else ""
    return [name.removeprefix(prefix) for name in names]


def stability_limits(panel: Panel) -> pd.DataFrame:
    """2 (1 + momentum) / learning rate at each recorded step of arms with plain SGD: `arm` `step` `value`.

    Gradient descent on a quadratic, with or without heavy-ball momentum, diverges if the curvature exceeds this limit
    (Polyak 1964). Other optimizers have other limits.
    """
    runs = panel.arm_runs.drop_duplicates("arm").set_index("arm")
    plain = runs[(runs["optim"] == "SGD") & ~runs["optim.nesterov"].fillna(False).astype(bool)]
    rates = panel.network_rows("lr")
    rates = rates[(rates["value"] > 0) & rates["arm"].isin(plain.index)].drop_duplicates(["arm", "step"])
    factor = 2 * (1 + rates["arm"].map(plain["optim.momentum"]).astype(float))
    return rates.assign(value=factor / rates["value"])[["arm", "step", "value"]]
