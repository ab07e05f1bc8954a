"""The README's table and picture, from `verdicts.csv`."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bnstudy.claims.arms import dataset_name
from bnstudy.claims.claim import STATUSES, Claim, load_claims
from bnstudy.claims.effect_text import EffectText, describe_effect
from bnstudy.claims.numbers import round_together
from bnstudy.report.rendering import escape_markdown

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
"""What is between them in README.md is written by `make results`."""

DIGITS, CIFAR10 = "Digits", "CIFAR-10 (JPEG)"


@dataclass(frozen=True)
class Verdict:
    """A row of `verdicts.csv`. effect, low, high: on the scale of differences, ratios as logarithms."""

    claim: str
    data: str
    status: str
    effect: float
    low: float
    high: float
    effect_is: str
    statement: str


def read_primary(text: str) -> list[Verdict]:
    """The verdicts in their primary views."""
    return [_verdict(row) for row in csv.DictReader(io.StringIO(text)) if row["primary"] == "True"]


def _verdict(row: dict[str, str]) -> Verdict:
    numbers = [float(row[key]) if row[key] else math.nan for key in ("effect", "low", "high")]
    effect, low, high = map(math.log, numbers) if row["scale"] == "log_ratio" else numbers
    data = dataset_name(row["data"])
    return Verdict(row["claim"], data, row["verdict"], effect, low, high, row["effect_is"], row["statement"])


def table(text: str) -> str:
    """A row for each claim: its verdicts on MNIST, on digits where these differ or occur in other shares of the cases,
    and on CIFAR-10. Without runs a cell is empty."""
    by_claim: dict[str, list[Verdict]] = {}
    for verdict in read_primary(text):
        by_claim.setdefault(verdict.claim, []).append(verdict)
    claims = sorted(load_claims([*by_claim]), key=lambda claim: claim.order)
    lines = ["| claim | MNIST | digits | CIFAR-10 (JPEG) |", "|:--|:--|:--|:--|"]
    for claim in claims:
        found = by_claim[claim.name]
        digits, cifar10 = ([v for v in found if v.data == name] for name in (DIGITS, CIFAR10))
        main = [v for v in found if v.data not in (DIGITS, CIFAR10)]
        on_main, on_digits, on_cifar10 = (cell(claim, verdicts) for verdicts in (main, digits, cifar10))
        cells = [on_main, "the same verdicts" if digits and shares(digits) == shares(main) else on_digits, on_cifar10]
        lines.append(f"| {' | '.join([escape_markdown(claim.statement.rstrip('.')), *cells])} |")
    return "\n".join(lines)


def shares(found: Sequence[Verdict]) -> dict[str, Fraction]:
    """Of the cases, by status."""
    return {status: Fraction(n, len(found)) for status, n in Counter(v.status for v in found).items()}


def cell(claim: Claim, found: Sequence[Verdict]) -> str:
    """`"SUPPORTED, 2.9x fewer steps (2.2 to 3.8)"`, `"SUPPORTED in 4 of 6, 1.3x to 2.9x fewer steps; ..."`."""
    others = sorted({v.data for v in found} - {"MNIST", DIGITS, CIFAR10})
    where = f" ({', '.join(others)})" if others else ""
    if len(found) == 1:
        text = _text(claim, found[0])
        bounds = f" ({text.bounds})" if text.bounds else ""
        effect = f", {text.short}{bounds}" if math.isfinite(found[0].effect) else ""
        return escape_markdown(f"{found[0].status}{effect}{where}")
    groups = [[v for v in found if v.status == status] for status in STATUSES]
    parts = [f"{group[0].status} in {len(group)} of {len(found)}{_reach(claim, group)}" for group in groups if group]
    return escape_markdown("; ".join(parts) + where)


def _text(claim: Claim, verdict: Verdict) -> EffectText:
    return describe_effect(claim, verdict.effect, verdict.low, verdict.high, verdict.effect_is)  # type: ignore[arg-type]


def _reach(claim: Claim, group: Sequence[Verdict]) -> str:
    """`", 1.3x to 2.9x fewer steps"`: the effects of cases that are decided for or against the claim, in its unit."""
    if group[0].status not in ("SUPPORTED", "CONTRADICTED") or len({v.effect > 0 for v in group}) > 1:
        return ""
    texts = sorted((_text(claim, v) for v in group), key=lambda text: text.value)
    numbers = dict.fromkeys(round_together(texts[0].value, texts[-1].value))
    x = "x" if claim.scale == "log_ratio" else ""
    words = texts[-1].unqualified.partition(" ")[2]
    return f", {' to '.join(f'{number}{x}' for number in numbers)} {words}"


def wrap(text: str) -> str:
    """The text in lines as long as those of the other pages."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def replace_block(readme: str, block: str) -> str:
    """The README with another text between the marks.

    Raises:
        ValueError: it lacks a mark.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no lines {BEGIN} and {END}, between which the results are.")
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"
