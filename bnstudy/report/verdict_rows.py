"""Verdicts in words: the cells of their tables, their sentences, and summaries of several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.verdicts import STATUSES, Verdict, side_means


@dataclass(frozen=True)
class VerdictRow:
    """A verdict as tables show it: texts, but for the number of seeds."""

    verdict: Verdict

    @property
    def contrast(self) -> Contrast:
        return self.verdict.contrast

    @property
    def is_primary(self) -> bool:
        return self.contrast.is_primary

    @property
    def statement(self) -> str:
        return self.contrast.claim.statement

    @property
    def status(self) -> str:
        return self.verdict.status

    @property
    def seeds(self) -> int:
        return self.verdict.n

    @property
    def where(self) -> str:
        """`"MLP on Digits, batch_size=8"`."""
        case = self.contrast.case
        return case.panel + (f", {case.setting}" if case.setting else "")

    @property
    def view_name(self) -> str:
        """`"each at its best"`."""
        return VIEW_NAMES[self.contrast.view]

    @property
    def view(self) -> str:
        """`"each at its best, 1 with and 0.316 without"`."""
        with_, without = self.contrast.rates or (math.nan, math.nan)
        if self.contrast.view == "same_rate" and not math.isnan(without):
            return f"{self.view_name}, {without:g}"
        if self.contrast.view == "best_rate" and not (math.isnan(with_) or math.isnan(without)):
            return f"{self.view_name}, {with_:g} with and {without:g} without"
        return self.view_name

    @property
    def interval(self) -> str:
        """`"12.3 (8.1 to 15.2)"`, the effect in the claim's unit; empty for none."""
        v, in_unit = self.verdict, self.contrast.claim.in_unit
        if not math.isfinite(v.effect):
            return ""
        mean, low, high = (f"{in_unit(value):.3g}" for value in (v.effect, v.low, v.high))
        return f"{mean} ({low} to {high})" if math.isfinite(v.low) and math.isfinite(v.high) else mean

    @property
    def bounds(self) -> str:
        return self.interval or "-"

    @property
    def effect(self) -> str:
        """`"12.3 (8.1 to 15.2) times the learning rate"`; a dash for none."""
        return f"{self.interval} {self.contrast.claim.unit}" if self.interval else "-"

    @property
    def reason(self) -> str:
        """Why the verdict is inconclusive, and how many more seeds would settle it."""
        because, more = self.verdict.because, self.verdict.more
        if more is None:
            return because
        return f"{because}; about {more} more {'seed' if more == 1 else 'seeds'} would settle it"

    @property
    def rate_with(self) -> str:
        return digits((self.contrast.rates or (math.nan, math.nan))[0])

    @property
    def rate_without(self) -> str:
        return digits((self.contrast.rates or (math.nan, math.nan))[1])

    @property
    def with_(self) -> str:
        return digits(side_means(self.contrast)[0])

    @property
    def without(self) -> str:
        return digits(side_means(self.contrast)[1])

    @property
    def d_z(self) -> str:
        return digits(self.verdict.d_z, 2)

    @property
    def p(self) -> str:
        return digits(self.verdict.p if self.seeds else math.nan, 2)

    @property
    def p_holm(self) -> str:
        return digits(self.verdict.p_holm if self.seeds else math.nan, 2)

    @property
    def more(self) -> str:
        return "-" if self.verdict.more is None else str(self.verdict.more)

    @property
    def sentence(self) -> str:
        """For the terminal."""
        return f"{self.status}: {self.statement} {self.result}"

    @property
    def result(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return f"{self.where}, {self.view}: {self.effect}, {self.seeds} seeds{because}."


VIEW_NAMES = {
    "same_rate": "same learning rate",
    "best_rate": "each at its best",
    "all_rates": "over all learning rates",
    "before_training": "before training",
}


def rows_of(found: Sequence[Verdict]) -> list[VerdictRow]:
    return [VerdictRow(verdict) for verdict in found]


def summarize_claim(of_claim: Sequence[VerdictRow]) -> str:
    """The result of one claim in its primary view; where all cases have one status, the words that follow it."""
    primary = [row for row in of_claim if row.is_primary]
    if len(primary) == 1:
        return f"for {primary[0].result}"
    if len({row.status for row in primary}) == 1:
        return f"in all {len(primary)} cases, {primary[0].view_name}."
    return f"Of {len(primary)} cases, {primary[0].view_name}: {count_statuses(primary)}."


def count_statuses(some: Sequence[VerdictRow]) -> str:
    """`"SUPPORTED in 2, NEGLIGIBLE in 1"`."""
    counts = Counter(row.status for row in some)
    return ", ".join(f"{status} in {counts[status]}" for status in STATUSES if counts[status])


def tally(some: Sequence[VerdictRow]) -> str:
    """`"3 verdicts in all views: 2 SUPPORTED, 1 NEGLIGIBLE."`."""
    counts = Counter(row.status for row in some)
    noun = "verdict" if len(some) == 1 else "verdicts"
    return f"{len(some)} {noun} in all views: {', '.join(f'{counts[s]} {s}' for s in STATUSES if counts[s])}."


def digits(value: float, n: int = 4) -> str:
    return f"{value:.{n}g}" if math.isfinite(value) else "-"
