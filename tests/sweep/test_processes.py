"""Commands with worker processes, which are stopped or killed, all or some of them."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from bnstudy.sweep import processes
from bnstudy.sweep.cost import Method
from bnstudy.sweep.messages import Failure
from bnstudy.sweep.plan import Stack
from bnstudy.sweep.processes import Crew
from bnstudy.sweep.progress import Progress
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import StopFlag
from scripts.kill_test import children, left_over, metrics, servers, start
from tests.conftest import spec_of

SWEEP = ["-m", "seed=range(0,8)", "norm=batch", "steps=1000", "model.width=32", "threads=1"]
PROCESSES = ["hydra.launcher.executor=processes", "hydra.launcher.workers=2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """The metrics of the sweep in one process."""
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


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def output(results: Path) -> str:
    """Everything that the commands on this store printed."""
    return results.with_name(f"{results.name}.log").read_text()


@pytest.mark.slow
def test_processes_store_the_same_bytes_as_one_even_if_a_worker_is_killed(tmp_path, undisturbed):
    results = tmp_path / "results"
    command = start([*SWEEP, *PROCESSES, "checkpoint_seconds=0.3"], results)
    until(lambda: list(results.glob("runs/*/checkpoint.pt")))
    saved = next(results.glob("runs/*/checkpoint.pt"))
    os.kill(json.loads((saved.parent / "lease.1").read_text())["pid"], signal.SIGKILL)
    assert command.wait() == 0
    why = "was ended by SIGKILL (as happens when memory is short)"
    assert re.search(rf"Worker \d {re.escape(why)}: another one goes on with its runs\.", output(results))
    assert "4 runs of a process that died: trying once more, in parts." in output(results)
    assert metrics(results) == undisturbed
    assert left_over(results) == []
    rows = re.findall(r"(seed=\d+) +finished ", output(results))
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
    """Workers also find the user's own class in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("my_inits.py").write_text(DEADLY)
    Path("my_conf/init").mkdir(parents=True)
    Path("my_conf/init/deadly.yaml").write_text("_target_: my_inits.Deadly\n")
    sweep = ["--config-dir", "my_conf", "-m", "init=kaiming_normal,deadly", "seed=0,1", "steps=20", "threads=1"]
    assert start([*sweep, *PROCESSES], tmp_path / "results").wait() == 1
    text = output(tmp_path / "results")
    assert "2 of 4 runs failed; the others are stored:" in text
    for seed in (0, 1):
        why = "its process twice was ended by SIGKILL (as happens when memory is short)"
        assert f"init=deadly seed={seed}: {why}" in text
    assert len(metrics(tmp_path / "results")) == 2
    assert "Traceback" not in text


def test_workers_that_cannot_start_are_started_a_few_times_only(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "run_worker", os.getpid)  # which does not take four arguments
    run = PlannedRun(spec_of("seed=0"), "seed=0", "")
    stack = Stack((run,), Method("serial", 1, compiled=False, norms_vary=False), 20)
    crew = Crew(Settings(results_dir=str(tmp_path)), [stack], 2, Progress(1, 20, shown=False), StopFlag(""), 0.0)
    crew.run()
    (failure,) = crew.all_failures()
    assert failure.run_id == run.spec.run_id
    assert failure.error == "no process could be started for it: ended with status 1"


def test_a_worker_that_could_not_be_started_explains_no_failed_run(tmp_path, monkeypatch):
    crew = Crew(Settings(results_dir=str(tmp_path)), [], 1, Progress(1, 20, shown=False), StopFlag(""), "command")
    monkeypatch.setattr(crew, "_start", lambda: None)
    crew._replace(0, "could not be started (ConnectionRefusedError)", "worker 1")
    crew.failures += [Failure("a", "ValueError: its own error"), Failure("b", "its process died", pid=17)]
    crew._deaths[17] = "ended with status 3"
    errors = [failure.error for failure in crew.all_failures()]
    assert errors == ["ValueError: its own error", "its process twice ended with status 3"]


