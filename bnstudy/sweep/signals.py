"""Signals that stop a command: unfinished runs are saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bnstudy.sweep.forkserver import STOPPING
from bnstudy.sweep.progress import say


class Interrupted(Exception):  # noqa: N818
    """A signal stopped the command; unfinished runs are saved. The exit status is the one that shells use."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(signum).name}; the same command goes on where this one stopped.")
        self.signum = signum
        self.exit_status = 128 + signum


class StopFlag:
    """Records SIGINT, SIGTERM, SIGHUP (a closed terminal) or SIGUSR2; a second signal exits without saving.

    sentence: printed at the first signal.
    """

    signum: int | None = None

    def __init__(self, sentence: str = "Stopping: saving unfinished runs (once more to stop at once).") -> None:
        self.sentence = sentence

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A caller that ignores a signal means it: nohup a closed terminal, a script Ctrl-C of its background commands.
        handled = [s for s in STOPPING if signal.getsignal(s) is not signal.SIG_IGN]
        old = {s: signal.signal(s, self._set) for s in handled}
        try:
            yield
        finally:
            for s, handler in old.items():
                signal.signal(s, handler)

    def _set(self, signum: int, frame: Any) -> None:  # noqa: ARG002
        if self.signum is not None:
            raise SystemExit(128 + signum)
        self.signum = signum
        if self.sentence:
            say(self.sentence)

    def check(self) -> None:
        """Raises Interrupted if a signal came."""
        if self.signum is not None:
            raise Interrupted(self.signum)


class LastSignal(StopFlag):
    """Records the latest signal and never exits by itself.

    A worker receives Ctrl-C twice, from the terminal and from the command; Slurm sends SIGUSR2 after SIGTERM.
    """

    def _set(self, signum: int, frame: Any) -> None:  # noqa: ARG002
        self.signum = signum
