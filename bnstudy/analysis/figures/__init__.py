"""The figures of a report, drawn from data frames. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from bnstudy.analysis.figures.curves import draw_curves
from bnstudy.analysis.figures.heat import draw_dead_map
from bnstudy.analysis.figures.landscape import draw_landscape
from bnstudy.analysis.figures.layers import draw_backprop, draw_dead_units, draw_gradients
from bnstudy.analysis.figures.rates import draw_rates
from bnstudy.analysis.figures.sharpness import draw_sharpness
from bnstudy.analysis.figures.statistics import draw_statistics
from bnstudy.analysis.figures.style import Drawn, Palette, render
from bnstudy.analysis.figures.tracks import (
    draw_cosines,
    draw_percentiles_by_layer,
    draw_pooled_percentiles,
    draw_unit_percentiles,
)
from bnstudy.analysis.panels import Panel

__all__ = ["Drawn", "Palette", "draw_panel", "render"]

FIGURES = (
    draw_rates,
    draw_curves,
    draw_gradients,
    draw_backprop,
    draw_dead_units,
    draw_dead_map,
    draw_pooled_percentiles,
    draw_unit_percentiles,
    draw_percentiles_by_layer,
    draw_cosines,
    draw_landscape,
    draw_sharpness,
    draw_statistics,
)


def draw_panel(panel: Panel, palette: Palette) -> Iterator[Drawn]:
    """The figures that the panel has measurements for."""
    for draw in FIGURES:
        drawn = draw(panel, palette)
        if drawn is not None:
            yield drawn
