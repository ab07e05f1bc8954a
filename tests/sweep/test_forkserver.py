from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bnstudy.sweep import forkserver
from bnstudy.sweep.forkserver import STOPPING, context, held_back


@pytest.mark.parametrize(("executor", "cores", "asked"), [("auto", 2, 1), ("processes", 4, 1), ("auto", 1, 0)])
def test_the_server_is_started_where_workers_may_be_wanted(monkeypatch, executor, cores, asked):
    calls = []
    monkeypatch.setattr(forkserver.forkserver, "ensure_running", lambda: calls.append("running"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    forkserver.get_ready({"executor": executor})
    assert len(calls) == (asked if sys.platform == "linux" else 0)


@pytest.mark.parametrize("executor", ["slurm", "inprocess", "debug"])
def test_it_is_not_started_for_other_executors(monkeypatch, executor):
    monkeypatch.setattr(forkserver.forkserver, "ensure_running", lambda: pytest.fail("started"))
    forkserver.get_ready({"executor": executor})


def test_signals_that_come_while_a_process_starts_are_held_back():
    with held_back():
        process = context().Process(target=mask_and_leave)
        process.start()
    process.join()
    assert process.exitcode == 0
    assert not set(STOPPING) & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def mask_and_leave() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    sys.exit(0 if set(STOPPING) <= blocked else 1)


def test_nothing_heavy_is_imported_before_the_server_is_asked_for():
    code = "import sys, bnstudy.sweep.forkserver; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
