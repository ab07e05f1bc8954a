from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bnstudy.report.figures import colours
from bnstudy.report.figures.colours import (
    BAND,
    BASELINE_COLOUR,
    COLOURS,
    DARK_PAGE,
    GRID,
    LEAST_OF_MARKS,
    LEAST_OF_TEXT,
    NEUTRAL,
    SOFT_TEXT,
    STATUSES,
    TEXT,
    WHITE,
    contrast,
    in_the_dark,
    readable,
    shade,
)
from bnstudy.report.figures.style import MAX_SHADES
from bnstudy.report.rendering import TEMPLATES

HUES = (*COLOURS, BASELINE_COLOUR)
SHADES = [shade(hue, i, n) for hue in HUES for n in range(1, MAX_SHADES + 1) for i in range(n)]
MARKS = [*SHADES, NEUTRAL, *STATUSES.values()]
TEXTS = [TEXT, SOFT_TEXT, NEUTRAL, *STATUSES.values(), *map(readable, SHADES)]
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
"""Machado, Oliveira and Fernandes (2009), severity 1."""


def test_contrasts_are_those_of_other_tools() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#777777") == pytest.approx(4.48, abs=0.01)  # WebAIM's example
    assert contrast("#0000ff", "#ffffff") == pytest.approx(8.59, abs=0.01)


@pytest.mark.parametrize("mark", sorted(set(MARKS)))
def test_marks_stand_out_from_either_page(mark: str) -> None:
    assert contrast(mark, WHITE) >= LEAST_OF_MARKS
    assert contrast(in_the_dark(mark), DARK_PAGE) >= LEAST_OF_MARKS


@pytest.mark.parametrize("text", sorted(set(TEXTS)))
def test_texts_are_readable_on_either_page(text: str) -> None:
    assert contrast(text, WHITE) >= LEAST_OF_TEXT
    assert contrast(in_the_dark(text), DARK_PAGE) >= LEAST_OF_TEXT


@pytest.mark.parametrize("text", [TEXT, SOFT_TEXT, *STATUSES.values()])
def test_texts_are_readable_on_the_band(text: str) -> None:
    assert contrast(text, BAND) >= LEAST_OF_TEXT
    assert contrast(in_the_dark(text), in_the_dark(BAND)) >= LEAST_OF_TEXT


def test_what_is_faint_stays_faint_in_the_dark() -> None:
    for faint in (GRID, BAND):
        assert 1.1 < contrast(in_the_dark(faint), DARK_PAGE) < 1.6


@pytest.mark.parametrize("colour", ["#0072b2", "#aec4d9", "#7f0000"])
def test_a_colour_keeps_its_hue_in_the_dark(colour: str) -> None:
    def hue(rgb: str) -> float:
        a, b = (colours.LAB @ np.cbrt(colours.LMS @ np.array(to_rgb(rgb)) ** 2.2))[1:]
        return float(np.degrees(np.arctan2(b, a)))

    assert hue(in_the_dark(colour)) == pytest.approx(hue(colour), abs=6)


def test_shades_get_darker_and_differ() -> None:
    for hue in HUES:
        ratios = [contrast(shade(hue, i, MAX_SHADES), WHITE) for i in range(MAX_SHADES)]
        assert all(dark > 1.2 * light for light, dark in itertools.pairwise(ratios))


@pytest.mark.parametrize("sight", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["full", "protanopia", "deuteranopia"])
def test_colours_differ_for_colour_blind_readers(sight: np.ndarray) -> None:
    def seen(colour: str) -> np.ndarray:
        return colours.LAB @ np.cbrt(colours.LMS @ (np.array(sight) @ np.array(to_rgb(colour)) ** 2.2).clip(0, 1))

    for one, other in itertools.combinations(HUES, 2):
        assert np.linalg.norm(seen(one) - seen(other)) > 0.07, (one, other)


def test_the_dark_page_is_that_of_the_style_sheet() -> None:
    dark = (TEMPLATES / "style.css").read_text().split("prefers-color-scheme: dark")[1]
    assert re.search(r"--page: (#\w+)", dark)[1] == DARK_PAGE
