"""Published results beside what the runs here say: for each study that reproduces one, a table and a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures.style import Drawn
from bnstudy.report.reproductions import born_dead, explosion, shift, sigmoids
from bnstudy.report.reproductions.checks import MARKS, Check

__all__ = ["Reproduction", "reproduce"]


@dataclass(frozen=True)
class Reproduction:
    """note: what was measured, and what is not as it was published. marks: those in use, with their meaning."""

    note: str
    checks: list[Check]
    marks: dict[str, str]
    drawn: Drawn | None

    @property
    def findings(self) -> list[str]:
        """How many of the figures are met, and which are not."""
        counted = {row.met: sum(other.met == row.met for other in self.checks) for row in self.checks}
        told = "; ".join(f"{met}: {n}" for met, n in counted.items())
        others = [f"{c.quantity}, {c.arm}: {c.here}; expected {c.expected.shown}" for c in self.checks if c.met == "no"]
        return [f"Of {len(self.checks)} expected figures, met? {told}.", *(f"Not met: {line}." for line in others)]


Parts = tuple[str, Callable[[StudyData], list[Check]], Callable[[StudyData], Drawn | None]]

STUDIES: dict[str, Parts] = {
    "yang_explosion": (explosion.NOTE, explosion.checks, explosion.draw),
    "lu_born_dead": (born_dead.NOTE, born_dead.checks, born_dead.draw),
    "santurkar_linear": (shift.NOTE, shift.checks, shift.draw),
    "ioffe_fig1": (sigmoids.NOTE, sigmoids.checks, sigmoids.draw),
}


def reproduce(study: StudyData) -> Reproduction | None:
    """None for a study that reproduces nothing."""
    if study.name not in STUDIES:
        return None
    note, checks, draw = STUDIES[study.name]
    rows = checks(study)
    used = {row.expected.mark for row in rows}
    return Reproduction(note, rows, {mark: text for mark, text in MARKS.items() if mark in used}, draw(study))
