"""Missing runs: those of a plan, and those by which a family falls behind others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnstudy.claims.frames import StudyData


@dataclass(frozen=True)
class Gap:
    """What a family lacks. swept: the family, or one to compare it with, has several learning rates."""

    text: str
    swept: bool


def missing_by_arm(study: StudyData) -> tuple[list[str], int]:
    """`"BatchNorm, lr=1: 3 of 5 seeds"` for each incomplete arm, and the number of other missing runs."""
    counts = runs_by_arm(study)
    short = counts[counts["done"] < counts["due"]]
    lines = [f"{arm}: {row.done} of {row.due} seeds" for arm, row in short.iterrows()]
    return lines, study.n_missing - int((short["due"] - short["done"]).sum())


def runs_by_arm(study: StudyData) -> pd.DataFrame:
    """By arm, how many runs were `begun`, are `done`, and are `due`.

    The store does not describe runs that have not begun. If their number allows it, they count as the seeds that some
    arms lack.
    """
    counts = study.specs.groupby("arm", observed=True)["run_id"].agg(begun="count").astype(int)
    counts["done"] = study.runs.groupby("arm", observed=True)["run_id"].count()
    counts = counts.fillna(0).astype(int)
    waiting = len(study.planned) - int(counts["begun"].sum())
    full = study.specs["seed"].nunique()
    lacking = int((full - counts["begun"]).clip(lower=0).sum())
    counts["due"] = np.maximum(counts["begun"], full) if 0 < lacking <= waiting else counts["begun"]
    return counts


def find_gaps(study: StudyData) -> dict[tuple[str, str], Gap]:
    """(panel, family) -> what it lacks of its own plan, or of the seeds of the families of its panel that differ in the
    norm alone. Complete families are left out.

    Their learning rates may differ: the second pass adds to each family those around its own best one.
    """
    counts = runs_by_arm(study)
    found: dict[tuple[str, str], Gap] = {}
    keys = ["family", "lr", "seed"]
    specs, runs = study.specs[["panel", "rest", *keys, "arm"]], study.runs[["panel", *keys]]
    for (panel, _), peers in specs.groupby(["panel", "rest"], observed=True):
        in_panel = runs[runs["panel"] == panel]
        for family, begun in peers.groupby("family", observed=True):
            done = in_panel[in_panel["family"] == family]
            text = _describe_gap(done, begun, peers, counts.loc[begun["arm"].unique()])
            if text:
                found[str(panel), str(family)] = Gap(text, swept=peers["lr"].nunique() > 1)
    return found


def _describe_gap(done: pd.DataFrame, begun: pd.DataFrame, peers: pd.DataFrame, counts: pd.DataFrame) -> str:
    if done["lr"].nunique() < begun["lr"].nunique():
        return f"grid incomplete: {done['lr'].nunique()} of {begun['lr'].nunique()} rates"
    if done["seed"].nunique() < peers["seed"].nunique():
        return f"seeds incomplete: {done['seed'].nunique()} of {peers['seed'].nunique()}"
    finished, due = int(counts["done"].sum()), int(counts["due"].sum())
    return f"runs incomplete: {finished} of {due}" if finished < due else ""
