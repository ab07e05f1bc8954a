"""Commands with worker processes: what comes of them when they, or some of them, are stopped or killed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from bnstudy.sweep import processes
from bnstudy.sweep.cost import Shape
from bnstudy.sweep.plan import Stack
from bnstudy.sweep.processes import Member, Pool
from bnstudy.sweep.progress import Progress
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import StopFlag
from scripts.kill_test import children, left_over, metrics, start
from tests.conftest import spec_of

SWEEP = ["-m", "seed=range(0,8)", "norm=batch", "steps=1000", "model.width=32", "threads=1"]
PROCESSES = ["hydra.launcher.executor=processes", "hydra.launcher.workers=2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """What the sweep comes to in one process."""
    results = tmp_path_factory.mktemp("undisturbed") / "results"
    assert start([*SWEEP, "hydra.launcher.executor=inprocess"], results).wait() == 0
    found = metrics(results)
    assert len(found) == 8
    return found


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def begun(results: Path) -> int:
    return len(list(results.glob("runs/*/config.yaml")))


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def said(results: Path) -> str:
    """All that the commands on this store wrote."""
    return results.with_name(f"{results.name}.log").read_text()


# ------------------------------------------------------------------------------------------------ workers die


@pytest.mark.slow
def test_processes_store_the_same_bytes_as_one_even_if_a_worker_is_killed(tmp_path, undisturbed):
    results = tmp_path / "results"
    command = start([*SWEEP, *PROCESSES, "checkpoint_seconds=0.3"], results)
    until(lambda: list(results.glob("runs/*/checkpoint.pt")))
    saved = next(results.glob("runs/*/checkpoint.pt"))
    os.kill(json.loads((saved.parent / "lease.1").read_text())["pid"], signal.SIGKILL)
    assert command.wait() == 0
    why = "was ended by SIGKILL (as happens when memory is short)"
    assert f"{why} with 4 runs: trying once more, in parts." in said(results)
    assert metrics(results) == undisturbed
    assert left_over(results) == []
    rows = re.findall(r"(seed=\d+) +finished ", said(results))
    assert rows == [f"seed={seed}" for seed in range(8)]  # in the order of the command line


DEADLY = """
import multiprocessing, os, signal
from dataclasses import dataclass
from bnstudy.inits import KaimingNormal

@dataclass(frozen=True)
class Deadly(KaimingNormal):
    def weight_(self, weight, generator):
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        super().weight_(weight, generator)
"""


@pytest.mark.slow
def test_runs_whose_process_dies_twice_have_failed_and_the_others_are_stored(tmp_path, monkeypatch):
    """The class is one of the user's own, in the working directory, which the workers find, too."""
    monkeypatch.chdir(tmp_path)
    Path("my_inits.py").write_text(DEADLY)
    Path("my_conf/init").mkdir(parents=True)
    Path("my_conf/init/deadly.yaml").write_text("_target_: my_inits.Deadly\n")
    sweep = ["--config-dir", "my_conf", "-m", "init=kaiming_normal,deadly", "seed=0,1", "steps=20", "threads=1"]
    assert start([*sweep, *PROCESSES], tmp_path / "results").wait() == 1
    text = said(tmp_path / "results")
    assert "2 of 4 runs failed; the others are stored:" in text
    for seed in (0, 1):
        why = "its process twice was ended by SIGKILL (as happens when memory is short)"
        assert f"init=deadly seed={seed}: {why}" in text
    assert len(metrics(tmp_path / "results")) == 2
    assert "Traceback" not in text


def test_workers_that_cannot_start_are_not_started_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "member_main", sys.exit)  # which takes no three arguments
    run = PlannedRun(spec_of("seed=0"), "seed=0", "")
    stack = Stack((run,), Shape("serial", 1, compiled=False, free=False), 20)
    settings = Settings(results_dir=str(tmp_path))
    pool = Pool(settings, deque([(stack, True)]), Progress(1, 20, shown=False), StopFlag(""))
    pool.run(2)
    (failure,) = pool.failures
    assert failure.run_id == run.spec.run_id
    assert failure.error == "no process could be started for it: ended with status 1"


def test_workers_keep_to_what_they_have_compiled():
    """And take up what nobody has at hand before they take from another."""
    shape = Shape("stacked", 2, compiled=True, free=False)
    stacks = {
        (norm, i): Stack((PlannedRun(spec_of(f"norm={norm}", f"seed={i}"), "", ""),), shape, 20)
        for norm in ("none", "batch")
        for i in range(3)
    }
    waiting = deque((stack, True) for stack in stacks.values())
    pool = Pool(Settings(), waiting, Progress(6, 120, shown=False), StopFlag(""))
    for name in ("first", "second"):
        pool.members[name] = Member(None, None)  # type: ignore[arg-type]
    given = []
    for name in ("first", "second", "first", "second", "first", "first"):
        member = pool.members[name]
        member.stack, _ = pool._next_for(member)
        given.append(next(key for key, stack in stacks.items() if stack is member.stack))
    assert given == [("none", 0), ("batch", 0), ("none", 1), ("batch", 1), ("none", 2), ("batch", 2)]


# ------------------------------------------------------------------------------------------ the command is stopped


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the group, as a terminal does", "the command alone"])
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, undisturbed, whom):
    results = tmp_path / "results"
    arguments = [*SWEEP, *PROCESSES, "checkpoint_seconds=1000"]
    command = start(arguments, results)
    until(lambda: begun(results) == 8)
    workers = children(command.pid)
    if whom == "the command alone":
        os.kill(command.pid, signal.SIGINT)
    else:
        os.killpg(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert not any(map(lives, workers))
    assert "the same command goes on where this one stopped" in said(results)
    assert "Traceback" not in said(results)
    checkpoints = [name for name in left_over(results) if name.endswith("/checkpoint.pt")]
    assert 4 <= len(checkpoints) == 8 - len(metrics(results))
    assert left_over(results) == checkpoints
    if whom == "the command alone":
        return
    assert start(arguments, results).wait() == 0
    assert "going on from step" in said(results)
    assert metrics(results) == undisturbed
    assert left_over(results) == []


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start_says_no_more_than_ever(tmp_path):
    results = tmp_path / "results"
    command = start([*SWEEP, *PROCESSES], results)
    until(lambda: len(children(command.pid)) == 2)
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert "Traceback" not in said(results)
    assert not [name for name in left_over(results) if "checkpoint" not in name]


@pytest.mark.slow
def test_when_the_command_is_killed_its_workers_save_and_end_and_the_same_command_finishes(tmp_path, undisturbed):
    results = tmp_path / "results"
    arguments = [*SWEEP, *PROCESSES, "checkpoint_seconds=1000"]
    killed = start(arguments, results)
    until(lambda: begun(results) == 8)
    workers = children(killed.pid)
    killed.kill()
    killed.wait()
    at_once = start(arguments, results)
    until(lambda: not any(map(lives, workers)), seconds=20)
    assert at_once.wait() == 0
    assert "going on from step" in said(results)
    assert "Traceback" not in said(results)
    assert metrics(results) == undisturbed
    assert left_over(results) == []
