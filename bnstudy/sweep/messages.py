"""What workers report while they train, and the errors that they record in the folders of runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnstudy.store.files import is_plain_file, write_text


@dataclass(frozen=True)
class Beat:
    """The step that a worker's runs have reached.

    runs: number of runs that it trains at once, 0 while it waits.
    name: of the first of them.
    loss, accuracy: its last training loss, and accuracy on the validation split; NaN if not known yet.
    """

    worker: str
    name: str
    runs: int
    step: int
    total: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Failure:
    """A run that could not be trained.

    pid: of the process that died with the run, if that is the cause.
    """

    run_id: str
    error: str
    pid: int | None = None


@dataclass(frozen=True)
class RunDone:
    """A run is stored; `worker` is empty if another worker may have trained it; `steps` as in `Progress.run_done`."""

    worker: str
    run_id: str
    steps: int


@dataclass(frozen=True)
class Waiting:
    """A worker has nothing to train but runs that this process holds."""

    runs: int
    pid: int
    host: str

    def __str__(self) -> str:
        return f"Waiting for {plural(self.runs, 'run')} that process {self.pid} on {self.host} has."


class LoggerFailed(str):
    """The sentence of a worker whose logger failed; a command shows it once."""


COMMAND = "command "
"""Begins the first line of `error.txt`, followed by the id of the command."""

Send = Callable[[Any], None]
"""Receives each `Beat`, `RunDone`, `Failure`, `Waiting` and message of a worker."""


def record_error(path: Path, command: str, error: str, details: str = "") -> None:
    """Write a run's `error.txt`: the command whose worker failed, details such as a traceback, and the error."""
    write_text(path, f"{COMMAND}{command}\n{details}{error}\n")


def recorded_error(path: Path, command: str) -> str:
    """The error in a run's `error.txt`; empty if there is none, or only one of another command."""
    lines = _lines(path)
    return _last(lines) if lines and lines[0].rstrip() == f"{COMMAND}{command}" else ""


def last_line(path: Path) -> str:
    """The last line with text, except srun's, which only count failed tasks; empty if the file cannot be read."""
    return _last(_lines(path))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines() if is_plain_file(path) else []
    except OSError:
        return []


def _last(lines: list[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith("srun: ")), "")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
