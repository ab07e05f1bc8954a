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

from bnstudy.report.terminal import align, stage, width_of
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
    """The steps done, of all runs together: a bar on a terminal, elsewhere a line when something has changed, or
    nothing."""

    def __init__(self, runs: int, steps: int, shown: bool) -> None:
        stage.info("")
        self.runs, self.steps = runs, steps
        self.shown = shown
        self.begin = time.monotonic()
        self.next_line = self.begin + LINE_SECONDS
        self.last_line = ""
        self.lines = shown and not sys.stderr.isatty() and not in_notebook()
        self._done: set[str] = set()
        self._ended = 0
        self._live: dict[str, Beat] = {}
        self._initial: int | None = None
        self.bar = bar_class()(
            total=max(1, steps),
            desc="run" if runs == 1 else "steps",
            disable=not shown or self.lines or runs == 0,
            bar_format=BAR if bar_class() is tqdm else BAR.replace("{bar:8}", "{bar}"),
            dynamic_ncols=True,
            leave=False,  # what follows says how it ended, and a second pass has a bar of its own
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
            line = f"{len(self._done)}/{self.runs} runs, {100 * reached // max(1, self.steps)}%"
            line = line if self.runs > 1 else f"step {beat.step}/{beat.total}, loss {loss}"
            if line != self.last_line:
                say(f"{line}, {self._remaining_time(reached)}")
                self.last_line = line
                self.next_line = time.monotonic() + LINE_SECONDS

    def _remaining_time(self, reached: int) -> str:
        gained = reached - (self._initial or 0)
        if gained <= MIN_SHARE * self.steps:
            return "time left not known yet"
        left = (time.monotonic() - self.begin) * (self.steps - reached) / gained
        return f"{tqdm.format_interval(left)} left"  # as in the bar

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


def show_warnings() -> None:
    """Show the package's warnings on stderr, besides what the caller's own handlers do with them."""
    package = logging.getLogger("bnstudy")
    package.handlers = [*(h for h in package.handlers if not isinstance(h, AboveTheBars)), AboveTheBars()]


class AboveTheBars(logging.Handler):
    """Shows the package's warnings without breaking the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    """Print a line on stderr, above the bar; do nothing if the terminal is gone."""
    stage.info("")
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
    """One row per run, one per arm if there are too many runs, or one per family if there are too many arms.

    Arms are in the order of the command line, and those that differ in the learning rate alone together, by their rate:
    a second pass adds rates to arms that stand further up. Without times: the first runs of a stack would
    seem slow, as they wait for its start.

    group: heading of the column of `RunResult.arm`.
    """
    if len(results) <= MAX_TABLE_ROWS:
        rows = [["run", "arm", "status", "test acc"]]
        rows += [[r.run_id, r.name or "-", r.status, percent(r.accuracy)] for r in results]
        if not any(r.name for r in results):  # a single run
            return align([[run_id, *others] for run_id, _, *others in rows], right=[2])
        return align(rows, right=[3], flexible=[1], width=width_of(sys.stdout))
    arms = {r.arm: r.arm for r in results}
    families = {arm: " ".join(word for word in arm.split(" ") if not word.startswith("lr=")) for arm in arms}
    head = [group, "runs", *LOST, "mean test acc"]
    if len(arms) > MAX_TABLE_ROWS and len({*families.values()}) < len(arms):
        # A mean over learning rates would say little.
        arms, head = families, ["arm, at all lr", "runs", *LOST]
    by_arm: dict[str, list[RunResult]] = {}
    for r in results:
        by_arm.setdefault(arms[r.arm], []).append(r)
    order = list(dict.fromkeys(families.values()))
    ordered = sorted(by_arm, key=lambda arm: (order.index(families.get(arm) or arm), rate_of(arm)))
    rows = [arm_row(arm, by_arm[arm])[: len(head)] for arm in ordered]
    return align([head, *rows], right=range(1, len(head)), flexible=[0], width=width_of(sys.stdout))


def rate_of(arm: str) -> float:
    """The learning rate in the name of an arm; 0 for none."""
    rates = [word.removeprefix("lr=") for word in arm.split(" ") if word.startswith("lr=")]
    with suppress(ValueError):
        return float(rates[0]) if rates else 0.0
    return 0.0


def arm_row(arm: str, results: Sequence[RunResult]) -> list[str]:
    known = [r.accuracy for r in results if not math.isnan(r.accuracy)]
    counts = [sum(r.status == status for r in results) for status in LOST]
    mean = percent(sum(known) / len(known)) if known else "-"
    return [arm or "-", str(len(results)), *map(str, counts), mean]
