"""What is not there: the runs of a plan that are missing, and the families that have less than others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnstudy.claims.frames import StudyData

OF_FAMILY = ("family", "lr", "seed")
"""What tells of a family what it has and lacks."""


@dataclass(frozen=True)
class Gap:
    """What a family lacks, in words. swept: it has learning rates to choose from, or others that are like it have."""

    text: str
    swept: bool


def missing_by_arm(study: StudyData) -> tuple[list[str], int]:
    """`"BatchNorm, lr=1: 3 of 5 seeds"` for each arm that is not complete, and how many runs are missing besides."""
    counts = runs_by_arm(study)
    short = counts[counts["done"] < counts["due"]]
    lines = [f"{arm}: {row.done} of {row.due} seeds" for arm, row in short.iterrows()]
    return lines, study.n_missing - int((short["due"] - short["done"]).sum())


def runs_by_arm(study: StudyData) -> pd.DataFrame:
    """By arm, how many runs were `begun`, are `done`, and are `due`.

    Runs that have not begun are not described in the store. Where they can be just the seeds that some arms lack,
    they are taken for those.
    """
    counts = study.specs.groupby("arm", observed=True)["run_id"].agg(begun="count").astype(int)
    counts["done"] = study.runs.groupby("arm", observed=True)["run_id"].count()
    counts = counts.fillna(0).astype(int)
    waiting = len(study.planned) - int(counts["begun"].sum())
    full = study.specs["seed"].nunique()
    lacking = int((full - counts["begun"]).clip(lower=0).sum())
    counts["due"] = np.maximum(counts["begun"], full) if 0 < lacking <= waiting else counts["begun"]
    return counts


def gaps(study: StudyData) -> dict[tuple[str, str], Gap]:
    """(panel, family) -> what it lacks of its own plan, or of the learning rates and seeds of the families of its panel
    that differ from it in the norm alone. Complete families are not in it.
    """
    counts = runs_by_arm(study)
    found: dict[tuple[str, str], Gap] = {}
    specs, runs = study.specs[["panel", "rest", *OF_FAMILY, "arm"]], study.runs[["panel", *OF_FAMILY]]
    for (panel, _), alike in specs.groupby(["panel", "rest"], observed=True):
        in_panel = runs[runs["panel"] == panel]
        for family, begun in alike.groupby("family", observed=True):
            done = in_panel[in_panel["family"] == family]
            text = _lacks(done, alike, counts.loc[begun["arm"].unique()])
            if text:
                found[str(panel), str(family)] = Gap(text, swept=alike["lr"].nunique() > 1)
    return found


def _lacks(done: pd.DataFrame, alike: pd.DataFrame, counts: pd.DataFrame) -> str:
    rates, seeds = (f"{done[c].nunique()} of {alike[c].nunique()}" for c in ("lr", "seed"))
    if done["lr"].nunique() < alike["lr"].nunique():
        return f"grid incomplete: {rates} rates"
    if done["seed"].nunique() < alike["seed"].nunique():
        return f"seeds incomplete: {seeds}"
    finished, due = int(counts["done"].sum()), int(counts["due"].sum())
    return f"runs incomplete: {finished} of {due}" if finished < due else ""
