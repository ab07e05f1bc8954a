"""The tables of a panel's arms: their accuracies, which runs were lost, and what probes cost."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bnstudy.claims.arms import best_arms
from bnstudy.claims.frames import StudyData
from bnstudy.claims.numbers import same_decimals
from bnstudy.report.summary import interval, percent
from bnstudy.stats.intervals import mean_interval


def arm_rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The table of a panel's arms, in order; their names leave out model and data. chosen: the best of its family."""
    chosen = set(best_arms(runs).query("rates > 1")["arm"])
    rates = runs["lr"].nunique() > 1
    by_arm = runs[["arm", *OF_ARM]].groupby("arm", observed=True)
    rows = [_arm_row(rows, rates) | {"chosen": arm in chosen} for arm, rows in by_arm]
    for column in ("step_ms", "seconds"):
        for row, text in zip(rows, same_decimals([row[column] for row in rows]), strict=True):
            row[column] = text
    return rows


OF_ARM = [
    *("family", "lr", "test_accuracy", "val_accuracy", "best_accuracy", "balanced_accuracy"),
    *("counts_as_guessing", "diverged", "not_learned", "step_ms", "seconds.training"),
]
"""The columns that the table of arms reads."""


def _arm_row(runs: pd.DataFrame, rates: bool) -> dict[str, Any]:
    test = mean_interval(runs["test_accuracy"])
    first, all_lost = runs.iloc[0], bool(runs["counts_as_guessing"].all())
    return {
        "arm": f"{first['family']}, lr={first['lr']:g}" if rates else str(first["family"]),
        "test": percent(test.mean),
        "interval": "-" if all_lost else interval(test),
        "balanced": "" if runs["balanced_accuracy"].isna().all() else percent(runs["balanced_accuracy"].mean()),
        "seeds": test.n,
        "diverged": int(runs["diverged"].sum()),
        "not_learned": int(runs["not_learned"].sum()),
        "validation": percent(runs["val_accuracy"].mean()),
        "best_validation": percent(runs["best_accuracy"].mean()),
        "step_ms": float(runs["step_ms"].median()),
        "seconds": float(runs["seconds.training"].mean()),
    }


def probe_overhead(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The time that probes take, a row for each panel and probe, the slowest first, and one for all probes together.

    Means over the runs of the panel with the probe; `share`, of the whole time of a run.
    """
    return [row for panel, group in runs.groupby("panel", observed=True) for row in _overhead_rows(str(panel), group)]


def _overhead_rows(panel: str, runs: pd.DataFrame) -> list[dict[str, Any]]:
    seconds = runs.filter(regex=r"^probe_seconds\.").astype(float).dropna(axis=1, how="all")
    seconds = seconds[seconds.mean().sort_index().sort_values(ascending=False, kind="stable").index]
    by_probe = {str(c).removeprefix("probe_seconds."): seconds[c] for c in seconds}
    if len(by_probe) > 1:
        by_probe["all probes"] = seconds.sum(axis=1, min_count=1)
    shares = {probe: (s / runs["seconds.total"].astype(float)).mean() for probe, s in by_probe.items()}
    return [
        {"panel": panel, "probe": k, "runs": int(s.count()), "seconds": f"{s.mean():.3g}", "share": f"{shares[k]:.1%}"}
        for k, s in by_probe.items()
    ]


def diverged_lines(study: StudyData) -> list[str]:
    """`"NoNorm, lr=3: 4 of 5 diverged, the first at step 12 (training loss nan); 1 of 5 did not learn"` for each arm
    with such runs."""
    lines = []
    columns = ["arm", "seed", "diverged", "diverged_step", "diverged_because", "not_learned"]
    for arm, runs in study.runs[columns].groupby("arm", observed=True):  # dividing all columns takes ten times as long
        parts, stopped = [], runs[runs["diverged"]].sort_values(["diverged_step", "seed"])
        if len(stopped):
            first = stopped.iloc[0]
            step = f"step {first['diverged_step']:.0f}" if pd.notna(first["diverged_step"]) else "an unknown step"
            because = first["diverged_because"]
            parts.append(f"{len(stopped)} of {len(runs)} diverged, the first at {step} ({because})")
        if dull := int(runs["not_learned"].sum()):
            parts.append(f"{dull} of {len(runs)} did not learn")
        if parts:
            lines.append(f"{arm}: {'; '.join(parts)}")
    return lines
