from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


SOCKETS = """
from bnstudy.sweep.forkserver import context
if __name__ == "__main__":
    process = context().Process(target=print, args=("forked",))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("length", [20, 100])
def test_workers_start_with_a_tmpdir_too_long_for_a_socket(tmp_path, length):
    folder = tmp_path / ("x" * length)
    folder.mkdir()
    script = tmp_path / "script.py"
    script.write_text(SOCKETS)
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "forked\n", "")
    assert not list(folder.iterdir())


KILLED = """
import os, signal
from multiprocessing import util
from bnstudy.sweep import forkserver
if __name__ == "__main__":
    forkserver.cores = lambda: 2
    forkserver.PRELOADED[:] = ["bnstudy.sweep.socket_folder"]
    forkserver.start_server({"executor": "auto"})
    print(util.get_temp_dir(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_of_a_killed_command_ends_and_removes_its_folder():
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    folder, end = Path(done.stdout.strip()), time.monotonic() + 20
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert (done.stderr, folder.exists()) == ("", False)
