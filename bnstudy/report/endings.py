"""Transforms of runs that end before the others: they diverged, stopped early, or did not learn."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnstudy.report.panels import Panel


def until_divergence(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Finite rows of each arm before the first of its runs diverges: later means would be means of survivors."""
    first = runs[runs["diverged"]].groupby("arm", observed=True)["diverged_step"].min()
    rows = until_stopped(rows, runs)
    end = rows["arm"].map(first).astype(float)
    return rows[~(rows["step"] >= end) & np.isfinite(rows["value"])]


def until_stopped(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of each arm up to where the first of its runs stops early."""
    first = stopped_steps(runs).groupby(runs["arm"], observed=True).min()
    return rows[~(rows["step"] > rows["arm"].map(first).astype(float))]


def stopped_steps(runs: pd.DataFrame) -> pd.Series:
    """The steps at which early stopping ended runs; missing for the others."""
    none = pd.Series(np.nan, runs.index)
    return runs.get("stopped_step", none).astype(float)


def with_last_step(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows with the number of `steps` that their run made."""
    steps = stopped_steps(runs).fillna(runs["steps"])
    return rows.merge(runs[["run_id"]].assign(steps=steps), on="run_id")


def hold_at_chance(accuracy: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Give diverged runs chance accuracy from their divergence on, and runs that did not learn at the end."""
    return hold(accuracy, runs, runs.loc[runs["counts_as_guessing"], "chance"])


def hold(rows: pd.DataFrame, runs: pd.DataFrame, worst: pd.Series) -> pd.DataFrame:
    """Give runs their value in `worst`, by the index of `runs`, from their divergence to the end of training, or at the
    end if they did not diverge. Rows of an arm end where the first of its runs stops early.

    The new rows are at the steps at which other runs of the same length were measured, and at the last step.
    """
    ends = stopped_steps(runs).fillna(runs["steps"])
    since = runs["diverged_step"].where(runs["diverged"]).astype(float).fillna(ends)
    lost = runs.assign(since=since).loc[worst.index, ["run_id", "arm", "steps", "since"]].assign(value=worst)
    total = rows["run_id"].map(runs.set_index("run_id")["steps"])
    ends = pd.DataFrame({"steps": lost["steps"], "step": lost["steps"]})
    grid = pd.concat([rows[["step"]].assign(steps=total), ends]).drop_duplicates()
    held = lost.merge(grid, on="steps").query("step >= since")
    end = rows["run_id"].map(lost.set_index("run_id")["since"]).astype(float)
    columns = ["run_id", "arm", "step", "value"]
    kept = rows.loc[~(rows["step"] >= end), columns]
    return until_stopped(pd.concat([kept, held[columns].astype(kept.dtypes)], ignore_index=True), runs)


def divergence_points(panel: Panel, loss: pd.DataFrame) -> pd.DataFrame:
    """Where runs diverged: `arm` `run_id` `step`, and the last finite value of the binned loss as `value`."""
    runs = panel.arm_runs
    diverged = runs.loc[runs["diverged"], ["run_id", "arm", "diverged_step"]]
    finite = loss[np.isfinite(loss["value"])].sort_values("step")
    last = finite.drop_duplicates("run_id", keep="last").set_index("run_id")["value"]
    step = diverged["diverged_step"].astype(float).clip(lower=1)
    return diverged.assign(step=step, value=diverged["run_id"].map(last)).dropna(subset=["step", "value"])
