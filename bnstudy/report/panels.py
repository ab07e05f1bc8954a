"""Panels, each one model on one dataset: the arms that figures show, with their measurements."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bnstudy.claims.arms import best_arms
from bnstudy.claims.contrasts import SIDES, Contrast
from bnstudy.claims.frames import RowsByRun, StudyData

MANY_RATES = 3
MANY_ARMS = 9
"""With that many learning rates in a family, or arms, curves are drawn only at each family's best rate."""


@dataclass(frozen=True)
class Panel:
    """One model on one dataset.

    Args:
        runs: all runs.
        arms: the arms whose curves are drawn, one a row: `arm` `family` `label`.
        metrics, timing: the measurements of these arms, with the column `arm`.
        speed: of the runs that the claims on the speed of training compare; None for no such claim.
    """

    name: str
    runs: pd.DataFrame
    arms: pd.DataFrame
    metrics: pd.DataFrame
    timing: pd.DataFrame
    speed: Speed | None = None

    @property
    def arm_runs(self) -> pd.DataFrame:
        return self.runs[self.runs["arm"].isin(self.arms["arm"])]

    @property
    def labels(self) -> dict[str, str]:
        return dict(zip(self.arms["arm"].astype(str), self.arms["label"], strict=True))

    @property
    def names(self) -> dict[str, str]:
        """Short labels for titles: without the learning rate where a family has one arm."""
        alone = ~self.arms["family"].duplicated(keep=False)
        names = self.arms["label"].mask(alone, self.arms["family"].astype(str))
        return dict(zip(self.arms["arm"].astype(str), names, strict=True))

    def families(self, arms: Collection[str]) -> list[str]:
        return list(self.arms.loc[self.arms["arm"].isin([*arms]), "family"].astype(str))

    def network_rows(self, metric: str, split: str = "") -> pd.DataFrame:
        """Rows of a metric of the whole network."""
        m = self.metrics
        return m[(m["metric"] == metric) & (m["split"] == split) & (m["layer"] == "")]

    def layer_rows(self, metric: str) -> pd.DataFrame:
        """Rows of a metric of the layers, with `depth`, which is 1 for the first layer."""
        m = self.metrics
        rows = join_calls(m[(m["metric"] == metric) & (m["layer"] != "")])
        return rows.assign(depth=rows.groupby(["run_id", "step"], observed=True).cumcount() + 1)


def join_calls(rows: pd.DataFrame) -> pd.DataFrame:
    """Replace the rows of the calls of a layer, `name`, `name.2`, `name.3`, ..., by their mean: a recurrent layer has a
    call at each step of a sequence."""
    names = rows["layer"].unique().astype(str)
    layers = {name: _called_layer(name, {*names}) for name in names}
    if all(name == layer for name, layer in layers.items()):
        return rows
    others = [column for column in rows if column != "value"]
    named = rows.assign(layer=rows["layer"].astype(str).map(layers))
    return named.groupby(others, sort=False, observed=True, dropna=False, as_index=False)["value"].mean()[[*rows]]


def _called_layer(name: str, names: set[str]) -> str:
    layer, _, number = name.rpartition(".")
    return layer if layer in names and number.isdecimal() else name


@dataclass(frozen=True)
class Speed:
    """What the claims on the speed of training compare in a panel.

    Args:
        panel: with each family at the learning rate at which most of its seeds are evaluated.
        contrasts: in the claims' primary views.
    """

    panel: Panel
    contrasts: Sequence[Contrast]

    def targets(self, families: Collection[str]) -> dict[float, Contrast]:
        """The validation accuracies to reach, as shares, of the contrasts between these families."""
        return {c.target: c for c in self.contrasts if c.case.families & set(families)}


def panels(study: StudyData, contrasts: Iterable[Contrast] = ()) -> list[Panel]:
    """One panel for each model and dataset with finished runs, in order.

    Args:
        contrasts: of the study, which name the runs that claims on the speed of training compare.
    """
    on_speed = [c for c in contrasts if c.is_primary and not math.isnan(c.target) and c.rates]
    return [
        _panel(study, str(name), runs, [c for c in on_speed if c.case.panel == name])
        for name, runs in study.runs.groupby("panel", observed=True)
    ]


def _panel(study: StudyData, name: str, runs: pd.DataFrame, on_speed: Sequence[Contrast]) -> Panel:
    arms = choose_arms(runs)
    panel = Panel(name, runs, arms, *_measurements(study, runs, arms))
    if not on_speed:
        return panel
    sides = ((c, *side) for c in on_speed for side in zip(SIDES, (c.case.with_, c.case.without), strict=True))
    fastest = _at_rates(runs, arms, {family: c.rate_of(side) for c, side, own in sides for family in own})
    alone = Panel(name, runs, fastest, *_measurements(study, runs, fastest))
    return replace(panel, speed=Speed(alone, on_speed))


def _at_rates(runs: pd.DataFrame, arms: pd.DataFrame, rates: Mapping[str, float]) -> pd.DataFrame:
    """`arms` with the families in `rates` at these learning rates."""
    every = runs.drop_duplicates("arm").astype({"family": str})
    at_rate = every[every["lr"] == every["family"].map(rates).astype(float)].set_index("family")
    rows = arms.astype({"family": str}).drop_duplicates("family").set_index("family")
    changed = rows.index.intersection(at_rate.index)
    rows = rows.assign(arm=rows["arm"].astype(object))
    rows.loc[changed, "arm"] = at_rate.loc[changed, "arm"].astype(object)
    rows.loc[changed, "label"] = [f"{family} (lr={rates[family]:g})" for family in changed]
    arm = pd.Categorical(rows["arm"], categories=runs["arm"].cat.categories, ordered=True)
    family = pd.Categorical(rows.index, categories=runs["family"].cat.categories, ordered=True)
    return rows.assign(arm=arm, family=family).reset_index(drop=True)[["arm", "family", "label"]]


def _measurements(study: StudyData, runs: pd.DataFrame, arms: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    arm_of_run = runs[runs["arm"].isin(arms["arm"])].set_index("run_id")["arm"]
    return _add_arm(study.metrics_of, arm_of_run), _add_arm(RowsByRun(study.timing), arm_of_run)


def _add_arm(rows: RowsByRun, arm_of_run: pd.Series) -> pd.DataFrame:
    """The rows of the runs in `arm_of_run` (arm by run_id), with their arm."""
    selected = rows.of(arm_of_run.index.to_series()).reset_index(drop=True)
    run = selected["run_id"].astype("category")
    arm = arm_of_run.reindex(run.cat.categories).array.take(run.cat.codes.to_numpy())  # `map` would lose the categories
    return selected.assign(arm=arm)


def choose_arms(runs: pd.DataFrame) -> pd.DataFrame:
    """The arms to draw, `arm` `family` `label`: each family at its best learning rate if there are many, else all."""
    best = best_arms(runs)
    if (best["rates"] >= MANY_RATES).any() or runs["arm"].nunique() >= MANY_ARMS:
        at = [f" (best lr={lr:g})" if rates > 1 else "" for lr, rates in zip(best["lr"], best["rates"], strict=True)]
        return best[["arm", "family"]].assign(label=best["family"].astype(str) + at)
    every = runs.drop_duplicates("arm").sort_values("arm").reset_index(drop=True)
    has_rates = every.groupby("family", observed=True)["lr"].transform("nunique") > 1
    at_lr = every["family"].astype(str) + [f", lr={lr:g}" for lr in every["lr"]]
    return every[["arm", "family"]].assign(label=at_lr.where(has_rates, every["family"].astype(str)))
