from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bnstudy.sweep import forkserver
from bnstudy.sweep.forkserver import STOPPING, context, hold_signals


@pytest.mark.parametrize(
    ("executor", "cores", "starts"),
    [("auto", 2, 1), ("processes", 4, 1), ("auto", 1, 0), ("slurm", 4, 0), ("inprocess", 4, 0)],
)
def test_the_server_starts_if_the_sweep_may_need_workers(monkeypatch, executor, cores, starts):
    calls = []
    monkeypatch.setattr(forkserver.forkserver, "ensure_running", lambda: calls.append("running"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    forkserver.start_server({"executor": executor})
    assert len(calls) == (starts if sys.platform == "linux" else 0)


def test_signals_are_blocked_while_a_process_starts():
    with hold_signals():
        process = context().Process(target=exit_with_mask)
        process.start()
    process.join()
    assert process.exitcode == 0
    assert not set(STOPPING) & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def exit_with_mask() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    sys.exit(0 if set(STOPPING) <= blocked else 1)


def test_the_module_does_not_import_torch():
    code = "import sys, bnstudy.sweep.forkserver; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
