"""The colours of figures, and their counterparts on a dark page."""

from __future__ import annotations

from functools import cache

import numpy as np
from matplotlib.colors import to_hex, to_rgb

WHITE, DARK_PAGE = "#ffffff", "#15181b"
"""Backgrounds; the second is `--page` of the style sheet in dark mode."""
TEXT, SOFT_TEXT, AXIS, GRID = "#1c1f23", "#444444", "#555555", "#e6e6e6"

BASELINE_COLOUR = "#333333"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7c504d", "#2794fb", "#525001")
"""The first four are Okabe and Ito's; their others are too weak on white. Of colours with a contrast of at least 3, the
last three differ most from the rest for readers with and without colour blindness."""
NEUTRAL = "#707070"
BAND = "#e4e7ea"
STATUSES = {"SUPPORTED": "#00704f", "CONTRADICTED": "#ad4400", "NEGLIGIBLE": "#0067a0", "INCONCLUSIVE": "#5c636b"}

LEAST_OF_MARKS, LEAST_OF_TEXT = 3.0, 4.5
"""Least contrast with the background, of marks and of texts, that WCAG 2.2 asks for."""
MOST, STRONGER = 14.0, 1.15
"""On a dark page, contrasts are raised to this power, as they look weaker there, and are at most so large."""
SHADES = 3.1, 9.0
"""Contrast of the lightest and of the darkest shade of a hue."""

LMS = np.array(
    [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.6806995, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
)
LAB = np.array(
    [[0.21045426, 0.79361778, -0.00407205], [1.9779985, -2.42859221, 0.45059371], [0.02590404, 0.78277177, -0.80867577]]
)
"""From linear RGB to the cones' responses, and from their cube roots to Oklab (Ottosson, 2020)."""


def contrast(colour: str, background: str) -> float:
    """The contrast ratio of two colours, from 1 to 21, as WCAG 2.2 defines it."""
    light, dark = sorted((_luminance(_linear(colour)), _luminance(_linear(background))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@cache
def in_the_dark(colour: str) -> str:
    """The colour of the same hue that stands out from a dark page as `colour` does from a white one."""
    ratio = contrast(colour, WHITE) ** STRONGER
    return at_contrast(colour, min(ratio, MOST), DARK_PAGE) if colour != WHITE else DARK_PAGE


@cache
def readable(colour: str) -> str:
    """The colour for a text on white: darker where the colour of a mark is too weak."""
    return colour if contrast(colour, WHITE) >= LEAST_OF_TEXT else at_contrast(colour, LEAST_OF_TEXT + 0.05, WHITE)


def shade(colour: str, i: int, n: int) -> str:
    """The i-th of n shades, from light to dark."""
    if n == 1:
        return colour
    lightest, darkest = SHADES[0], max(SHADES[1], contrast(colour, WHITE))
    return at_contrast(colour, lightest * (darkest / lightest) ** (i / (n - 1)), WHITE)


def at_contrast(colour: str, ratio: float, background: str) -> str:
    """The colour of the same hue, and of the same chroma if the screen can show that, at a contrast ratio."""
    behind = _luminance(_linear(background)) + 0.05
    wanted = (
        behind * ratio if contrast(WHITE, background) > contrast("#000000", background) else behind / ratio
    ) - 0.05
    lab = LAB @ np.cbrt(LMS @ _linear(colour))
    low, high = 0.0, 1.0
    for _ in range(40):  # luminance rises with Oklab's lightness
        lightness = (low + high) / 2
        rgb = _in_gamut(lightness, lab[1:])
        low, high = (lightness, high) if _luminance(rgb) < wanted else (low, lightness)
    srgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return to_hex(tuple(srgb.clip(0, 1).tolist()))


def _in_gamut(lightness: float, ab: np.ndarray) -> np.ndarray:
    """Linear RGB of a colour in Oklab, with less chroma where the screen cannot show it."""
    for share in np.linspace(1, 0, 21):
        cones = np.linalg.solve(LAB, np.array([lightness, *(share * ab)]))
        rgb = np.linalg.solve(LMS, cones**3)
        if rgb.min() > -1e-4 and rgb.max() < 1 + 1e-4:
            break
    return rgb.clip(0, 1)


def _linear(colour: str) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _luminance(rgb: np.ndarray) -> float:
    return float(rgb @ (0.2126, 0.7152, 0.0722))
