"""Being asked to stop: what is in training is saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bnstudy.sweep.forkserver import STOPPING
from bnstudy.sweep.progress import say


class Interrupted(Exception):  # noqa: N818
    """A signal asked to stop; what was in training is saved. The exit status is the shells' for that signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(signum).name}; the same command goes on where this one stopped.")
        self.signum = signum
        self.exit_status = 128 + signum


class StopFlag:
    """Set by SIGINT, SIGTERM, SIGHUP (a closed terminal) or SIGUSR2. A second signal stops at once, without saving."""

    signum: int | None = None

    def __init__(self, sentence: str = "Stopping: saving what is in training (once more to stop at once).") -> None:
        self.sentence = sentence

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Under nohup a closed terminal is no reason to stop.
        heard = [s for s in STOPPING if s != signal.SIGHUP or signal.getsignal(s) is not signal.SIG_IGN]
        old = {s: signal.signal(s, self._set) for s in heard}
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
        """Raises Interrupted where a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)


class LastSignal(StopFlag):
    """Set by the latest signal, of which none stops at once: a Ctrl-C comes twice, from the terminal and from the
    command, and Slurm announces the end of a job's time after it has asked it to stop."""

    def _set(self, signum: int, frame: Any) -> None:  # noqa: ARG002
        self.signum = signum
