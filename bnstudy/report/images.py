"""Rendered figures: files beside the page, and elements of the page."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import overload

from markupsafe import Markup

from bnstudy.report.figures import DrawFigure, Palette, ReportFigure, render
from bnstudy.report.figures.colours import in_the_dark
from bnstudy.report.figures.style import NARROW, report_style
from bnstudy.report.panels import Panel
from bnstudy.store.files import is_plain_file, write_atomic, write_json

LIST = "files.json"
"""Names the images of a report, beside them."""

BLACK, COLOUR = "#000000", "(?<=: )#[0-9a-f]{6}"
"""The second is a pattern: a colour in a `style` attribute, as matplotlib writes it."""

MAX_NAME = 100
"""Characters of a name that is made from a text."""


@dataclass(frozen=True)
class Image:
    """A figure as files `name`.svg and `name`.png, and drawn again for a phone. kind: as claims name it."""

    name: str
    kind: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes
    narrow_svg: bytes

    @property
    def inline(self) -> Markup:
        return Markup(inline_svg(self.svg.decode(), self.name, self.alt))

    @property
    def narrow(self) -> Markup:
        return Markup(inline_svg(self.narrow_svg.decode(), f"{self.name}-narrow", self.alt))


def panel_images(panel: Panel, palette: Palette, figures: Mapping[str, DrawFigure], taken: set[str]) -> list[Image]:
    """Those of the figures, by kind, that the panel has measurements for."""
    images = (
        draw_image(partial(draw, panel, palette), f"{kind}-{panel.name}", taken, kind) for kind, draw in figures.items()
    )
    return [image for image in images if image]


@overload
def draw_image(draw: Callable[[], ReportFigure], name: str, taken: set[str], kind: str = "") -> Image: ...
@overload
def draw_image(draw: Callable[[], ReportFigure | None], name: str, taken: set[str], kind: str = "") -> Image | None: ...
def draw_image(draw: Callable[[], ReportFigure | None], name: str, taken: set[str], kind: str = "") -> Image | None:
    """Draw a figure for a page and for a phone, under a free file name like `name`, which is added to `taken`."""
    with report_style():
        drawn = draw()
        if drawn is None:
            return None
        svg, png = render(drawn.figure, "svg"), render(drawn.figure, "png")
    with report_style(NARROW):
        again = draw()
        narrow = render(again.figure, "svg") if again else svg
    return Image(choose_name(name, taken), kind, drawn.title, drawn.caption, drawn.alt, svg, png, narrow)


def choose_name(text: str, taken: set[str]) -> str:
    """A name of letters, digits and dashes for `text` that is not in `taken`; it is added."""
    base = slug(text)
    name = next(name for i in count(1) if (name := f"{base}-{i}" if i > 1 else base) not in taken)
    taken.add(name)
    return name


def slug(text: str) -> str:
    """The letters and digits of a text, with dashes between words; a long text is cut and gets a digest."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(plain) <= MAX_NAME:
        return plain
    return f"{plain[: MAX_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def inline_svg(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: it scales with the page, its ids begin with `name`, and in dark mode it has
    the counterparts of its colours. Ids that nothing refers to, and space between elements, are left out."""
    body, dark = _as_variables(svg[svg.index("<svg") :])
    used = {*re.findall(r'(?:href="#|url\(#)([^")]+)', body)}
    body = re.sub(r'\sid="([^"]*)"', lambda own: f' id="{name}-{own[1]}"' if own[1] in used else "", body)
    body = re.sub(r">\s+<", "><", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    rules = f"@media screen and (prefers-color-scheme: dark) {{ #{name}-svg {{ {dark} }} }}"
    attributes = (
        f'id="{name}-svg" style="fill: var({_variable(BLACK)}, {BLACK})" role="img" aria-label="{Markup.escape(alt)}"'
    )
    return f"{head} {attributes}><style>{rules}</style>{rest}"


def _as_variables(svg: str) -> tuple[str, str]:
    """An SVG with a CSS variable for each of its colours, and the values of these variables on a dark page."""
    used = {BLACK}  # of what has no colour

    def replace(style: re.Match[str]) -> str:
        used.update(re.findall(COLOUR, style[0]))
        return re.sub(COLOUR, lambda colour: f"var({_variable(colour[0])}, {colour[0]})", style[0])

    svg = re.sub(r'\bstyle="[^"]*"', replace, svg)
    return svg, "; ".join(f"{_variable(colour)}: {in_the_dark(colour)}" for colour in sorted(used))


def _variable(colour: str) -> str:
    return f"--c{colour[1:]}"


def write_images(folder: Path, images: Iterable[Image]) -> None:
    """Write all images and a list of them, and remove those on the list of an earlier report."""
    files = {f"{image.name}.{kind}": getattr(image, kind) for image in images for kind in ("svg", "png")}
    earlier = listed_images(folder)
    write_json(folder / LIST, sorted(files.keys() | earlier))  # so that a report that is killed here leaves nothing
    for name, content in files.items():
        write_atomic(folder / name, partial(Path.write_bytes, data=content))
    for name in earlier - files.keys():
        (folder / name).unlink(missing_ok=True)
    write_json(folder / LIST, sorted(files))


def listed_images(folder: Path) -> set[str]:
    """The images that earlier reports wrote here; those of versions without a list are not known."""
    try:
        if not is_plain_file(folder / LIST):
            return set()
        names = json.loads((folder / LIST).read_text(encoding="utf-8"))
        return {name for name in names if re.fullmatch(r"[a-z0-9_-]+\.(svg|png)", name)}
    except (OSError, ValueError, TypeError, RecursionError):
        return set()
