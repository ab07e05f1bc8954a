"""Each family's best learning rate, and what it is compared with."""

from __future__ import annotations

import pandas as pd

from bnstudy.claims.arms import BASELINES

TOLERATED = 0.8
"""Share of the seeds that must not diverge for a learning rate to count as tolerated."""


def best_arms(runs: pd.DataFrame) -> pd.DataFrame:
    """The arm with the best mean `score` of each family, the smaller learning rate of equals.

    Columns: `panel` `family` `norm` `norm_label` `rest` `arm` `lr` `rates` (how many the family has) and `edge`: the
    best is the smallest or largest of at least three and did not diverge, so that the true best may lie beyond.
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


def baselines(best: pd.DataFrame) -> dict[str, str]:
    """Arm -> the arm it is compared with, for rows as from `best_arms`.

    That is the one without normalization and otherwise alike; in a panel where every run or none is normalized, the
    first family, where only the norm differs or the norm does not. Arms without such a one are left out.
    """
    pairs: dict[str, str] = {}
    for _, panel in best.groupby("panel", observed=True):
        candidates = references(panel)
        for row in panel.drop(candidates.index).itertuples():
            alike = candidates[(candidates["rest"] == row.rest) | (candidates["norm_label"] == row.norm_label)]
            pairs.update({str(row.arm): str(arm) for arm in alike["arm"][:1]})
    return pairs


def references(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of one panel that its others may be compared with: see `baselines`."""
    plain = panel["norm"].isin(BASELINES)
    return panel[plain] if plain.any() and not plain.all() else panel[:1]


def tolerated_rates(runs: pd.DataFrame, share: float = TOLERATED) -> pd.DataFrame:
    """For families with several learning rates: the largest at which, and at all smaller ones, at least `share` of
    the seeds did not diverge.

    Columns: `panel` `family` `lr` (NaN if not even the smallest) and `is_largest` of those tried.
    """
    by_rate = runs.groupby(["panel", "family", "lr"], observed=True)["diverged"].mean().reset_index()
    fine = by_rate["diverged"] <= 1 - share + 1e-12
    keys = [by_rate["panel"], by_rate["family"]]
    by_rate["unbroken"] = fine.groupby(keys, observed=True).cummin().astype(bool)
    groups = by_rate.groupby(["panel", "family"], observed=True)
    held = by_rate["lr"].where(by_rate["unbroken"]).groupby(keys, observed=True).max()
    table = groups["lr"].agg(tried="nunique", largest="max").assign(lr=held).reset_index()
    table["is_largest"] = table["lr"] == table["largest"]
    several = table[table["tried"] > 1]
    return several[["panel", "family", "lr", "is_largest"]].reset_index(drop=True)
