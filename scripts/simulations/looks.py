"""False verdicts where seeds are added until a claim is decided, and the width of the interval that allows for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bnstudy.stats.means import ALPHA, confidence_interval
from bnstudy.stats.sequential import anytime as anytime_method
from bnstudy.stats.sequential import anytime_interval, anytime_p, log_e

from .protocol import SHAPES, simulate_runs
from .verdicts import CLAIMS, DRAWS, Draw, make_claim

Interval = Callable[[np.ndarray], tuple[float, float]]
Rejects = Callable[[np.ndarray], bool]

LOOKS = range(10, 41, 5)
MOST = 200


def draw_null(draw: Draw, n: int, studies: int, seed: int, paired: bool) -> Iterator[np.ndarray]:
    """The differences of studies without effect.

    paired: of two arms with the same distribution, and so symmetric around 0; else drawn directly, with a mean of 0.
    """
    rng = np.random.default_rng(seed)
    return (draw(rng, n) - draw(rng, n) if paired else draw(rng, n) for _ in range(studies))


def anytime(d: np.ndarray) -> bool:
    """Equivalent to 0 being outside the interval."""
    return anytime_p(d, LOOKS[0]) < ALPHA


def one_look(d: np.ndarray) -> bool:
    low, high = confidence_interval(d)
    return not low <= 0 <= high


METHODS: dict[str, tuple[Rejects, Interval]] = {
    "anytime": (anytime, lambda d: anytime_interval(d, LOOKS[0])),
    "one look": (one_look, confidence_interval),
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


def errors_of_chosen_rates(narrow: bool, measure: str, delta: float, studies: int, seed: int) -> float:
    """Share of studies of two equal arms with an effect beyond `delta` at any of the looks, each of which chooses the
    learning rate of each seed again, by all other seeds."""
    rng, method, wrong = np.random.default_rng(seed), anytime_method(LOOKS[0]), 0
    for _ in range(studies):
        runs = simulate_runs(rng, LOOKS[-1], narrow)
        score, value = (runs.val, 100 * runs.test) if measure == "accuracy" else (-runs.log_time, -runs.log_time)
        wrong += any(
            min(method.p_above(d, delta), method.p_above(-d, delta)) <= ALPHA
            for d in (np.diff(at_rates_of_others(score[..., :n], value[..., :n]), axis=0)[0] for n in LOOKS)
        )
    return wrong / studies


def at_rates_of_others(score: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The values [arms, seeds] at the rate with the highest score of all other seeds; both [arms, rates, seeds]."""
    others = score.sum(-1, keepdims=True) - score
    best = others.round(11).argmax(1)
    return np.take_along_axis(value, best[:, None], 1)[:, 0]


def tables_of_looks(studies: int, seed: int) -> None:
    columns = [f"{kind}, {name}" for kind in ("A/A", "mean 0") for name in (*METHODS, f"anytime to {MOST}")]
    print(f"\n| looks at {', '.join(map(str, LOOKS))} differences | {' | '.join(columns)} |")
    print("|:--|" + "--:|" * len(columns))
    for name, draw in list(DRAWS.items())[:4]:
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
    print("\n| rates chosen again at each look | accuracy | speed | accuracy, delta 0 | speed, delta 0 |")
    print("|:--|" + "--:|" * 4)
    deltas = [(name, share * make_claim(name).threshold("Digits")) for share in (1, 0) for name in CLAIMS]
    for shape, narrow in SHAPES.items():
        shares = [errors_of_chosen_rates(narrow, measure, delta, studies, seed) for measure, delta in deltas]
        print(f"| {shape} | {' | '.join(f'{100 * share:.1f}%' for share in shares)} |", flush=True)
