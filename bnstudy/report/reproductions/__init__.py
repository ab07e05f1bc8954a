"""Published results beside the results of a study: a table and a figure for each study that reproduces one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures.style import ReportFigure
from bnstudy.report.reproductions.base import MARKS, Check
from bnstudy.report.targets import load_targets

__all__ = ["ReproductionResult", "reproduce"]


@dataclass(frozen=True)
class ReproductionResult:
    """marks: the marks of the checks, with their meaning."""

    note: str
    checks: list[Check]
    marks: dict[str, str]
    figure: ReportFigure | None

    @property
    def findings(self) -> list[str]:
        """How many expected values are met, and which are not."""
        counts = ", ".join(f"{n} {result}" for result, n in Counter(c.result for c in self.checks).items())
        missed = [
            f"Not met: {c.quantity}, {c.arm}: {c.measured}; expected {c.expected.label}."
            for c in self.checks
            if c.result == "not met"
        ]
        return [f"Of {len(self.checks)} expected values: {counts}.", *missed]


def reproduce(study: StudyData, config_dirs: Sequence[Path] = ()) -> ReproductionResult | None:
    """Compare a study with the published result that it reproduces; None if it reproduces none.

    Raises:
        ConfigError: as `load_targets`.
    """
    targets = load_targets("reproduction", config_dirs, study.name)
    if not targets:
        return None
    reproduction = targets[study.name](study)
    checks, figure = reproduction.checks(), reproduction.draw()
    marks = {mark: MARKS[mark] for mark in MARKS if mark in {check.expected.mark for check in checks}}
    return ReproductionResult(reproduction.note, checks, marks, figure and replace(figure, kind=study.name))
