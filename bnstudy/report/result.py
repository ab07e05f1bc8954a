"""What drawing a report gives: the files, and the results for a terminal or a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bnstudy.claims.verdicts import Verdict
from bnstudy.report.figure_files import Figures


@dataclass(frozen=True)
class ReportResult:
    """The files of a report, and its results.

    verdicts: in sentences; of a report on several studies those in the primary views. tally: there, the count of
    verdicts in all views. diverged, missing: numbers of runs, each counted once; missing are planned and not finished.
    found: the verdicts, in all views. title: the question. answer: to it, in a sentence; empty for none.
    """

    folder: Path
    index: Path
    verdicts: tuple[str, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]
    diverged: int
    missing: int
    tally: str = ""
    found: tuple[Verdict, ...] = ()
    title: str = ""
    answer: str = ""
    figures: Figures = field(default_factory=lambda: Figures(Path()))
