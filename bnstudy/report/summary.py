"""What the runs say, in sentences and tables: numbers from the data and no verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bnstudy.claims import best_arms
from bnstudy.claims.completeness import Gap, gaps
from bnstudy.claims.frames import StudyData
from bnstudy.claims.measures import MEASURES, sentence
from bnstudy.stats import intervals
from bnstudy.stats.intervals import Estimate

VERDICT_SEEDS = 10
"""With fewer seeds an arm, nothing is more than a smoke test."""


@dataclass(frozen=True)
class ArmRow:
    """An arm of a panel as its table shows it: texts, but for `chosen`, the best learning rate of its family."""

    arm: str
    test: str
    interval: str
    seeds: int
    diverged: int
    validation: str
    best_validation: str
    step_ms: str
    seconds: str
    chosen: bool


def findings(study: StudyData) -> list[str]:
    """Plain sentences: how well each family does, by how much it differs, which learning rates it bears."""
    lacking = gaps(study)
    sentences: list[str] = []
    for panel, runs in study.runs.groupby("panel", observed=True):
        best = best_arms.best_arms(runs)
        best["gap"] = [lacking.get((str(panel), str(family))) for family in best["family"]]
        reached = _losses(runs, best) if runs["chance"].isna().all() else _accuracies(runs, best)
        told = [*reached, *_confounded(best), *_tolerance(runs), *_on_the_edge(best)]
        told += _inside(study, runs, best)
        sentences += [f"{panel}: {sentence}" for sentence in told]
    return sentences


def cautions(study: StudyData) -> list[str]:
    """What the reader must know before believing: that there are too few seeds, that runs are missing, and that seeds
    were added because of what was seen."""
    told = []
    fewest = int(study.runs.groupby("arm", observed=True)["seed"].nunique().min())
    if fewest < VERDICT_SEEDS:
        count = "one seed" if fewest == 1 else f"{fewest} seeds"
        told.append(
            f"A smoke test, not a verdict: some arm has only {count}, and fewer than {VERDICT_SEEDS} settle nothing."
        )
    if study.n_missing:
        failed = f" ({len(study.failures)} failed)" if study.failures else ""
        count = f"{study.n_missing} of {len(study.planned)} planned runs"
        told.append(f"{count} {'is' if study.n_missing == 1 else 'are'} missing{failed}: everything here may change.")
    if study.looks == "repeated":
        told.append(
            "The number of seeds was not fixed before: they are added until the claims are decided. The intervals and "
            "tests of the verdicts hold however often one looks, all others are for a single look."
        )
    return told


def _accuracies(runs: pd.DataFrame, best: pd.DataFrame) -> list[str]:
    """One sentence a family, with its baseline if it has one; a baseline alone gets none where others tell of it."""
    pairs = best_arms.baselines(best)
    by_arm = {str(arm): rows.set_index("seed") for arm, rows in runs.groupby("arm", observed=True)}
    told = []
    for row in best.itertuples():
        arm = str(row.arm)
        if arm in pairs:
            told.append(_comparison(best.set_index("arm", drop=False), by_arm, arm, pairs[arm]))
        elif arm not in pairs.values():
            told.append(f"{_reaches(row._asdict(), by_arm[arm])}.")
    return told


def _losses(runs: pd.DataFrame, best: pd.DataFrame) -> list[str]:
    """One sentence a family of a regression, on the runs that did not diverge."""
    told = []
    for row in best.itertuples():
        own = runs[runs["arm"] == row.arm]
        estimate, lost = (
            intervals.mean_interval(own.loc[~own["diverged"], "final.test_loss"]),
            int(own["diverged"].sum()),
        )
        n = f", n = {estimate.n}" + (f", {lost} diverged and left out" if lost else "")
        bounds = f"95% interval {estimate.low:.4g} to {estimate.high:.4g}{n}" if estimate.n > 1 else f"one seed{n}"
        ends = (
            f"ends at a test loss of {estimate.mean:.4g} ({bounds})" if estimate.n else f"diverged in all {lost} seeds"
        )
        told.append(f"{row.family}{_at_rate(row._asdict())} {ends}.")
    return told


def _confounded(best: pd.DataFrame) -> list[str]:
    """Families of a panel that nothing can be said to be due to the norm of."""
    references = best_arms.references(best)
    alone = best.drop(references.index)
    alone = alone[~alone["arm"].isin(list(best_arms.baselines(best)))]
    if alone.empty:
        return []
    verb = "differs" if len(alone) == 1 else "differ"
    named, others = (_some(rows["family"].tolist(), "; ") for rows in (alone, references))
    return [f"{named} {verb} in more than the normalization from {others}: not compared."]


def _comparison(best: pd.DataFrame, by_arm: dict[str, pd.DataFrame], arm: str, baseline: str) -> str:
    rows = [best.loc[a].to_dict() for a in (arm, baseline)]
    text = f"{'; '.join(_reaches(row, by_arm[row['arm']]) for row in rows)}."
    if any(row["gap"] and row["gap"].swept for row in rows):
        return f"{text} No difference is stated: what their best learning rates are is not settled."
    difference = intervals.paired_difference(by_arm[arm]["test_accuracy"], by_arm[baseline]["test_accuracy"])
    if difference.n == 0:
        return f"{text} They share no seed."
    seeds = "1 shared seed" if difference.n == 1 else f"{difference.n} shared seeds"
    bounds = f"95% interval {_points(difference.low)} to {_points(difference.high)}, " if difference.n > 1 else ""
    return f"{text} The paired difference is {_points(difference.mean)} percentage points ({bounds}{seeds})."


def _reaches(row: Mapping[str, Any], runs: pd.DataFrame) -> str:
    rate = _at_rate(row)
    estimate, diverged = intervals.mean_interval(runs["test_accuracy"]), int(runs["diverged"].sum())
    bounds = f"95% interval {interval(estimate)}, n = {estimate.n}" if estimate.n > 1 else "one seed"
    if diverged == len(runs) and row["rates"] > 1 and not row["gap"]:
        return f"{row['family']} counts as guessing, {percent(estimate.mean)}, at every learning rate tried"
    if diverged == len(runs):
        lost = "the seed" if diverged == 1 else f"all {diverged} seeds"
        return f"{row['family']}{rate} counts as guessing, {percent(estimate.mean)} ({lost} diverged)"
    lost = f", {diverged} diverged" if diverged else ""
    return f"{row['family']}{rate} reaches {percent(estimate.mean)} test accuracy ({bounds}{lost})"


def _at_rate(row: Mapping[str, Any]) -> str:
    gap: Gap | None = row["gap"]
    lacking = f" ({gap.text})" if gap else ""
    if row["rates"] > 1:
        return f" at its best learning rate, {row['lr']:g}{lacking},"
    return f" at learning rate {row['lr']:g}{lacking}" if gap and gap.swept else lacking


def _inside(study: StudyData, runs: pd.DataFrame, best: pd.DataFrame) -> list[str]:
    """A sentence a measure, on the families at their best rate; those that lost a run or lack one are left out."""
    settled = best[best["gap"].isna()]
    by_arm = {str(arm): rows for arm, rows in runs.groupby("arm", observed=True) if not rows["diverged"].any()}
    names = {str(row.arm): f"{row.family}" for row in settled.itertuples() if row.arm in by_arm}
    pairs = {arm: other for arm, other in best_arms.baselines(best).items() if {arm, other} <= names.keys()}
    of_names = pd.concat([by_arm[arm]["run_id"] for arm in names]) if names else study.runs["run_id"][:0]
    chosen = study.metrics_of.of(of_names)
    told = []
    for measure in MEASURES:
        value = measure.read(chosen)
        values = {arm: by_arm[arm].set_index("seed")["run_id"].map(value).astype(float) for arm in names}
        if names and all(by_seed.notna().all() for by_seed in values.values()):
            where = " at those learning rates" if best["rates"].max() > 1 else ""
            told.append(sentence(measure, where, values, names, pairs))
    return told


def _tolerance(runs: pd.DataFrame) -> list[str]:
    table = best_arms.tolerated_rates(runs)
    if table.empty:
        return []
    parts = [_tolerated(str(r.family), float(r.lr), bool(r.is_largest)) for r in table.itertuples()]
    rule = f"at which, and at all smaller ones, at least {best_arms.TOLERATED:.0%} of the seeds do not diverge"
    return [f"the largest learning rate {rule}: {'; '.join(parts)}."]


def _tolerated(family: str, lr: float, is_largest: bool) -> str:
    if math.isnan(lr):
        return f"{family} none of those tried"
    return f"{family} {lr:g}{' (the largest tried)' if is_largest else ''}"


def _on_the_edge(best: pd.DataFrame) -> list[str]:
    edge = best[best["edge"]]
    if edge.empty:
        return []
    named = ", ".join(f"{family} ({lr:g})" for family, lr in zip(edge["family"], edge["lr"], strict=True))
    return [f"the best learning rate lies on the edge of those tried for {named}: a better one may lie beyond."]


def arm_rows(runs: pd.DataFrame) -> list[ArmRow]:
    """The table of a panel's arms, in order; in it arms are named without model and data."""
    chosen = set(best_arms.best_arms(runs).query("rates > 1")["arm"])
    rates = runs["lr"].nunique() > 1
    return [_arm_row(rows, arm in chosen, rates) for arm, rows in runs.groupby("arm", observed=True)]


