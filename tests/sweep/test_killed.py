"""A command that is killed or stopped goes on where it was, and ends with the same numbers.

Here commands strike themselves at chosen points. `test_command.py` strikes at random moments from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bnstudy import cli
from bnstudy.store.runs import Store
from bnstudy.sweep.forkserver import PRELOADED, STOPPING, context
from bnstudy.train.loop import Training
from bnstudy.train.serial import SerialEngine

RUN = ("norm=batch", "model.width=32", "steps=100", "optim.momentum=0.9", "progress=false", "threads=1")
RUN += ("hydra.launcher.executor=inprocess",)
OFTEN, NEVER = "checkpoint_seconds=1e-9", "checkpoint_seconds=1000"
Strike = Callable[..., None]


def metrics(results_dir: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in results_dir.glob("runs/*/metrics.parquet")}


def kill_at_file(name: str, number: int, is_written: bool) -> None:
    """Kill this process when it writes a file of this name for the `number`-th time, before or after that."""
    replace, left = Path.replace, iter(range(number - 1, -1, -1))

    def dying_replace(self: Path, target: Path) -> Path:
        is_due = Path(target).name == name and next(left) == 0
        found = replace(self, target) if is_written or not is_due else self
        if is_due:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    Path.replace = dying_replace


def send_at_step(signum: int, step: int) -> None:
    """Send this process a signal in that step."""
    train, left = SerialEngine.step, iter(range(step, -1, -1))

    def signalled_step(*args, **kwargs):
        if next(left, -1) == 0:
            os.kill(os.getpid(), signum)
        return train(*args, **kwargs)

    SerialEngine.step = signalled_step


def train(arguments: tuple[str, ...], err: Path, strike: Strike, *how: object) -> None:
    with err.open("w") as file:
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # as for the workers that tests before this one started
    Training.beat_seconds = 0  # so that every step may save a checkpoint
    strike(*how)
    sys.argv = ["bnstudy", *arguments]
    cli.main()


def strike(arguments: tuple[str, ...], folder: Path, *how: object) -> tuple[int | None, str]:
    """The exit status of a command in a process of its own that strikes itself, and what it says."""
    fork = context()
    fork.set_forkserver_preload(PRELOADED)
    process = fork.Process(target=train, args=(arguments, folder / "err", *how))
    process.start()
    process.join()
    return process.exitcode, (folder / "err").read_text()


@pytest.fixture
def resume(command, tmp_path):
    """Type the command again, in this process: its metrics."""

    def run(*arguments: str) -> dict[str, bytes]:
        assert command(*arguments) == (0, "", "")
        return metrics(tmp_path / "results")

    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bnstudy", *RUN, NEVER, f"results_dir={folder}"])
        cli.main()
    return metrics(folder)


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_metrics(tmp_path, resume, undisturbed):
    for _ in range(2):
        status, _ = strike((*RUN, OFTEN), tmp_path, kill_at_file, "checkpoint.pt", 20, True)
        assert status == -signal.SIGKILL
        assert len(list(tmp_path.glob("results/runs/*/checkpoint.pt"))) == 1
        assert not metrics(tmp_path / "results")
    assert resume(*RUN, NEVER) == undisturbed
    assert not list(tmp_path.glob("results/runs/*/checkpoint*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.parquet", "summary.json"])
def test_a_run_killed_while_it_writes_a_file_ends_with_the_same_metrics(tmp_path, resume, undisturbed, name):
    number = 2 if name == "checkpoint.pt" else 1
    assert strike((*RUN, OFTEN), tmp_path, kill_at_file, name, number, False)[0] == -signal.SIGKILL
    assert not Store(tmp_path / "results").finished()
    assert resume(*RUN, NEVER) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run_and_the_same_command_resumes_it(tmp_path, resume, undisturbed, signum):
    status, err = strike((*RUN, NEVER), tmp_path, send_at_step, signum, 40)
    assert status == 128 + signum
    assert "the same command goes on" in err
    assert len(list(tmp_path.glob("results/runs/*/checkpoint.pt"))) == 1
    assert resume(*RUN, NEVER) == undisturbed
