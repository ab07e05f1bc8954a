"""The time that a run takes, by purpose."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds by purpose. When `shared_by` runs are trained at once, each counts its equal share.

    Purposes nest: an inner one suspends the outer one. On a GPU a purpose ends when its work is done.
    """

    def __init__(self, device: torch.device, shared_by: int) -> None:
        self.seconds = {"starting": 0.0, "training": 0.0, "evaluation": 0.0, "probes": 0.0}
        self.shared_by = shared_by
        self._cuda = device if device.type == "cuda" else None
        self._purpose: str | None = None
        self._since = 0.0

    @contextmanager
    def __call__(self, purpose: str | None) -> Iterator[None]:
        """Count the time inside for this purpose; for None, do not count it."""
        outer = self._purpose
        self._switch(purpose)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, purpose: str | None) -> None:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        now = time.perf_counter()
        if self._purpose is not None:
            self.seconds[self._purpose] += (now - self._since) / self.shared_by
        self._purpose, self._since = purpose, now
