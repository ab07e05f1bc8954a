"""Runs that failed, as their workers report them and as their folders record them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Failure:
    """A run that could not be trained.

    pid: of the process that died with the run, if that is the cause.
    """

    run_id: str
    error: str
    pid: int | None = None


def recorded_error(path: Path, since: float) -> str:
    """The error in a run's `error.txt`; empty if there is none, or only one written before `since`."""
    try:
        return last_line(path) if path.stat().st_mtime >= since else ""
    except OSError:
        return ""


def last_line(path: Path) -> str:
    """The last line with text, except srun's, which only count failed tasks; empty if the file cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith("srun: ")), "")
