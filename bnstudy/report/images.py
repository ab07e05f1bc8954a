"""Figures as a report has them: files beside the page, and elements of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup

from bnstudy.report.figures import Drawn, render
from bnstudy.store.files import write_atomic

LONGEST = 100
"""Characters of a name that is made of a text."""


@dataclass(frozen=True)
class Image:
    """A figure as files named `name`.svg and .png, and as the page shows it. kind: as `Drawn` has it."""

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


def image(drawn: Drawn, name: str, taken: set[str]) -> Image:
    """A figure rendered, under the file name that is nearest to `name`."""
    svg, png = render(drawn.figure, "svg"), render(drawn.figure, "png")
    return Image(file_name(name, taken), drawn.kind, drawn.title, drawn.caption, drawn.alt, svg, png)


def file_name(text: str, taken: set[str]) -> str:
    """A name of letters, digits and dashes for `text` that is not yet `taken`, and is from then on."""
    base = slug(text)
    name, i = base, 1
    while name in taken:
        i += 1
        name = f"{base}-{i}"
    taken.add(name)
    return name


def slug(text: str) -> str:
    """Its letters, digits and dashes; where these are too many the first of them, and a digest of the text."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def inline_svg(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: scaling with it, described by `alt`, its ids its own by a prefix."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{Markup.escape(alt)}">{rest}'


def write_images(folder: Path, images: Iterable[Image]) -> None:
    """Write them all, and remove those of an earlier report that are no more."""
    shown = list(images)
    files = {f"{i.name}.svg": i.svg for i in shown} | {f"{i.name}.png": i.png for i in shown}
    for name, content in files.items():
        write_atomic(folder / name, partial(_write_bytes, content))
    for old in sorted([*folder.glob("*.svg"), *folder.glob("*.png")]):
        if old.name not in files:
            old.unlink()


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)