def _arm_row(runs: pd.DataFrame, chosen: bool, rates: bool) -> ArmRow:
    test = intervals.mean_interval(runs["test_accuracy"])
    first, diverged = runs.iloc[0], int(runs["diverged"].sum())
    return ArmRow(
        arm=f"{first['family']}, lr={first['lr']:g}" if rates else str(first["family"]),
        test=percent(test.mean),
        interval=interval(test) if diverged < test.n else "-",
        seeds=test.n,
        diverged=diverged,
        validation=percent(runs["val_accuracy"].mean()),
        best_validation=percent(runs["best_accuracy"].mean()),
        step_ms=_number(runs["step_ms"].median()),
        seconds=_number(runs["seconds.training"].mean()),
        chosen=chosen,
    )


def diverged_lines(study: StudyData) -> list[str]:
    """`"NoNorm, lr=3: 4 of 5 diverged, the first at update 12 (training loss nan)"` for each arm concerned."""
    lines = []
    for arm, runs in study.runs.groupby("arm", observed=True):
        lost = runs[runs["diverged"]].sort_values(["diverged_step", "seed"])
        if len(lost):
            first = lost.iloc[0]
            step = f"update {first['diverged_step']:.0f}" if pd.notna(first["diverged_step"]) else "an unknown update"
            lines.append(
                f"{arm}: {len(lost)} of {len(runs)} diverged, the first at {step} ({first['diverged_because']})"
            )
    return lines


