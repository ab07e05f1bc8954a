"""Start worker processes by forking a server that has already imported torch.

Importing torch takes a process two seconds. The server imports it once, while the sweep is planned, and its workers
share those pages. The server never computes, so forking it is safe. This module does not import torch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext, SpawnContext
from types import ModuleType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Signals upon which a worker saves its runs and ends."""

PRELOADED = ["bnstudy.sweep.socket_folder", "bnstudy.sweep.processes"]

MAX_TMPDIR = 60
"""Characters of TMPDIR that leave room for the name of a socket below it: the system allows 107 in all."""


def context() -> SpawnContext | ForkServerContext:
    """The multiprocessing context of workers: forking is safe on Linux only."""
    if sys.platform != "linux":
        return SpawnContext()
    make_socket_folder()
    return ForkServerContext()


def start_server(launcher: Any) -> None:
    """Start the server in the background if the sweep may need worker processes.

    launcher: the composed `hydra.launcher`, not checked yet.
    """
    wanted = isinstance(launcher, Mapping) and launcher.get("executor", "auto") in ("auto", "processes")
    if sys.platform == "linux" and wanted and cores() > 1:
        multiprocessing.set_forkserver_preload(PRELOADED)
        make_socket_folder()
        with hold_signals(), ignore_working_directory():
            forkserver.ensure_running()


def make_socket_folder() -> None:
    """Have multiprocessing make its folder of sockets in /tmp if TMPDIR is too long for them, as Python 3.14 does."""
    if len(os.fsencode(tempfile.gettempdir())) > MAX_TMPDIR:
        before, tempfile.tempdir = tempfile.tempdir, "/tmp"
        try:
            util.get_temp_dir()  # makes it once, and removes it at exit
        finally:
            tempfile.tempdir = before


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def ignore_working_directory() -> Iterator[None]:
    """Start Python processes that do not import modules from the working directory first, as `python -c` would.

    It may hold another checkout, or a numbers.py.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def without_main() -> Iterator[None]:
    """Start a process that does not import the main module, as those of multiprocessing do.

    A worker needs nothing of it, and a script without `if __name__ == "__main__":` would start its sweep once more.
    """
    own = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = own


@contextmanager
def hold_signals() -> Iterator[None]:
    """Block the signals in STOPPING for a process that starts, until it handles them; it inherits the mask.

    Otherwise Ctrl-C while it imports torch would end it with a traceback.
    """
    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, and unblocks signals then
    old = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
