"""A study's runs in sentences and tables, without comparisons: those are the verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from bnstudy.claims.arms import BALANCED, EVALUATION_BATCH, best_arms, in_balanced_parts, tuned_runs
from bnstudy.claims.completeness import Gap, find_gaps
from bnstudy.claims.counterevidence import describe_smallest_p, list_some
from bnstudy.claims.frames import StudyData, describe_damages, of_earlier_version
from bnstudy.claims.verdicts import describe_rates
from bnstudy.stats.intervals import Estimate, mean_interval
from bnstudy.store.outcomes import FORMER_REASON

VERDICT_SEEDS = 10
"""With fewer seeds per arm, results are a smoke test."""


def findings(study: StudyData) -> list[str]:
    """One sentence per family, each seed at the learning rate that the other seeds choose, as in verdicts; and one on
    best rates at the edge of the grid."""
    gaps = find_gaps(study)
    sentences: list[str] = []
    for panel, runs in study.runs.groupby("panel", observed=True):
        best = best_arms(runs)
        of_family = dict(list(runs.groupby("family", observed=True)))
        for row in best.itertuples():
            gap = gaps.get((str(panel), str(row.family)))
            sentences.append(f"{panel}: {row.family}{_result(of_family[row.family], row.rates, gap)}.")
        edge = best[best["edge"]]
        if len(edge):
            named = ", ".join(f"{row.family} ({row.lr:g})" for row in edge.itertuples())
            text = "the learning rate with the best mean validation accuracy is at the edge of the grid for"
            sentences.append(f"{panel}: {text} {named}: a better one may lie beyond.")
    return sentences


def _result(family: pd.DataFrame, rates: int, gap: Gap | None) -> str:
    """What a family reaches at its best learning rates."""
    runs = tuned_runs(family)
    missing, at = f" ({gap.text})" if gap else "", describe_rates(Counter(map(float, sorted(runs["lr"]))))
    at_rate = f" at its best learning rate, {at}{missing}," if rates > 1 else missing
    if rates == 1 and gap and gap.swept:
        at_rate = f" at learning rate {at}{missing}"
    lost = int(runs["counts_as_guessing"].sum())
    if runs["chance"].isna().all():
        return at_rate + _loss(runs, lost)
    test = mean_interval(runs["test_accuracy"])
    if lost == len(runs):
        everywhere = rates > 1 and not gap and bool(family["counts_as_guessing"].all())
        at_rate, seeds = ("", "at every learning rate tried") if everywhere else (at_rate, f"({_all_lost(runs)})")
        return f"{at_rate} counts as guessing, {percent(test.mean)}{', ' if everywhere else ' '}{seeds}"
    bounds = f"95% interval {interval(test)}, n = {test.n}" if test.n > 1 else "one seed"
    return f"{at_rate} reaches {percent(test.mean)} test accuracy ({', '.join([bounds, *count_lost(runs)])})"


def count_lost(runs: pd.DataFrame) -> list[str]:
    """`["2 diverged", "1 did not learn"]`, those that are not 0."""
    counts = {"diverged": int(runs["diverged"].sum()), "did not learn": int(runs["not_learned"].sum())}
    return [f"{n} {how}" for how, n in counts.items() if n]


def _all_lost(runs: pd.DataFrame) -> str:
    """`"all 3 seeds diverged"`."""
    counts, n = count_lost(runs), len(runs)
    if len(counts) > 1:
        return ", ".join(counts)
    return f"{'the seed' if n == 1 else f'all {n} seeds'} {counts[0].partition(' ')[2]}"


def _loss(runs: pd.DataFrame, diverged: int) -> str:
    """Of a regression, over the runs that did not diverge."""
    loss = mean_interval(runs.loc[~runs["diverged"], "final.test_loss"])
    if not loss.n:
        return f" diverged in all {diverged} seeds"
    n = f", n = {loss.n}" + (f", {diverged} diverged and left out" if diverged else "")
    bounds = f"95% interval {loss.low:.4g} to {loss.high:.4g}{n}" if loss.n > 1 else f"one seed{n}"
    return f" ends at a test loss of {loss.mean:.4g} ({bounds})"


def cautions(study: StudyData) -> list[str]:
    """What limits the results: versions of a dataset, few seeds, missing runs, seeds added after looking at results,
    the classes of the data, what probes could not see, runs that may have been stopped in error."""
    found = [*study.mixed_images]
    fewest = int(study.runs.groupby("arm", observed=True)["seed"].nunique().min())
    if fewest < VERDICT_SEEDS:
        count = "one seed" if fewest == 1 else f"{fewest} seeds"
        smoke = f"A smoke test, not a verdict: some arm has only {count}; at least {VERDICT_SEEDS} are needed."
        found.append(f"{smoke} {describe_smallest_p(fewest)}" if fewest > 1 else smoke)
    if study.n_missing:
        failed = f" ({len(study.failures)} failed)" if study.failures else ""
        count = f"{study.n_missing} of {len(study.planned)} planned runs"
        found.append(f"{count} {'is' if study.n_missing == 1 else 'are'} missing{failed}: all results may change.")
    found += describe_damages(study.damages)
    if study.looks == "repeated":
        found.append(
            "The number of seeds was not fixed in advance: seeds are added until the claims are decided. Intervals and "
            "tests of the verdicts are valid for any number of looks, all others for a single look."
        )
    found += [*_unbalanced(study.runs), *_not_seen(study.runs)]
    return [*found, *_stopped_by_former_bound(study), *_computed_otherwise(study.runs)]


def _not_seen(runs: pd.DataFrame) -> Iterator[str]:
    """What probes could not see in the networks of each panel; runs of earlier versions did not record it."""
    for panel, own in runs.groupby("panel", observed=True) if "probes_cannot_see" in runs else ():
        for sentence in dict.fromkeys(s for of_run in own["probes_cannot_see"].dropna() for s in of_run):
            yield f"What probes see of {panel}: {sentence}"


def _unbalanced(runs: pd.DataFrame) -> Iterator[str]:
    """A sentence for each dataset whose runs recorded their balanced accuracy."""
    for name, own in runs[runs["balanced_accuracy"].notna()].groupby("dataset.name"):
        share = percent(own["chance"].max())
        yield (
            f"The classes of {name} differ in size: guessing the most frequent one is right for {share} of its test "
            "images. Runs that diverged or did not learn count with this accuracy. Learning rates are chosen by the "
            "balanced accuracy, the mean over the classes, which the tables of arms also have."
        )


def _computed_otherwise(runs: pd.DataFrame) -> Iterator[str]:
    """Runs of earlier versions that this version would give other numbers."""
    former = of_earlier_version(runs)
    own = former & ~runs["data._target_"].astype(str).str.fullmatch(r"bnstudy\.data\.(?!image_folder\.).*")
    if n := int((own & ~runs["dataset.checksum"].isin(runs.loc[~former, "dataset.checksum"])).sum()):
        yield (
            f"{n} {'run' if n == 1 else 'runs'} of an earlier version {'takes' if n == 1 else 'take'} 1 / classes for "
            "the accuracy of guessing. It is higher if the classes differ in size."
        )
    half = former & (runs["precision"] == "bf16") & (runs.get("loss", "CrossEntropy") != "CrossEntropy")
    if n := int(half.sum()):
        yield (
            f"{n} {'run' if n == 1 else 'runs'} of an earlier version with precision=bf16 computed the loss in bf16. "
            "Runs of this version compute it in float32: do not compare them."
        )


def _stopped_by_former_bound(study: StudyData) -> Iterator[str]:
    """Runs that an earlier version stopped at a single large loss."""
    stopped = study.runs.loc[study.runs["diverged_because"] == FORMER_REASON, "run_id"]
    if n := len(stopped):
        again = f", then type: {study.commands[-1]}" if study.commands else " and train them again"
        yield (
            f"An earlier version stopped {n} {'run' if n == 1 else 'runs'} at the first training loss above 10 times "
            f"the initial one: {'it' if n == 1 else 'some'} may have recovered. To train them as this version does, "
            f"delete their folders in runs/ of the store ({list_some(list(stopped))}){again}"
        )


def arm_rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The table of a panel's arms, in order; their names leave out model and data. chosen: the best of its family."""
    chosen = set(best_arms(runs).query("rates > 1")["arm"])
    rates = runs["lr"].nunique() > 1
    by_arm = runs[["arm", *OF_ARM]].groupby("arm", observed=True)
    return [_arm_row(rows, rates) | {"chosen": arm in chosen} for arm, rows in by_arm]


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
        "step_ms": _three_digits(runs["step_ms"].median()),
        "seconds": _three_digits(runs["seconds.training"].mean()),
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


def _three_digits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
