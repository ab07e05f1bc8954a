"""Rendered figures: files beside the page, and elements of the page."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from markupsafe import Markup

from bnstudy.report.figures import ReportFigure, render
from bnstudy.store.files import is_plain_file, write_atomic, write_json

LIST = "files.json"
"""Names the images of a report, beside them."""

MAX_NAME = 100
"""Characters of a name that is made from a text."""


@dataclass(frozen=True)
class Image:
    """A rendered figure, with files `name`.svg and `name`.png. kind: of the figure, as claims name it."""

    name: str
    kind: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes

    @property
    def inline(self) -> Markup:
        return Markup(inline_svg(self.svg.decode(), self.name, self.alt))


def render_image(figure: ReportFigure, name: str, taken: set[str]) -> Image:
    """Render a figure under a free file name like `name`, which is added to `taken`."""
    svg, png = render(figure.figure, "svg"), render(figure.figure, "png")
    return Image(choose_name(name, taken), figure.kind, figure.title, figure.caption, figure.alt, svg, png)


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
    """An SVG file as an element of a page: it scales with the page, and its ids begin with `name`."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{Markup.escape(alt)}">{rest}'


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
