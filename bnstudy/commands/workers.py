"""A worker in words."""

from __future__ import annotations

import time

from bnstudy.store.activity import Worker
from bnstudy.sweep.progress import duration


def worker_text(worker: Worker) -> str:
    """`process 123 on host, for 3 min`, and whether it may be dead."""
    text = f"process {worker.holder.pid} on {worker.holder.host}, for {duration(max(0.0, time.time() - worker.since))}"
    if worker.is_alive is False:
        return f"{text}: stale, the process has ended"
    if worker.is_stale:
        silent = "without a heartbeat" if worker.silent is None else f"no heartbeat for {duration(worker.silent)}"
        return f"{text}: stale, {silent}"
    return text
