"""What counts against a claim in its own results: what a sceptical reader would look for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from bnstudy.claims.verdicts import Verdict
from bnstudy.report.verdict_rows import VerdictRow, rows_of
from bnstudy.stats.tests import ALPHA

NEAR_DELTA = 0.1
"""An interval that ends within this share of delta from delta is close to it,"""
NEAR_ALPHA = ALPHA / 2
"""and a p-value from here to 5% is close to that."""

NOTHING = "Nothing that these runs show."

MOST_LISTED = 6


def find_counterevidence(verdicts: Sequence[Verdict]) -> list[str]:
    """Sentences on the verdicts of one claim; `NOTHING` where there are none."""
    rows = rows_of(verdicts)
    primary = [row for row in rows if row.is_primary]
    found = [*_not_supported(primary), *_opposite_signs(primary), *_views(rows), *_inconclusive(rows)]
    found += [*_opposite_seeds(primary), *_narrow(rows), *_diverged(primary), *_coarse_grid(primary)]
    return found or [NOTHING]


def _not_supported(primary: Sequence[VerdictRow]) -> Iterator[str]:
    supported = [row.where for row in primary if row.status == "SUPPORTED"]
    for status, word in (("CONTRADICTED", "Contradicted"), ("NEGLIGIBLE", "Negligible")):
        cases = [row for row in primary if row.status == status]
        if cases:
            others = f", while it is supported for {list_some(supported)}" if supported else ""
            yield f"{word} for {_with_intervals(cases)}{others}."


def _opposite_signs(primary: Sequence[VerdictRow]) -> Iterator[str]:
    """Cases that differ in the direction of the effect, of a two-sided claim."""
    supported = [row for row in primary if row.status == "SUPPORTED"]
    up, down = ([row for row in supported if row.verdict.effect * sign > 0] for sign in (1, -1))
    if up and down:
        yield f"The effect goes one way for {_with_intervals(up)} and the other way for {_with_intervals(down)}."


def _views(rows: Sequence[VerdictRow]) -> Iterator[str]:
    for case, of_case in groupby(sorted(rows, key=lambda row: row.where), key=lambda row: row.where):
        statuses = [(row.status, row.view) for row in of_case]
        if len({status for status, _ in statuses}) > 1:
            yield f"{case}: the views disagree: {'; '.join(f'{name}: {status}' for status, name in statuses)}."


def _inconclusive(rows: Sequence[VerdictRow]) -> Iterator[str]:
    """Cases by the reason."""
    open_rows = [row for row in rows if row.status == "INCONCLUSIVE"]
    for reason in dict.fromkeys(row.reason for row in open_rows):
        cases = [f"{row.where}, {row.view}" for row in open_rows if row.reason == reason]
        yield f"Inconclusive for {list_some(cases, '; ')}: {reason}."


def _opposite_seeds(primary: Sequence[VerdictRow]) -> Iterator[str]:
    for row in primary:
        d, effect = row.contrast.d, row.verdict.effect
        opposite = int(((d < 0) if effect > 0 else (d > 0)).sum())
        if row.status in ("SUPPORTED", "CONTRADICTED") and opposite:
            yield f"{row.where}: in {opposite} of {len(d)} seeds the difference goes the other way."


def _narrow(rows: Sequence[VerdictRow]) -> Iterator[str]:
    """Verdicts that a small change would overturn."""
    for row in rows:
        verdict, delta = row.verdict, row.contrast.threshold
        if row.status == "INCONCLUSIVE" or not math.isfinite(verdict.low):
            continue
        case = f"{row.where}, {row.view}"
        if row.status != "NEGLIGIBLE" and verdict.p_holm > NEAR_ALPHA:
            yield f"{case}: the test rejects narrowly, p = {verdict.p_holm:.2g} after correction."
        beyond, within = max(verdict.low, -verdict.high), max(verdict.high, -verdict.low)
        room = delta - within if row.status == "NEGLIGIBLE" else beyond - delta
        if room < NEAR_DELTA * delta:
            bound = f"the smallest effect of interest, {row.contrast.delta:g}"
            yield f"{case}: the interval, {row.interval}, ends close to {bound}."


def _diverged(primary: Sequence[VerdictRow]) -> Iterator[str]:
    """Runs at the learning rates that are compared; in the view of all rates, divergence is the metric itself."""
    for row in primary:
        rates = dict(zip(("with", "without"), row.contrast.rates or (), strict=False))
        for side, (lost, n) in row.contrast.diverged.items():
            if lost:
                count = f"{lost} of {n} runs {side} it"
                yield f"{row.where}: {count} diverged at learning rate {rates[side]:g}, and count with the worst value."


def _coarse_grid(primary: Sequence[VerdictRow]) -> Iterator[str]:
    widened = [row.contrast for row in primary if 0 < row.contrast.slack < math.inf and row.seeds]
    if widened:
        slack, is_ratio = widened[0].slack, widened[0].claim.scale == "log_ratio"
        step = f"{math.exp(slack):.3g} times" if is_ratio else f"{slack:.3g}"
        yield f"It is known up to a step of the grid of learning rates: intervals are {step} wider for it, either way."


def _with_intervals(rows: Sequence[VerdictRow]) -> str:
    texts = [f": {row.interval} {row.contrast.claim.unit}" if row.interval else "" for row in rows]
    return list_some([row.where + text for row, text in zip(rows, texts, strict=True)], "; ")


def list_some(names: Sequence[object], separator: str = ", ") -> str:
    """The first six, and how many more there are."""
    rest = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return separator.join(map(str, names[:MOST_LISTED])) + rest
