"""What a person sees while a sweep runs, and the table at its end."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

LINE_SECONDS = 10.0
LONGEST_TABLE = 40
ENOUGH = 0.01
"""Share of the work from which on its speed tells the time left."""

BAR = "{desc}: {percentage:3.0f}%|{bar:8}| {remaining} left{postfix}"
"""Fits into 80 columns with the loss and accuracy of a run whose name has 24 letters."""


@dataclass(frozen=True)
class RunResult:
    """A run at the end of a sweep.

    status: finished, diverged or failed.
    accuracy: on the test split at the end; a diverged run counts as guessing; a failed one has none (NaN), nor has a
        regression.
    seconds: of the run, with evaluation and probes, in all commands that worked on it.
    """

    run_id: str
    name: str
    arm: str
    status: str
    accuracy: float
    seconds: float
    folder: Path
    error: str = ""


@dataclass(frozen=True)
class Beat:
    """How far the runs that are trained at once have come.

    source: who trains them; a worker has one such set at a time.
    name: of the first of them.
    loss, accuracy: its last training loss, and accuracy on the validation split; NaN for what is not known yet.
    """

    source: str
    name: str
    runs: int
    step: int
    total: int
    loss: float
    accuracy: float


class Progress:
    """One bar for the whole command on a terminal, a line now and then elsewhere, or nothing.

    It is filled by the updates done, of all runs together.
    """

    def __init__(self, runs: int, updates: int, shown: bool) -> None:
        self.runs, self.updates, self.done = runs, updates, 0
        self.shown = shown
        self.begin = time.monotonic()
        self.next_line = self.begin + LINE_SECONDS
        self.lines = shown and not sys.stderr.isatty()
        self._ended = 0
        self._live: dict[str, Beat] = {}
        self._begun: int | None = None
        self.bar = tqdm(
            total=max(1, updates),
            desc="run" if runs == 1 else "sweep",
            disable=not shown or self.lines or runs == 0,
            bar_format=BAR,
            dynamic_ncols=True,
        )

    def beat(self, beat: Beat) -> None:
        self._live[beat.source] = beat
        self._show(beat)

    def finished(self, source: str, updates: int) -> None:
        """A run has left, whose updates were `updates` or would have been, had it not diverged."""
        self.done += 1
        self._ended += updates
        # Of jobs one hears no more than that.
        beat = self._live.get(source, Beat(source, "", 0, 0, 0, math.nan, math.nan))
        self._live[source] = replace(beat, runs=max(0, beat.runs - 1))
        self._show(self._live[source])

    def gone(self, source: str) -> None:
        """Nobody trains under this name any more."""
        self._live.pop(source, None)

    def _show(self, beat: Beat) -> None:
        reached = min(self.updates, self._ended + sum(b.runs * b.step for b in self._live.values()))
        if self._begun is None:  # what was there before does not count into the rate
            self._begun = reached
            self.begin = time.monotonic()
            self.bar.start_t, self.bar.initial = time.time(), reached
        of_one = f"{shortened(beat.name)} loss {beat.loss:.3g}, val acc {percent(beat.accuracy)}".strip()
        parts = [f"{self.done}/{self.runs} runs"] if self.runs > 1 else []
        parts += [of_one] if beat.runs == 1 else []
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(max(0, reached - self.bar.n))
        if self.lines and time.monotonic() > self.next_line:
            say(f"{', '.join([*parts, *self._step(beat)])}, {self._left(reached)}")
            self.next_line = time.monotonic() + LINE_SECONDS

    def _step(self, beat: Beat) -> list[str]:
        return [f"step {beat.step}/{beat.total}"] if beat.runs == 1 else []

    def _left(self, reached: int) -> str:
        gained = reached - (self._begun or 0)
        if gained <= ENOUGH * self.updates:
            return "time left not known yet"
        return f"about {duration((time.monotonic() - self.begin) * (self.updates - reached) / gained)} left"

    def note(self, text: str) -> None:
        if self.shown:
            say(text)

    def close(self) -> None:
        self.bar.close()


class AboveTheBars(logging.Handler):
    """Shows the package's warnings without tearing the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    """A line for the person at the terminal, above the bars; lost where the terminal is."""
    with suppress(OSError):
        tqdm.write(text, file=sys.stderr)


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}%"


def number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def shortened(name: str, letters: int = 24) -> str:
    """The end of a long name, where the runs of a sweep differ first."""
    return name if len(name) <= letters else "..." + name[-letters + 3 :]


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def table(results: Sequence[RunResult], group: str = "arm") -> str:
    """A row a run, or where there are too many to read a row an arm, or whatever `group` says that `arm` stands for."""
    if len(results) <= LONGEST_TABLE:
        head = ["run", "arm", "status", "test acc", "seconds", "folder"]
        rows = [
            [r.run_id, r.name or "-", r.status, percent(r.accuracy), number(r.seconds), str(r.folder)] for r in results
        ]
    else:
        head = [group, "runs", "diverged", "failed", "mean test acc", "seconds"]
        rows = [arm_row(arm, [r for r in results if r.arm == arm]) for arm in dict.fromkeys(r.arm for r in results)]
    return aligned([head, *rows])


def arm_row(arm: str, results: Sequence[RunResult]) -> list[str]:
    known = [r.accuracy for r in results if not math.isnan(r.accuracy)]
    counts = [sum(r.status == status for r in results) for status in ("diverged", "failed")]
    mean = percent(sum(known) / len(known)) if known else "-"
    seconds = sum(r.seconds for r in results if not math.isnan(r.seconds))
    return [arm or "-", str(len(results)), *map(str, counts), mean, number(seconds)]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
