"""The figures of a report as their files, which a notebook shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bnstudy.report.images import Image
from bnstudy.validation import nearest


@dataclass(frozen=True)
class FigureFile:
    """A figure. path: of its SVG; a PNG of the same name is beside it."""

    path: Path
    title: str
    caption: str

    def _repr_svg_(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def _repr_png_(self) -> bytes:
        return self.path.with_suffix(".png").read_bytes()


class Figures(Mapping[str, FigureFile]):
    """The figures of a report by name, in the order of the page."""

    def __init__(self, folder: Path, images: Iterable[Image] = ()) -> None:
        self._files = {
            image.name: FigureFile(folder / f"{image.name}.svg", image.title, image.caption) for image in images
        }

    def __getitem__(self, name: str) -> FigureFile:
        if name not in self._files:
            raise KeyError(f"There is no figure {name}{nearest(name, self._files) or '.'} Known: {', '.join(self)}.")
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"{len(self)} figures: {', '.join(self)}"