def facts(study: StudyData) -> list[tuple[str, str]]:
    """What was run, as terms and values."""
    runs = study.runs
    seeds = sorted(int(s) for s in runs["seed"].unique())
    listed = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1 else _some(seeds)
    sets = runs.drop_duplicates("dataset.name").sort_values("dataset.name").filter(like="dataset.").to_dict("records")
    sizes = (
        "{0[dataset.name]} ({0[dataset.train]} training, {0[dataset.val]} validation, {0[dataset.test]} test images)"
    )
    versions = [
        f"{c.removeprefix('versions.')} {_some(sorted(runs[c].dropna().unique()))}"
        for c in sorted(runs)
        if c.startswith("versions.")
    ]
    return [
        ("Runs", _counted(study)),
        ("Arms", str(runs["arm"].nunique())),
        ("Seeds", f"{len(seeds)} ({listed})"),
        ("Data", "; ".join(sizes.format(s) for s in sets)),
        ("Training", f"{duration(runs['seconds.training'].sum())} in all, without evaluation and probes"),
        ("Devices", _some(sorted(runs["device"].dropna().unique()))),
        ("Versions", ", ".join(versions)),
    ]


def _counted(study: StudyData) -> str:
    diverged, n = int(study.runs["diverged"].sum()), len(study.repeats)
    counted = f"{len(study.runs)} of {len(study.planned)} finished, {diverged} of them diverged"
    if not n:
        return counted
    return f"{counted}; {n} more left out, {'a training' if n == 1 else 'trainings'} that other runs here record too"


# ---------------------------------------------------------------------------------------------------- wording


def percent(share: float) -> str:
    """A dash where there is no accuracy."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def interval(estimate: Estimate) -> str:
    """Of an accuracy, in per cent: its part within 0 to 100, which covers as often. A dash where there is none."""
    if math.isnan(estimate.mean):
        return "-"
    low, high = max(0.0, estimate.low), min(1.0, estimate.high)
    return f"{100 * low:.1f} to {100 * high:.1f}" if estimate.n > 1 else "-"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _points(share: float) -> str:
    """A difference of shares as percentage points, within the -100 to 100 that are possible."""
    return f"{100 * min(1.0, max(-1.0, share)):+.1f}"


def _number(value: float) -> str:
    """With three digits."""
    return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _some(values: list, separator: str = ", ") -> str:
    shown = separator.join(str(v) for v in values[:6])
    return f"{shown} and {len(values) - 6} more" if len(values) > 6 else shown
