"""The display of a running sweep, and the table at its end."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bnstudy.sweep.messages import Beat, RunDone, Waiting
from bnstudy.validation import printable

LINE_SECONDS = 10.0
MAX_TABLE_ROWS = 40
LOST = ("diverged", "did not learn", "failed")
"""The statuses that the table counts."""

MIN_SHARE = 0.01
"""Share of the work after which the remaining time is estimated."""

BAR = "{desc}: {percentage:3.0f}%|{bar:8}| {remaining} left{postfix}"
"""Fits into 80 columns with the loss and accuracy of a run whose name has 24 letters."""

FROM_PYTHON: ContextVar[bool] = ContextVar("FROM_PYTHON", default=False)
"""Whether Python code started the sweep: it gets the results as a frame, so no table is printed."""


@dataclass(frozen=True)
class RunResult:
    """A run at the end of a sweep.

    status: finished, did not learn, diverged or failed.
    accuracy: on the test split at the end; that of guessing for a run that diverged or did not learn, NaN for a failed
        run or a regression.
    seconds: of the run, including evaluation and probes, in all commands that trained it.
    """

    run_id: str
    name: str
    arm: str
    status: str
    accuracy: float
    seconds: float
    folder: Path
    error: str = ""


class Progress:
    """The steps done, of all runs together: a bar on a terminal, an occasional line elsewhere, or nothing."""

    def __init__(self, runs: int, steps: int, shown: bool) -> None:
        self.runs, self.steps = runs, steps
        self.shown = shown
        self.begin = time.monotonic()
        self.next_line = self.begin + LINE_SECONDS
        self.lines = shown and not sys.stderr.isatty() and not in_notebook()
        self._done: set[str] = set()
        self._ended = 0
        self._live: dict[str, Beat] = {}
        self._initial: int | None = None
        self.bar = bar_class()(
            total=max(1, steps),
            desc="run" if runs == 1 else "sweep",
            disable=not shown or self.lines or runs == 0,
            bar_format=BAR if bar_class() is tqdm else BAR.replace("{bar:8}", "{bar}"),
            dynamic_ncols=True,
        )

    def show(self, message: Any) -> None:
        """Display a worker's message; do nothing if the terminal is gone."""
        with suppress(OSError):
            if isinstance(message, Beat):
                self.beat(message)
            elif isinstance(message, RunDone):
                self.run_done(message.worker, message.run_id, message.steps)
            elif isinstance(message, Waiting | str):
                self.note(str(message))

    def beat(self, beat: Beat) -> None:
        self._live[beat.worker] = beat
        self._show(beat)

    def run_done(self, worker: str, run_id: str, steps: int) -> None:
        """Count a run as done, once; `steps` is its number of steps, or would have been had it not diverged."""
        beat = self._live.get(worker, Beat(worker, "", 0, 0, 0, math.nan, math.nan))
        self._live[worker] = replace(beat, runs=max(0, beat.runs - 1))
        if run_id not in self._done:
            self._done.add(run_id)
            self._ended += steps
            self._show(self._live[worker])

    def gone(self, worker: str) -> None:
        """Forget a worker that has ended."""
        self._live.pop(worker, None)

    def _show(self, beat: Beat) -> None:
        reached = min(self.steps, self._ended + sum(b.runs * b.step for b in self._live.values()))
        if self._initial is None:  # earlier steps do not count into the rate
            self._initial = reached
            self.begin = time.monotonic()
            self.bar.start_t, self.bar.initial = time.time(), reached
        loss = f"{beat.loss:.3g}" if beat.step else "-"
        of_one = f"{shorten(beat.name)} loss {loss}, val acc {percent(beat.accuracy)}".strip()
        parts = [f"{len(self._done)}/{self.runs} runs"] if self.runs > 1 else []
        parts += [of_one] if beat.runs == 1 else []
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(max(0, reached - self.bar.n))
        if self.lines and time.monotonic() > self.next_line:
            parts += [f"step {beat.step}/{beat.total}"] if beat.runs == 1 else []
            say(f"{', '.join(parts)}, {self._remaining_time(reached)}")
            self.next_line = time.monotonic() + LINE_SECONDS

    def _remaining_time(self, reached: int) -> str:
        gained = reached - (self._initial or 0)
        if gained <= MIN_SHARE * self.steps:
            return "time left not known yet"
        return f"about {duration((time.monotonic() - self.begin) * (self.steps - reached) / gained)} left"

    def note(self, text: str) -> None:
        if self.shown:
            say(text)

    def close(self) -> None:
        self.bar.close()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def bar_class() -> type[tqdm]:
    """A widget in a notebook that can show one, else a line of text."""
    if not in_notebook() or find_spec("ipywidgets") is None:
        return tqdm
    from tqdm.notebook import tqdm as widget

    return widget


class AboveTheBars(logging.Handler):
    """Shows the package's warnings without breaking the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    """Print a line on stderr, above the bar; do nothing if the terminal is gone."""
    with suppress(OSError):
        tqdm.write(printable(text), file=sys.stderr)


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}%"


def shorten(name: str, letters: int = 24) -> str:
    """The end of a long name, where the runs of a sweep differ."""
    return name if len(name) <= letters else "..." + name[-letters + 3 :]


def duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def table(results: Sequence[RunResult], group: str = "arm") -> str:
    """One row per run, or one per arm if there are too many runs.

    group: heading of the column of `RunResult.arm`.
    """
    if len(results) <= MAX_TABLE_ROWS:
        head = ["run", "arm", "status", "test acc", "seconds", "folder"]
        seconds = ["-" if math.isnan(r.seconds) else f"{r.seconds:.1f}" for r in results]
        rows = [
            [r.run_id, r.name or "-", r.status, percent(r.accuracy), spent, str(r.folder)]
            for r, spent in zip(results, seconds, strict=True)
        ]
    else:
        head = [group, "runs", *LOST, "mean test acc", "seconds"]
        rows = [arm_row(arm, [r for r in results if r.arm == arm]) for arm in dict.fromkeys(r.arm for r in results)]
    return align([head, *rows])


def arm_row(arm: str, results: Sequence[RunResult]) -> list[str]:
    known = [r.accuracy for r in results if not math.isnan(r.accuracy)]
    counts = [sum(r.status == status for r in results) for status in LOST]
    mean = percent(sum(known) / len(known)) if known else "-"
    seconds = sum(r.seconds for r in results if not math.isnan(r.seconds))
    return [arm or "-", str(len(results)), *map(str, counts), mean, f"{seconds:.1f}"]


def align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
