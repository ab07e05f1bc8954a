"""How often intervals hold the true mean, and how often a verdict is passed on nothing: by simulation.

    python scripts/coverage.py [--studies 1000] [--seed 0]

n: the share of samples of n differences whose 95% interval holds the mean they were drawn with.
A/A: the share of studies of an arm against itself with other seeds that come out SUPPORTED or CONTRADICTED, where 0 is
the smallest effect of interest, the worst case.
mean 0: the same for differences that are drawn themselves and need not be symmetric.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from bnstudy.analysis.inference import bca_interval, judge

Draw = Callable[[np.random.Generator, int], np.ndarray]

SEEDS = (5, 10, 20)
DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
    "heavy tails (t, 3 degrees of freedom)": lambda rng, n: rng.standard_t(3, size=n),
}


def coverage(draw: Draw, n: int, studies: int, seed: int) -> float:
    """Share of the intervals that hold 0, the mean."""
    rng = np.random.default_rng(seed)
    intervals = (bca_interval(draw(rng, n)) for _ in range(studies))
    return sum(low <= 0 <= high for low, high in intervals) / studies


def verdicts_on_nothing(draw: Draw, n: int, studies: int, seed: int, paired: bool = True) -> float:
    """Share of SUPPORTED and CONTRADICTED among studies of no effect.

    paired: the differences are those of two arms with the same distribution, and so symmetric around 0; else they are
    drawn themselves, with a mean of 0.
    """
    rng = np.random.default_rng(seed)
    samples = (draw(rng, n) - draw(rng, n) if paired else draw(rng, n) for _ in range(studies))
    found = (judge(d, delta=0.0, min_seeds=5).status for d in samples)
    return sum(status in ("SUPPORTED", "CONTRADICTED") for status in found) / studies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    columns = [*(f"n = {n}" for n in SEEDS), "A/A, n = 10", "mean 0, n = 10"]
    print(f"| differences | {' | '.join(columns)} |")
    print("|:--|" + "--:|" * len(columns))
    for name, draw in DRAWS.items():
        shares = [coverage(draw, n, options.studies, options.seed) for n in SEEDS]
        shares += [verdicts_on_nothing(draw, 10, options.studies, options.seed, paired) for paired in (True, False)]
        print(f"| {name} | {' | '.join(f'{100 * share:.1f}%' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
