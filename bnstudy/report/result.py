"""What drawing a report gives: the files, and the results for a terminal, a notebook or a paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from bnstudy.claims.verdicts import Verdict, as_json
from bnstudy.report.images import Image
from bnstudy.report.rendering import escape_markdown, render_fragment
from bnstudy.report.wording import answer
from bnstudy.validation import nearest, printable

COLUMNS = {"claim": "Claim", "case": "Case", "verdict": "Verdict", "effect": "Effect", "seeds": "Seeds"}
"""The columns of a short table of verdicts, with their headings."""


@dataclass(frozen=True)
class FigureFile:
    """A figure of a report: a notebook shows it, and its files can be copied.

    path: of the SVG; the PNG, of the same name, is beside it.
    """

    path: Path
    title: str
    caption: str

    def _repr_svg_(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def _repr_png_(self) -> bytes:
        return self.path.with_suffix(".png").read_bytes()


class Figures(Mapping[str, FigureFile]):
    """The figures of a report by name, in the order of the page."""

    def __init__(self, folder: Path, images: Iterable[Image]) -> None:
        self._files = {
            image.name: FigureFile(folder / f"{image.name}.svg", image.title, image.caption) for image in images
        }

    def __getitem__(self, name: str) -> FigureFile:
        if name not in self._files:
            known = nearest(name, self._files) or f". Known: {', '.join(self._files)}."
            raise KeyError(f"There is no figure {name}{known}")
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"{len(self)} figures: {', '.join(self)}"


@dataclass(frozen=True, repr=False)
class ReportResult:
    """The files of a report, and its results. Printing it shows what the terminal would; a notebook shows a table.

    sentences: the verdicts; of a report on several studies those in the primary views. tally: there, the count of
    verdicts in all views. diverged, missing: numbers of runs, each counted once; missing are planned and not finished.
    found: the verdicts, in all views. figures: by name.
    """

    folder: Path
    index: Path
    sentences: tuple[str, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]
    diverged: int
    missing: int
    tally: str = ""
    found: tuple[Verdict, ...] = ()
    title: str = ""
    figures: Mapping[str, FigureFile] = field(default_factory=dict)

    @property
    def lines(self) -> tuple[str, ...]:
        """For the terminal; of a report on several studies the most important lines are last."""
        results = (*self.sentences, *self.findings)
        lines = (*results, self.tally, *self.cautions) if self.tally else (*self.cautions, *results)
        return tuple(printable(line, keep="") for line in lines)

    def __repr__(self) -> str:
        return "\n".join([*self.lines, f"Report: {self.index}"])

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """The verdicts, a row each, as in claims.json: numbers in full. Empty for a comparison of two arms."""
        return pd.DataFrame(as_json(self.found), columns=None if self.found else ["claim", "status"])

    @property
    def table(self) -> pd.DataFrame:
        """A short table of the verdicts in the primary views, as text."""
        primary = [verdict for verdict in self.found if verdict.contrast.is_primary]
        rows = [(v.contrast.claim.statement, v.case, v.status, v.effect_text, str(v.n)) for v in primary]
        return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)

    def to_markdown(self) -> str:
        """The short table in Markdown."""
        rows = [[*COLUMNS.values()], ["---"] * len(COLUMNS), *self.table.to_numpy().tolist()]
        escaped = [[cell if cell == "---" else escape_markdown(cell) for cell in row] for row in rows]
        return "".join(f"| {' | '.join(row)} |\n" for row in escaped)

    def to_latex(self) -> str:
        r"""The short table in LaTeX, for the package booktabs. Long texts break: set it in \begin{table*} or smaller."""
        columns = r"p{0.34\linewidth}p{0.16\linewidth}lp{0.2\linewidth}r"
        table = self.table.rename(columns=COLUMNS)
        return table.to_latex(index=False, escape=True, column_format=columns)

    def _repr_html_(self) -> str:
        rows = self.table.to_dict("records")
        content = {"title": self.title, "answer": answer(self.found) if self.found else "", "rows": rows}
        content |= {"cautions": self.cautions, "link": self.index.absolute().as_uri(), "path": self.index}
        return render_fragment("notebook.html.j2", content)
