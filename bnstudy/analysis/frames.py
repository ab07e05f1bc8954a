"""What a report is about: a study's plan and its runs as data frames, with each run's arm beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.analysis import arms
from bnstudy.spec import ConfigError, nearest
from bnstudy.store import Store, load_metrics, load_runs, load_specs, load_timing

EVERYTHING = "all"
"""Name of the report on every run of a store."""

WARM_UP = 0.05
"""Share of a run's updates that do not count for its time per step."""


@dataclass(frozen=True)
class Study:
    """Everything a report is made from; frames are sorted by run_id.

    specs: the runs that were begun, as `load_specs` gives them, with the columns of `arms.LABELS`.
    runs: the finished ones, as `load_runs` gives them, with those columns and those of `with_outcomes`.
    metrics, timing: as the store's loaders give them, of the finished runs.
    planned: ids of all runs asked for.
    failures: run_id -> the last line of its error.
    """

    name: str
    title: str
    scale: str | None
    commands: tuple[str, ...]
    planned: tuple[str, ...]
    specs: pd.DataFrame
    runs: pd.DataFrame
    metrics: pd.DataFrame
    timing: pd.DataFrame
    failures: dict[str, str]

    @property
    def n_missing(self) -> int:
        return len(self.planned) - len(self.runs)


def load_study(results_dir: Path, study: str | None = None, scale: str | None = None) -> Study:
    """The study's runs at one scale, by default the one planned last; without a name every run in the store.

    Raises:
        ConfigError: nothing of the sort was planned here, or no run of it is finished.
    """
    store = Store(results_dir)
    plan = _plan_of_everything(store) if study is None else _plan(store, study, scale)
    specs = arms.label(load_specs(results_dir, plan["run_ids"]))
    runs = load_runs(results_dir, plan["run_ids"])
    if runs.empty:
        raise ConfigError(_nothing_finished(store, study, plan))
    timing = load_timing(results_dir, runs["run_id"])
    labelled = runs.merge(specs[["run_id", *arms.LABELS]], on="run_id", validate="1:1")
    return Study(
        name=study or EVERYTHING,
        title=str(plan["title"]),
        scale=plan.get("scale"),
        commands=tuple(plan["commands"]),
        planned=tuple(plan["run_ids"]),
        specs=specs,
        runs=with_outcomes(labelled, timing),
        metrics=load_metrics(results_dir, runs["run_id"]),
        timing=timing,
        failures=_failures(store, set(plan["run_ids"]) - set(runs["run_id"])),
    )


def _plan(store: Store, study: str, scale: str | None) -> dict[str, Any]:
    plans = store.plans(study)
    if not plans:
        hint = nearest(study, store.studies()) or "."
        raise ConfigError(
            f"study={study} has not been run in {store.results_dir}{hint} To run it: bnstudy study={study}"
        )
    by_scale = {plan["scale"]: plan for plan in reversed(plans)}
    if scale is not None and scale not in by_scale:
        raise ConfigError(
            f"study={study} has not been run at scale={scale} in {store.results_dir}, but at "
            f"{', '.join(sorted(by_scale))}. To run it: bnstudy study={study} scale={scale}"
        )
    return by_scale[scale] if scale is not None else plans[0]


def _plan_of_everything(store: Store) -> dict[str, Any]:
    ids = load_specs(store.results_dir)["run_id"].tolist()
    return {"title": "All runs in the store", "commands": [], "run_ids": ids}


def _nothing_finished(store: Store, study: str | None, plan: dict[str, Any]) -> str:
    where, count = store.results_dir, len(plan["run_ids"])
    if study is None:
        return f"There is no finished run in {where}. To make some: bnstudy -m norm=none,batch 'seed=range(0,5)'"
    return f"study={study}: none of its {count} runs in {where} is finished. To run them: {plan['commands'][-1]}"


def _failures(store: Store, unfinished: Iterable[str]) -> dict[str, str]:
    errors = {r: store.run(r).error for r in sorted(unfinished)}
    texts = {r: p.read_text(encoding="utf-8").strip() for r, p in errors.items() if p.exists()}
    return {r: text.splitlines()[-1] if text else "" for r, text in texts.items()}


def with_outcomes(runs: pd.DataFrame, timing: pd.DataFrame) -> pd.DataFrame:
    """Add what the analysis judges runs by. A diverged run counts as guessing: it is never left out.

    `diverged`; `chance`, the accuracy of guessing; `test_accuracy`, `val_accuracy` at the end and `best_accuracy`, the
    highest on validation, shares in 0..1; `step_ms`, the median time per update in ms.
    """
    diverged = runs["status"] == "diverged"
    chance = 1 / runs["dataset.classes"].astype(float)
    measured = {"test_accuracy": "final.test_accuracy", "val_accuracy": "final.val_accuracy"}
    measured["best_accuracy"] = "best.val_accuracy"
    outcomes = {k: runs[c].astype(float).mask(diverged | runs[c].isna(), chance) for k, c in measured.items()}
    return runs.assign(diverged=diverged, chance=chance, **outcomes, step_ms=runs["run_id"].map(step_ms(timing)))


def step_ms(timing: pd.DataFrame) -> pd.Series:
    """Median milliseconds per update by run_id, after the warm-up."""
    last = timing.groupby("run_id", observed=True)["step"].transform("max")
    warm = timing[timing["step"] > WARM_UP * last]
    return 1000 * warm.groupby("run_id", observed=True)["step_seconds"].median()


def missing_by_arm(study: Study) -> tuple[list[str], int]:
    """`"BatchNorm, lr=1: 3 of 5 seeds"` for each arm that is not complete, and how many missing runs those leave over.

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
    short = counts[counts["done"] < counts["due"]]
    lines = [f"{arm}: {row.done} of {row.due} seeds" for arm, row in short.iterrows()]
    return lines, study.n_missing - int((short["due"] - short["done"]).sum())
