"""Wrong verdicts on differences whose mean is exactly the smallest effect of interest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from bnstudy.claims.cases import Case
from bnstudy.claims.claim import Claim, claim_of
from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.learning_rates import Side
from bnstudy.claims.metrics import Bound
from bnstudy.claims.verdicts import judge
from bnstudy.stats.method import LOOKED_AT_ONCE

Draw = Callable[[np.random.Generator, int], np.ndarray]

SIZES = (10, 14, 18)
DELTA = 2.0
"""In standard deviations of differences without failures, so that each verdict is possible."""
RATE_STEP = math.log(10) / 4
FAILURES, DEPTH = 0.05, 20.0

FAST = replace(LOOKED_AT_ONCE, critical=lambda _: math.inf)
"""Without the number of seeds that would settle a claim, which takes most of the time."""

DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy tails (t, 3 degrees of freedom)": lambda rng, n: rng.standard_t(3, size=n) / math.sqrt(3),
    "ties (ratios of learning rates)": lambda rng, n: RATE_STEP * (rng.integers(-1, 2, n) - rng.integers(-1, 2, n)),
    "skewed (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
    "skewed (minus exponential)": lambda rng, n: 1 - rng.exponential(size=n),
    "5% of seeds collapse": lambda rng, n: rng.normal(size=n) - DEPTH * ((rng.random(n) < FAILURES) - FAILURES),
}
CUTS: dict[str, tuple[float, float]] = {
    "15% cut above": (-math.inf, float(stats.norm.ppf(0.85))),
    "15% cut below": (float(stats.norm.ppf(0.15)), math.inf),
}
"""Bounds of normal differences."""


CLAIMS: dict[str, dict[str, str]] = {
    "accuracy": {"metric": "test_accuracy", "better": "higher"},
    "speed": {"metric": "updates_to_target", "better": "lower"},
}


def make_claim(name: str, **changes: float) -> Claim:
    sides = {"with": {"norm": "B"}, "without": {"norm": "A"}}
    return claim_of(
        {"statement": "It is better.", "source": "-", "unit": "-", **sides, **CLAIMS[name], **changes}, name
    )


def wrong_verdicts(name: str, n: int, studies: int, seed: int) -> dict[str, float]:
    """Shares of the wrong verdicts, NEGLIGIBLE at the mean where it is more frequent; and `withheld`: among the studies
    in which a seed collapsed, those that are neither SUPPORTED nor NEGLIGIBLE."""
    rng, counts = np.random.default_rng(seed), Counter[str]()
    low, high = CUTS.get(name, (-math.inf, math.inf))
    bound: Bound = "at most" if low > -math.inf else "at least"
    case = Case("MLP", "Digits", "", ("B",), ("A",))
    contrast = Contrast(make_claim("accuracy", delta=DELTA), case, "best_rate", method=FAST)
    for _ in range(studies):
        drawn = DRAWS.get(name, DRAWS["normal"])(rng, n)
        d = np.clip(drawn, low, high)
        bounds: dict[tuple[Side, Bound], int] = {("with", bound): 1} if (d != drawn).any() else {}
        above, below = (judge(replace(contrast, d=pd.Series(d + m), bounds=bounds)).status for m in (DELTA, -DELTA))
        counts.update([f"{above} above", f"{below} below"])
        if "collapse" in name and d.min() < -DEPTH / 2:
            counts.update(["collapsed", *(["withheld"] if above not in ("SUPPORTED", "NEGLIGIBLE") else [])])
    return {
        "SUPPORTED": counts["SUPPORTED above"] / studies,
        "NEGLIGIBLE": max(counts["NEGLIGIBLE above"], counts["NEGLIGIBLE below"]) / studies,
        "CONTRADICTED": counts["CONTRADICTED below"] / studies,
        "withheld": counts["withheld"] / counts["collapsed"] if counts["collapsed"] else math.nan,
    }


def table_of_verdicts(studies: int, seed: int) -> None:
    print(f"| SUPPORTED / NEGLIGIBLE / CONTRADICTED | {' | '.join(f'n = {n}' for n in SIZES)} | withheld |")
    print("|:--|" + "--:|" * (len(SIZES) + 1))
    for name in (*DRAWS, *CUTS):
        found = [wrong_verdicts(name, n, studies, seed) for n in SIZES]
        withheld = " / ".join(f"{100 * one.pop('withheld'):.1f}%" for one in found).replace("nan%", "-")
        cells = [" / ".join(f"{100 * share:.1f}%" for share in one.values()) for one in found]
        print(f"| {name} | {' | '.join(cells)} | {withheld if '%' in withheld else ''} |", flush=True)
