"""A report as an object for a notebook or a paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from bnstudy.claims.verdicts import Verdict, as_json
from bnstudy.report.figure_files import Figures
from bnstudy.report.rendering import escape_markdown, render_fragment
from bnstudy.report.result import ReportResult
from bnstudy.report.terminal import show_report
from bnstudy.validation import printable

HEADINGS = ("Claim", "Case", "Verdict", "Effect", "Seeds")
"""Of a short table of verdicts."""


class Report:
    """A report that was written. A notebook shows its answer and verdicts; printing it shows what a terminal would.

    index: the path of the page. found: the verdicts as objects. figures: by name, in the order of the page.
    """

    def __init__(self, result: ReportResult) -> None:
        self._result = result
        self.index: Path = result.index
        self.found: Sequence[Verdict] = result.found
        self.figures: Figures = result.figures
        self.cautions: Sequence[str] = result.cautions

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """The verdicts in all views, a row each, as in claims.json: numbers in full."""
        return pd.DataFrame(as_json(self.found), columns=None if self.found else ["claim", "status"])

    @property
    def table(self) -> pd.DataFrame:
        """A short table of the verdicts in the primary views, as text."""
        primary = [verdict for verdict in self.found if verdict.contrast.is_primary]
        rows = [(v.contrast.claim.statement, v.case, v.status, v.effect_text, str(v.n)) for v in primary]
        cells = [[printable(text, keep="") for text in row] for row in rows]
        return pd.DataFrame(cells, columns=list(HEADINGS), dtype=str)

    def to_markdown(self) -> str:
        """The short table in Markdown."""
        cells = [[escape_markdown(cell) for cell in row] for row in (HEADINGS, *self.table.to_numpy().tolist())]
        rows = [cells[0], ["---"] * len(HEADINGS), *cells[1:]]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def to_latex(self) -> str:
        """The short table in LaTeX, for the package booktabs; long texts are broken."""
        columns = r"p{0.34\linewidth}p{0.16\linewidth}lp{0.2\linewidth}r"
        return self.table.to_latex(index=False, escape=True, column_format=columns)

    def __repr__(self) -> str:
        return show_report(self._result, io.StringIO())

    def _repr_html_(self) -> str:
        content = {
            "title": self._result.title, "answer": self._result.answer if self.found else "", "headings": HEADINGS,
            "rows": self.table.to_numpy().tolist(), "findings": () if self.found else self._result.findings,
            "cautions": self.cautions, "link": self.index.absolute().as_uri(), "path": self.index,
        }  # fmt: skip
        return render_fragment("notebook.html.j2", content)
