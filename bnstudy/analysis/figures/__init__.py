"""The figures of a report, drawn from data frames. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from bnstudy.analysis.figures.curves import draw_curves
from bnstudy.analysis.figures.layers import draw_dead_units, draw_gradients
from bnstudy.analysis.figures.rates import draw_rates
from bnstudy.analysis.figures.style import Drawn, Palette, render
from bnstudy.analysis.panels import Panel

__all__ = ["Drawn", "Palette", "draw_panel", "render"]

FIGURES = (draw_rates, draw_curves, draw_gradients, draw_dead_units)


def draw_panel(panel: Panel, palette: Palette) -> Iterator[Drawn]:
    """The figures that the panel has measurements for."""
    for draw in FIGURES:
        drawn = draw(panel, palette)
        if drawn is not None:
            yield drawn
