"""The best learning rate of each family."""

from __future__ import annotations

import pandas as pd


def best_arms(runs: pd.DataFrame) -> pd.DataFrame:
    """The arm with the highest mean `score` of each family, the smaller learning rate of equals.

    Columns: `panel` `family` `norm` `norm_label` `rest` `arm` `lr` `rates` (how many the family has) and `edge`: the
    best rate is the smallest or largest of at least three and did not always diverge, so that a better one may lie
    beyond.
    """
    keys = ["panel", "family", "norm", "norm_label", "rest", "arm", "lr"]
    means = runs.groupby(keys, observed=True).agg(score=("score", "mean"), lost=("diverged", "all"))
    means = means.reset_index()
    family = means.groupby(["panel", "family"], observed=True)
    means["rates"] = family["lr"].transform("nunique")
    on_edge = (means["lr"] == family["lr"].transform("min")) | (means["lr"] == family["lr"].transform("max"))
    means["edge"] = on_edge & (means["rates"] >= 3) & ~means["lost"]
    ranked = means.sort_values(["panel", "family", "score", "lr"], ascending=[True, True, False, True])
    best = ranked.drop_duplicates(["panel", "family"])
    return best.drop(columns=["score", "lost"]).reset_index(drop=True)
