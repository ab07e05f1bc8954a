"""What a person sees while a sweep runs, and the table at its end."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

LINE_SECONDS = 10.0
LONGEST_TABLE = 40
RUN_BAR = "{desc}: {percentage:3.0f}%|{bar:6}| {remaining} left{postfix}"
"""Fits into 80 columns with a name of 24 letters, and into 60 without a name."""


@dataclass(frozen=True)
class RunResult:
    """A run at the end of a sweep.

    status: finished, diverged or failed.
    accuracy: on the test split at the end; a diverged run counts as guessing, a failed one has none (NaN).
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


class Progress:
    """One bar for the sweep and one for the run on a terminal, a line now and then elsewhere, or nothing."""

    def __init__(self, runs: int, shown: bool) -> None:
        self.runs, self.done, self.name = runs, 0, ""
        self.shown = shown
        self.begin = time.monotonic()
        self.next_line = self.begin + LINE_SECONDS
        self.lines = shown and not sys.stderr.isatty()
        hidden = not shown or self.lines or runs == 0
        self.sweep_bar = tqdm(total=runs, desc="sweep", unit="run", position=0, disable=hidden or runs == 1)
        self.run_bar = tqdm(
            total=1,
            desc="run",
            position=0 if runs == 1 else 1,
            leave=runs == 1,
            disable=hidden,
            bar_format=RUN_BAR,
            dynamic_ncols=True,
        )

    def start(self, name: str, step: int, total: int) -> None:
        self.name = name
        # Not tqdm's reset, which draws an empty bar beside the figures of the run before.
        self.run_bar.n, self.run_bar.total, self.run_bar.last_print_n = step, total, step
        self.run_bar.start_t = self.run_bar.last_print_t = time.time()
        self.run_bar.set_description_str(shortened(name) or "run", refresh=False)
        self.run_bar.set_postfix_str("", refresh=False)

    def beat(self, step: int, total: int, loss: float, accuracy: float) -> None:
        """`accuracy` is on the validation split; NaN for what is not known yet."""
        self.run_bar.set_postfix_str(f"loss {loss:.3g}, val acc {percent(accuracy)}", refresh=False)
        self.run_bar.update(step - self.run_bar.n)
        if self.lines and time.monotonic() > self.next_line:
            share = (self.done + step / total) / self.runs
            left = (time.monotonic() - self.begin) * (1 / share - 1) if share else math.nan
            which = f"run {self.done + 1}/{self.runs} {self.name}: " if self.runs > 1 else ""
            say(
                f"{which}step {step}/{total}, loss {loss:.3g}, val acc {percent(accuracy)}, about {duration(left)} left"
            )
            self.next_line = time.monotonic() + LINE_SECONDS

    def finish(self, total: int, loss: float, accuracy: float) -> None:
        self.beat(total, total, loss, accuracy)
        self.done += 1
        self.sweep_bar.update(1)

    def skip(self) -> None:
        self.done += 1
        self.sweep_bar.update(1)

    def note(self, text: str) -> None:
        if self.shown:
            say(text)

    def close(self) -> None:
        self.run_bar.close()
        self.sweep_bar.close()


class AboveTheBars(logging.Handler):
    """Shows the package's warnings without tearing the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    """A line for the person at the terminal, above the bars."""
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


def table(results: Sequence[RunResult]) -> str:
    """A row a run, or a row an arm where there are too many runs to read."""
    if len(results) <= LONGEST_TABLE:
        head = ["run", "arm", "status", "test acc", "seconds", "folder"]
        rows = [
            [r.run_id, r.name or "-", r.status, percent(r.accuracy), number(r.seconds), str(r.folder)] for r in results
        ]
    else:
        head = ["arm", "runs", "diverged", "failed", "mean test acc", "seconds"]
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
