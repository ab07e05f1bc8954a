"""What was run, as terms and values; and how shares and durations are written."""

from __future__ import annotations

import math

import pandas as pd

from bnstudy.claims.arms import BALANCED, EVALUATION_BATCH, in_balanced_parts
from bnstudy.claims.counterevidence import list_some
from bnstudy.claims.frames import StudyData
from bnstudy.stats.intervals import Estimate


def facts(study: StudyData) -> list[tuple[str, str]]:
    """What was run, as terms and values."""
    runs = study.runs
    seeds = sorted(int(s) for s in runs["seed"].unique())
    is_range = len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
    sets = runs.drop_duplicates("dataset.name").sort_values("dataset.name").filter(like="dataset.").to_dict("records")
    sizes = (
        "{0[dataset.name]} ({0[dataset.train]} training, {0[dataset.val]} validation, {0[dataset.test]} test images)"
    )
    versions = [
        f"{c.removeprefix('versions.')} {list_some(sorted(runs[c].dropna().unique()))}"
        for c in sorted(runs)
        if c.startswith("versions.")
    ]
    evaluation = _evaluation_batches(runs)
    return [
        ("Runs", _count_runs(study)),
        ("Arms", str(runs["arm"].nunique())),
        ("Seeds", f"{len(seeds)} ({f'{seeds[0]} to {seeds[-1]}' if is_range else list_some(seeds)})"),
        ("Data", "; ".join(sizes.format(s) for s in sets)),
        *([("Evaluation", evaluation)] if evaluation else []),
        ("Training", f"{duration(runs['seconds.training'].sum())} in total, without evaluation and probes"),
        ("Devices", list_some(sorted(runs["device"].dropna().unique()))),
        ("Versions", ", ".join(versions)),
    ]


def _evaluation_batches(runs: pd.DataFrame) -> str:
    """The batches whose statistics evaluations use; "" where all norms have running statistics or need none."""
    sizes = runs[EVALUATION_BATCH].dropna().unique() if EVALUATION_BATCH in runs else ()
    kinds = (
        [f"random batches of at most {list_some([int(size) for size in sorted(sizes)])} images"] if len(sizes) else []
    )
    kinds += [f"{BALANCED} images (by an earlier version)"] if in_balanced_parts(runs).any() else []
    return f"norms without running statistics use those of {' and of '.join(kinds)}" if kinds else ""


def _count_runs(study: StudyData) -> str:
    repeats, counts = len(study.repeats), describe_runs(study.runs, len(study.planned))
    if not repeats:
        return counts
    same = "a training" if repeats == 1 else "trainings"
    return f"{counts}; {repeats} more left out, {same} that other runs here record too"


def describe_runs(runs: pd.DataFrame, planned: int) -> str:
    """`"47 of 48 finished, 12 of them diverged, 1 did not learn"`."""
    diverged, dull = int(runs["diverged"].sum()), int(runs["not_learned"].sum())
    not_learned = f", {dull} did not learn" if dull else ""
    return f"{len(runs)} of {planned} finished, {diverged} of them diverged{not_learned}"


def percent(share: float) -> str:
    """A dash for no accuracy."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def interval(estimate: Estimate) -> str:
    """Of an accuracy, in percent: the part within 0 to 100, which covers as often. A dash for none."""
    if math.isnan(estimate.mean):
        return "-"
    low, high = max(0.0, estimate.low), min(1.0, estimate.high)
    return f"{100 * low:.1f} to {100 * high:.1f}" if estimate.n > 1 else "-"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