@pytest.mark.slow
def test_workers_go_on_without_the_fork_server_and_obey_ctrl_c(tmp_path, undisturbed):
    results = tmp_path / "results"
    arguments = [*SWEEP, *PROCESSES, "checkpoint_seconds=1000"]
    command = start(arguments, results)
    until(lambda: len(list(results.glob("runs/*/config.yaml"))) == 8)
    workers = children(command.pid)
    os.kill(*servers(command.pid), signal.SIGKILL)
    time.sleep(0.5)
    assert all(map(is_alive, workers))
    os.kill(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert not any(map(is_alive, workers))
    assert len(list(results.glob("runs/*/checkpoint.pt"))) == 8 - len(metrics(results))
    assert start(arguments, results).wait() == 0
    assert metrics(results) == undisturbed
    assert left_over(results) == []


def test_a_worker_that_the_fork_server_cannot_start_is_started_by_the_next(tmp_path, monkeypatch):
    begin, failures = BaseProcess.start, [EOFError(), ConnectionRefusedError(111, "refused")]

    def die_twice(process: BaseProcess) -> None:
        if failures:
            raise failures.pop()
        begin(process)

    monkeypatch.setattr(BaseProcess, "start", die_twice)
    run = PlannedRun(spec_of("seed=0"), "seed=0", "")
    stack = Stack((run,), Method("serial", 1, compiled=False, norms_vary=False), 20)
    settings = Settings(results_dir=str(tmp_path), threads=1)
    crew = Crew(settings, [stack], 1, Progress(1, 20, shown=False), StopFlag(""), "command")
    crew.run()
    assert crew.all_failures() == []
    assert list(metrics(tmp_path)) == [run.spec.run_id]


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the group, as a terminal does", "the command alone"])
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, undisturbed, whom):
    results = tmp_path / "results"
    arguments = [*SWEEP, *PROCESSES, "checkpoint_seconds=1000"]
    command = start(arguments, results)
    until(lambda: len(list(results.glob("runs/*/config.yaml"))) == 8)
    workers = children(command.pid)
    if whom == "the command alone":
        os.kill(command.pid, signal.SIGINT)
    else:
        os.killpg(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert not any(map(is_alive, workers))
    assert "the same command goes on where this one stopped" in output(results)
    assert "Traceback" not in output(results)
    checkpoints = [name for name in left_over(results) if name.endswith("/checkpoint.pt")]
    assert 4 <= len(checkpoints) == 8 - len(metrics(results))
    assert left_over(results) == checkpoints
    if whom == "the command alone":
        return
    assert start(arguments, results).wait() == 0
    assert "going on from step" in output(results)
    assert metrics(results) == undisturbed
    assert left_over(results) == []


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start_prints_no_traceback(tmp_path):
    results = tmp_path / "results"
    command = start([*SWEEP, *PROCESSES], results)
    until(lambda: len(children(command.pid)) == 2)
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert "Traceback" not in output(results)
    assert not [name for name in left_over(results) if "checkpoint" not in name]


@pytest.mark.slow
def test_workers_of_a_killed_command_save_and_end_and_the_same_command_finishes(tmp_path, undisturbed):
    results = tmp_path / "results"
    arguments = [*SWEEP, *PROCESSES, "checkpoint_seconds=1000"]
    killed = start(arguments, results)
    until(lambda: len(list(results.glob("runs/*/config.yaml"))) == 8)
    workers = children(killed.pid)
    killed.kill()
    killed.wait()
    at_once = start(arguments, results)
    until(lambda: not any(map(is_alive, workers)), seconds=20)
    assert at_once.wait() == 0
    assert "going on from step" in output(results)
    assert "Traceback" not in output(results)
    assert metrics(results) == undisturbed
    assert left_over(results) == []
