"""How often intervals contain the true mean, and how often there is a verdict without an effect: by simulation.

    python scripts/coverage.py [--studies 1000] [--seed 0]

n: the share of samples of n differences whose 95% interval contains the mean of their distribution.
A/A: the share of studies of an arm against itself, with other seeds, that are SUPPORTED or CONTRADICTED, with a
smallest effect of interest of 0, the worst case.
mean 0: the same for differences that are drawn directly and may be asymmetric.

The second table is on seeds that are added until a claim is decided: the share of studies without effect in which 0 is
rejected at any of the looks, at 10, 15, ... 40 differences, by the anytime-valid method or by the interval for a single
look; and, by the former, at any n from 10 to 200. The third has the price: half the width of either interval for n
normal differences, in standard errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np

from bnstudy.claims.verdicts import decide
from bnstudy.stats.method import LOOKED_AT_ONCE
from bnstudy.stats.sequential import anytime_interval, anytime_p, log_e
from bnstudy.stats.tests import ALPHA

Draw = Callable[[np.random.Generator, int], np.ndarray]
Interval = Callable[[np.ndarray], tuple[float, float]]
Rejects = Callable[[np.ndarray], bool]

SEEDS = (5, 10, 20)
LOOKS = range(10, 41, 5)
MOST = 200
DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
    "heavy tails (t, 3 degrees of freedom)": lambda rng, n: rng.standard_t(3, size=n),
}


def coverage(draw: Draw, n: int, studies: int, seed: int) -> float:
    """Share of the intervals that contain 0, the mean."""
    rng = np.random.default_rng(seed)
    intervals = (LOOKED_AT_ONCE.interval(draw(rng, n)) for _ in range(studies))
    return sum(low <= 0 <= high for low, high in intervals) / studies


def draw_null(draw: Draw, n: int, studies: int, seed: int, paired: bool) -> Iterator[np.ndarray]:
    """The differences of studies without effect.

    paired: of two arms with the same distribution, and so symmetric around 0; else drawn directly, with a mean of 0.
    """
    rng = np.random.default_rng(seed)
    return (draw(rng, n) - draw(rng, n) if paired else draw(rng, n) for _ in range(studies))


def verdicts_on_nothing(draw: Draw, n: int, studies: int, seed: int, paired: bool = True) -> float:
    """Share of SUPPORTED and CONTRADICTED among studies without effect."""
    samples = draw_null(draw, n, studies, seed, paired)
    found = (decide(*LOOKED_AT_ONCE.interval(d), delta=0.0, p=LOOKED_AT_ONCE.p(d))[0] for d in samples)
    return sum(status in ("SUPPORTED", "CONTRADICTED") for status in found) / studies


def anytime(d: np.ndarray) -> bool:
    """Equivalent to 0 being outside the interval."""
    return anytime_p(d, LOOKS[0]) < ALPHA


def one_look(d: np.ndarray) -> bool:
    low, high = LOOKED_AT_ONCE.interval(d)
    return not low <= 0 <= high


METHODS: dict[str, tuple[Rejects, Interval]] = {
    "anytime": (anytime, lambda d: anytime_interval(d, LOOKS[0])),
    "one look": (one_look, LOOKED_AT_ONCE.interval),
}


def errors_over_looks(draw: Draw, studies: int, seed: int, paired: bool, rejects: Rejects = anytime) -> float:
    """Share of studies without effect in which 0 is rejected at any of the looks."""
    samples = draw_null(draw, LOOKS[-1], studies, seed, paired)
    return sum(any(rejects(d[:n]) for n in LOOKS) for d in samples) / studies


def errors_at_every_n(draw: Draw, studies: int, seed: int, paired: bool) -> float:
    """The same for looks at every n from 10 to 200."""
    (every,) = draw_null(draw, studies * MOST, 1, seed, paired)
    d = every.reshape(studies, MOST)
    return float((log_e(d, LOOKS[0])[:, LOOKS[0] - 1 :] > -np.log(ALPHA)).any(1).mean())


def half_width(interval: Interval, n: int, studies: int, seed: int) -> float:
    """Mean of half the interval's width for n normal differences, in standard errors."""
    rng = np.random.default_rng(seed)
    samples = [rng.normal(size=n) for _ in range(studies)]
    widths = [np.subtract(*interval(d)[::-1]) / 2 / (d.std(ddof=1) / np.sqrt(n)) for d in samples]
    return float(np.mean(widths))


def tables_of_looks(studies: int, seed: int) -> None:
    columns = [f"{kind}, {name}" for kind in ("A/A", "mean 0") for name in (*METHODS, f"anytime to {MOST}")]
    print(f"\n| looks at {', '.join(map(str, LOOKS))} differences | {' | '.join(columns)} |")
    print("|:--|" + "--:|" * len(columns))
    for name, draw in DRAWS.items():
        shares = []
        for paired in (True, False):
            shares += [errors_over_looks(draw, studies, seed, paired, rejects) for rejects, _ in METHODS.values()]
            shares.append(errors_at_every_n(draw, studies, seed, paired))
        print(f"| {name} | {' | '.join(f'{100 * share:.1f}%' for share in shares)} |", flush=True)
    sizes = (10, 20, 40, 100)
    print(f"\n| half width | {' | '.join(f'n = {n}' for n in sizes)} |")
    print("|:--|" + "--:|" * len(sizes))
    for name, (_, interval) in METHODS.items():
        widths = [half_width(interval, n, max(2, studies // 10), seed) for n in sizes]
        print(f"| {name} | {' | '.join(f'{width:.2f}' for width in widths)} |", flush=True)


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
    tables_of_looks(options.studies, options.seed)


if __name__ == "__main__":
    main()
