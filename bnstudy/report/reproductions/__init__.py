"""Published results beside the results of a study: a table and a figure for each study that reproduces one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures.style import ReportFigure
from bnstudy.report.reproductions.base import MARKS, Check
from bnstudy.report.targets import load_targets


@dataclass(frozen=True)
class ReproductionResult:
    """draw: draws the figure, in the style of the context; None without measurements for it."""

    note: str
    checks: list[Check]
    conclusions: list[str]
    draw: Callable[[], ReportFigure | None]

    @property
    def marks(self) -> dict[str, str]:
        """The marks of the checks, with their meaning."""
        return {mark: MARKS[mark] for mark in MARKS if mark in {check.expected.mark for check in self.checks}}

    @property
    def findings(self) -> list[str]:
        """How many expected values are met, and the conclusions or, without any, which values are not met."""
        counts = ", ".join(f"{n} {result}" for result, n in Counter(c.result for c in self.checks).items())
        missed = [
            f"Not met: {c.quantity}, {c.arm}: {c.measured}; expected {c.expected.label}."
            for c in self.checks
            if c.result == "not met"
        ]
        return [f"Of {len(self.checks)} expected values: {counts}.", *(self.conclusions or missed)]


def reproduce(study: StudyData, config_dirs: Sequence[Path] = ()) -> ReproductionResult | None:
    """Compare a study with the published result that it reproduces; None if it reproduces none."""
    targets = load_targets("reproduction", config_dirs, study.name)
    if not targets:
        return None
    reproduction = targets[study.name](study)
    return ReproductionResult(reproduction.note, reproduction.checks(), reproduction.conclusions(), reproduction.draw)
