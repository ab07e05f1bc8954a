"""How worker processes are started: forked from a server that has torch imported already.

Importing torch takes a process two seconds. The server does that once, beside the planning of the sweep, and its
workers share those pages. It never computes, so that forking it is safe. Nothing heavy is imported here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Signals that ask a worker to save what it trains and end."""

IMPORTED = ["bnstudy.sweep.processes"]


def context() -> SpawnContext | ForkServerContext:
    """The kind of processes that workers are: elsewhere than on Linux forking is not safe."""
    return ForkServerContext() if sys.platform == "linux" else SpawnContext()


def get_ready(launcher: Any) -> None:
    """Have the server import what workers need, in the background, where a sweep may come to want some.

    launcher: the composed `hydra.launcher`, not checked yet.
    """
    wanted = isinstance(launcher, Mapping) and launcher.get("executor", "auto") in ("auto", "processes")
    if sys.platform == "linux" and wanted and cores() > 1:
        set_up()
        multiprocessing.set_forkserver_preload(IMPORTED)
        with held_back(), working_directory_left_out():
            forkserver.ensure_running()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def working_directory_left_out() -> Iterator[None]:
    """A Python started inside does not look for modules in the working directory first, as `python -c` would: there
    may be another checkout, or somebody's numbers.py."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def set_up() -> None:
    """The environment that torch's compiler reads when it is imported."""
    # The cores are the workers'.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@contextmanager
def held_back() -> Iterator[None]:
    """Signals to stop that come while a process starts wait until it listens to them.

    Without this, Ctrl-C while it imports torch would end it with a traceback. The mask is inherited.
    """
    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, and unblocks signals then
    old = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
