"""The figures of a report, drawn from data frames. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from bnstudy.report.figures.curves import draw_curves
from bnstudy.report.figures.heat import draw_dead_map
from bnstudy.report.figures.landscape import draw_landscape
from bnstudy.report.figures.layers import draw_backprop, draw_dead_units, draw_gradients
from bnstudy.report.figures.rates import draw_rates
from bnstudy.report.figures.sharpness import draw_sharpness
from bnstudy.report.figures.statistics import draw_statistics
from bnstudy.report.figures.style import Drawn, Palette, render
from bnstudy.report.figures.tracks import (
    draw_cosines,
    draw_percentiles_by_layer,
    draw_pooled_percentiles,
    draw_unit_percentiles,
)
from bnstudy.report.transforms import Panel

__all__ = ["Drawn", "Palette", "draw_panel", "render"]

FIGURES: dict[str, Callable[[Panel, Palette], Drawn | None]] = {
    "learning-rates": draw_rates,
    "curves": draw_curves,
    "gradients": draw_gradients,
    "backprop": draw_backprop,
    "dead-units": draw_dead_units,
    "dead-map": draw_dead_map,
    "percentiles": draw_pooled_percentiles,
    "unit-percentiles": draw_unit_percentiles,
    "percentiles-by-layer": draw_percentiles_by_layer,
    "cosines": draw_cosines,
    "landscape": draw_landscape,
    "sharpness": draw_sharpness,
    "statistics": draw_statistics,
}
"""By their kind, as `Drawn` has it, in the order of the report."""


def draw_panel(panel: Panel, palette: Palette, kinds: Container[str] = FIGURES.keys()) -> Iterator[Drawn]:
    """The figures of these kinds that the panel has measurements for."""
    for kind, draw in FIGURES.items():
        drawn = draw(panel, palette) if kind in kinds else None
        if drawn is not None:
            yield drawn
