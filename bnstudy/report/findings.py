"""What each family of arms reaches at its best learning rates, in sentences. Comparisons are the verdicts."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from bnstudy.claims.arms import best_arms, tuned_runs
from bnstudy.claims.completeness import Gap, find_gaps
from bnstudy.claims.frames import StudyData
from bnstudy.claims.verdicts import describe_rates
from bnstudy.report.summary import interval, percent
from bnstudy.stats.intervals import mean_interval


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
