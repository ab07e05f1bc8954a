"""Each figure of each study, for a page and for a phone: it shows something, and its texts can be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox

from bnstudy.claims.claim import load_claims
from bnstudy.claims.contrasts import contrasts
from bnstudy.claims.frames import load_study
from bnstudy.claims.verdicts import judge_all
from bnstudy.report.figures import Palette, ReportFigure, load_figures, style
from bnstudy.report.figures.effects import draw_effect
from bnstudy.report.panels import panels
from bnstudy.report.reproductions import reproduce
from tests.made_studies import STUDIES, write_study

WIDTHS = {"page": style.WIDTH, "phone": style.NARROW}
SMALLEST = 8.0
"""Points; in a figure for a phone they are 11 pixels."""
TOLERANCE = 1.0
"""Points by which boxes of texts, which are larger than the letters, may overlap."""

Draw = Callable[[], ReportFigure | None]
SEEN: set[tuple[tuple[str, ...], ...]] = set()
"""Arms and measurements that were drawn: a study with the same ones gives the same figures."""


def drawings_of(folder: Path, study: str) -> Iterator[tuple[str, Draw]]:
    """What a report draws of a study: of its first network, of its first claim, and of what it reproduces."""
    about = load_study(folder, study)
    palette, panel = Palette.of(about.runs), panels(about)[0]
    measured = panel.metrics[["split", "layer", "metric", "step"]].astype(str).drop_duplicates()
    key = (
        tuple(panel.runs["arm"].cat.categories),
        *measured.sort_values([*measured]).itertuples(index=False, name=None),
    )
    if key not in SEEN:
        SEEN.add(key)
        yield from ((kind, partial(draw, panel, palette)) for kind, draw in load_figures().items())
    for claim in load_claims(about.claims)[:1]:
        yield f"effect-{claim.name}", partial(draw_effect, judge_all(contrasts(about, claim)))
    if published := reproduce(about):
        yield "published", published.draw


def problems(figure: Figure) -> Iterator[str]:
    """What is wrong with a figure that has been drawn."""
    for i, ax in enumerate(figure.axes):
        if ax.get_visible() and not any(map(is_mark, (*ax.lines, *ax.collections, *ax.patches, *ax.images))):
            yield f"axes {i} {ax.get_title(loc='left')!r} are empty"
    shown = {text: box_of(text) for text in texts_of(figure)}
    width, height = figure.get_size_inches()
    for text, box in shown.items():
        if min(box.x0, box.y0) < -TOLERANCE or box.x1 > 72 * width + TOLERANCE or box.y1 > 72 * height + TOLERANCE:
            yield f"{text.get_text()!r} is outside"
        if style.is_narrow() and text.get_fontsize() < SMALLEST:
            yield f"{text.get_text()!r} has {text.get_fontsize():g} points"
    for (one, a), (other, b) in itertools.combinations(shown.items(), 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > TOLERANCE and min(a.y1, b.y1) - max(a.y0, b.y0) > TOLERANCE:
            yield f"{one.get_text()!r} overlaps {other.get_text()!r}"


def is_mark(artist: Artist) -> bool:
    """Whether one sees it and it is no reference line: points have markers, lines have two ends."""
    if not artist.get_visible():
        return False
    if not isinstance(artist, Line2D):
        return True
    n = int(np.isfinite(np.asarray(artist.get_xydata(), float)).all(axis=1).sum())
    is_level = artist.axes is not None and artist.get_transform() != artist.axes.transData
    return not is_level and (n > 1 or (n == 1 and artist.get_marker() not in ("", "None", None)))


def texts_of(figure: Figure) -> list[Text]:
    """All texts that are drawn; tick labels only within their axes."""
    hidden = {text for ax in figure.axes if not ax.get_visible() for text in ax.findobj(Text)}
    for ax in filter(Axes.get_visible, figure.axes):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = 1e-9 * (high - low)
            for ticks in (axis.get_major_ticks(), axis.get_minor_ticks()):
                for tick in ticks:
                    is_drawn = low - margin <= tick.get_loc() <= high + margin
                    hidden |= {t for t in (tick.label1, tick.label2) if not is_drawn or not tick.get_visible()}
            if not ax.axison or not axis.get_visible():
                hidden |= set(axis.findobj(Text))
    texts = figure.findobj(Text)
    return [t for t in dict.fromkeys(texts) if t not in hidden and t.get_visible() and t.get_text().strip()]


def box_of(text: Text) -> Bbox:
    """In points from the lower left corner of the figure."""
    figure = text.get_figure(root=True)
    return text.get_window_extent().transformed(figure.dpi_scale_trans.inverted() + Affine2D().scale(72))


@pytest.mark.parametrize(
    "study", [s if s == "quickstart" else pytest.param(s, marks=pytest.mark.slow) for s in STUDIES]
)
def test_every_figure_shows_something_and_is_readable(tmp_path: Path, study: str) -> None:
    write_study(tmp_path, study)
    found = []
    for name, draw in drawings_of(tmp_path, study):
        for label, width in WIDTHS.items():
            with style.report_style(width):
                drawn = draw()
                if drawn is None:  # neither at another width
                    break
                drawn.figure.draw_without_rendering()
                found += [f"{name}, {label}: {problem}" for problem in problems(drawn.figure)]
    assert not found, "\n".join(found)
