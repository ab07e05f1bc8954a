from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from bnstudy.claims.verdicts import Verdict, judge
from bnstudy.report import rendering
from bnstudy.report.forest import LONGEST, MARGIN, Axis, axis_of, forest_of, short_name, strip_of, warp
from tests import sweeps


def verdict(*d: float, **changes: object) -> Verdict:
    return judge(sweeps.contrast_of([*d], **changes))


def naive_place(value: float, low: float, high: float) -> float:
    """By interpolation on a finely drawn axis."""
    grid = np.linspace(low, high, 200_001)
    lengths = np.concatenate([[0], np.cumsum(np.diff(grid) / np.maximum(1, np.abs((grid[1:] + grid[:-1]) / 2)))])
    return MARGIN + (100 - 2 * MARGIN) * float(np.interp(value, grid, lengths / lengths[-1]))


@pytest.mark.parametrize("value", [-20, -3, -1, -0.4, 0, 0.7, 1, 2.5, 9, 50])
def test_the_axis_is_linear_within_the_band_and_logarithmic_beyond(value: float) -> None:
    assert Axis(-20, 50).at(value) == pytest.approx(naive_place(value, -20, 50), abs=0.02)


def test_a_value_beyond_the_axis_is_at_its_end() -> None:
    assert (Axis(-2, 5).at(-9), Axis(-2, 5).at(1e9)) == (MARGIN, 100 - MARGIN)


def test_the_axis_has_no_kink_and_is_odd() -> None:
    steps = np.diff([warp(v) for v in (0.998, 0.999, 1.0, 1.001, 1.002)])
    assert steps == pytest.approx(0.001, rel=0.01)
    assert [warp(-v) for v in (0.5, 7)] == [-warp(v) for v in (0.5, 7)]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (-2, 5, ["\u22122", "\u22121", "0", "+1", "+2", "+5"]),
        (-3, 100, ["\u22123", "\u22121", "0", "+1", "+3", "+10", "+30", "+100"]),
        (-40, 100, ["\u221210", "\u22121", "0", "+1", "+10", "+100"]),
    ],
)
def test_ticks_are_closer_on_a_shorter_axis(low: float, high: float, texts: list[str]) -> None:
    ticks = Axis(low, high).ticks
    assert [text for _, text in ticks] == texts
    assert [place for place, _ in ticks] == sorted(place for place, _ in ticks)


def test_the_axis_holds_all_seeds_and_intervals_and_never_less_than_twice_the_band() -> None:
    small, large = verdict(*[0.01] * 10), verdict(*[1.0, 8.0] * 5)
    delta = large.contrast.threshold
    assert axis_of([small]) == Axis(-2, 2)
    assert axis_of([small, large]) == Axis(-2, max(8.0, large.high) / delta)
    assert axis_of([verdict(*[1e6] * 10)]).high == LONGEST


def test_dots_mean_and_interval_are_where_the_numbers_say() -> None:
    found = verdict(*[1.0, 2.0, 3.0] * 4)
    delta, axis = found.contrast.threshold, axis_of([found])
    strip = strip_of(found, axis)
    expected = [naive_place(d / delta, axis.low, axis.high) for d in sorted(found.contrast.d)]
    assert [x for x, _ in strip.dots] == pytest.approx(expected, abs=0.02)
    assert all(2 <= y <= 16 for _, y in strip.dots)
    assert strip.mean == pytest.approx(naive_place(2 / delta, axis.low, axis.high), abs=0.02)
    ends = [naive_place(v / delta, axis.low, axis.high) for v in (found.low, found.high)]
    assert strip.bar == pytest.approx(ends, abs=0.02)
    assert (strip.slack, strip.beyond) == ([], ())


def test_a_step_of_the_grid_is_a_thin_end_on_either_side() -> None:
    found, plain = verdict(*[1.0, 2.0] * 6, slack=0.3), verdict(*[1.0, 2.0] * 6)
    axis = axis_of([found])
    strip, inner = strip_of(found, axis), strip_of(plain, axis).bar
    assert strip.bar == pytest.approx(inner)
    ends = [axis.at(v / found.contrast.threshold) for v in (found.low, found.high)]
    assert strip.slack == [(ends[0], strip.bar[0]), (strip.bar[1], ends[1])]


def test_a_verdict_without_differences_has_an_empty_strip() -> None:
    none, one = verdict(), verdict(1.0)
    assert (strip_of(none, Axis(-2, 2)).mean, strip_of(none, Axis(-2, 2)).dots) == (None, [])
    assert strip_of(one, Axis(-2, 2)).bar is None
    (row,) = forest_of([none], lambda v: "#x").rows
    assert row.alt == "No difference between seeds was measured."
    assert math.isnan(row.multiple)


def test_what_lies_beyond_the_axis_has_an_arrow() -> None:
    assert strip_of(verdict(*[-50.0, 50.0] * 5), Axis(-2, 2)).beyond == ("low", "high")


def test_a_row_says_whether_the_claim_above_is_the_same() -> None:
    first = verdict(*[1.0] * 10)
    other = replace(first, contrast=replace(first.contrast, claim=replace(first.contrast.claim, name="other")))
    forest = forest_of([first, first, other], lambda v: f"#{v.contrast.claim.name}")
    assert [row.again for row in forest.rows] == [False, True, False]
    assert [row.href for row in forest.rows][-1] == "#other"
    assert not forest.has_cases


def test_an_effect_against_the_claim_is_sorted_below_zero() -> None:
    against = verdict(*[-3.0] * 10)
    claim = replace(against.contrast.claim, opposite="points worse")
    against = replace(against, contrast=replace(against.contrast, claim=claim))
    table = rendering._environment(autoescape=True).from_string(
        '{% import "forest.html.j2" as draw %}{{ draw.table(forest) }}'
    )
    text = table.render(forest=forest_of([against], lambda _: "#"))
    assert re.findall('class="effect" data-value="([^"]*)">([^(]*) ', text) == [("-3.0", "3.0 points worse")]


@pytest.mark.parametrize(("better", "left"), [("higher", "against the claim"), ("either", "less")])
def test_the_directions_are_those_of_the_claims(better: str, left: str) -> None:
    first = verdict(*[1.0] * 10)
    claim = replace(first.contrast.claim, better=better)
    forest = forest_of([replace(first, contrast=replace(first.contrast, claim=claim))], lambda v: "")
    assert forest.directions[0] == left


def test_names_are_short_and_spell_relu() -> None:
    assert short_name(replace(verdict(1.0).contrast.claim, name="dead_relus")) == "Dead ReLUs"
