"""Whole sweeps: several commands on one store, kills at random moments, and the messages at the end."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from bnstudy.store.runs import Store
from bnstudy.sweep.command import check_writable
from scripts.kill_test import Comparison, kill_and_compare, left_over, metrics, start
from scripts.signal_test import SWEEP, signal_and_compare

COUNTED = """
from dataclasses import dataclass
from bnstudy.inits import KaimingNormal

@dataclass(frozen=True)
class Counted(KaimingNormal):
    def weight_(self, weight, generator):
        with open("begun.txt", "a") as file:
            file.write(f"{generator.initial_seed()}\\n")
        super().weight_(weight, generator)
"""


def table(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()[1:]]


@pytest.mark.slow
def test_two_commands_at_once_train_each_run_once(tmp_path, monkeypatch):
    """One is stopped: the other names the process that it waits for, and does not take over its runs."""
    monkeypatch.chdir(tmp_path)
    Path("my_inits.py").write_text(COUNTED)
    Path("my_conf/init").mkdir(parents=True)
    Path("my_conf/init/counted.yaml").write_text("_target_: my_inits.Counted\n")
    common = ["--config-dir", "my_conf", "-m", "init=counted", "steps=2500", "model.width=32", "threads=1"]
    for name in ("a", "b"):  # a log of its own for each, and one store
        Path(name).mkdir()
        Path(name, "results").symlink_to(tmp_path / "results")
    (tmp_path / "results").mkdir()
    both = {
        name: start([*common, f"seed=range({first},{first + 8})"], tmp_path / name / "results")
        for name, first in (("a", 0), ("b", 4))
    }
    shared = holder_of_all(4, tmp_path / "results", both)
    holding, waiting = ("a", "b") if shared == both["a"].pid else ("b", "a")
    os.kill(shared, signal.SIGSTOP)
    log = tmp_path / waiting / "results.log"
    while "Waiting for 4 runs that process" not in log.read_text():
        assert both[waiting].poll() is None
        time.sleep(0.02)
    assert f"Waiting for 4 runs that process {shared} on " in log.read_text()
    assert len(metrics(tmp_path / "results")) < 12
    os.kill(shared, signal.SIGCONT)
    assert [both[name].wait() for name in (holding, waiting)] == [0, 0]
    for name in both:
        assert len(re.findall(r"seed=\d+ +finished ", (tmp_path / name / "results.log").read_text())) == 8
    starts = Counter(Path("begun.txt").read_text().split())
    assert len(metrics(tmp_path / "results")) == 12
    assert set(starts.values()) == {1}
    assert left_over(tmp_path / "results") == []


def holder_of_all(shared: int, results: Path, commands: dict) -> int:
    """The process that has the runs of both sweeps, once all runs are begun."""
    while True:
        assert all(command.poll() is None for command in commands.values())
        leases = list(results.glob("runs/*/lease.1"))
        try:
            pids = Counter(json.loads(path.read_text())["pid"] for path in leases)
        except FileNotFoundError:
            continue
        if len(leases) == 12:
            (pid, count), _ = pids.most_common()
            assert count == 4 + shared
            return pid
        time.sleep(0.01)


@pytest.mark.slow
def test_a_sweep_killed_four_times_ends_with_the_metrics_of_an_undisturbed_one(tmp_path):
    """The four strike each of the four parts of a command; `scripts/kill_test.py --kills 100` strikes more often."""
    sweep = ["-m", "seed=range(0,20)", "norm=none,batch", "steps=150", "model.width=16", "threads=1"]
    sweep += ["hydra.launcher.executor=processes", "hydra.launcher.workers=2", "checkpoint_seconds=0.2"]
    found = kill_and_compare(sweep, tmp_path, 4, random.Random(2305))
    assert found == Comparison(status=0, runs=40, different=[], left_over=[])


@pytest.mark.slow
def test_signals_at_random_moments_end_a_command_and_leave_nothing(tmp_path):
    """The three are all three signals; `scripts/signal_test.py --signals 200` sends more."""
    assert signal_and_compare([*SWEEP, "steps=100"], tmp_path, 3, random.Random(135)) == []


def test_a_temporary_file_of_a_killed_writer_counts_as_left_over(tmp_path):
    run = tmp_path / "runs/0123456789ab"
    run.mkdir(parents=True)
    for name in ("summary.json", "lease.1", ".metrics.parquet.0123456789abcdef"):
        (run / name).touch()
    assert left_over(tmp_path) == ["runs/0123456789ab/.metrics.parquet.0123456789abcdef"]


def test_results_are_listed_in_the_order_of_the_command_line(command):
    """The wider networks are trained first, and one run is already stored."""
    command("model.width=32", "seed=1", "steps=5")
    status, out, _ = command("-m", "model.width=16,32", "seed=0,1", "steps=5")
    names = [" ".join(row[1:3]) for row in table(out)]
    assert status == 0
    assert names == [f"model.width={width} seed={seed}" for width in (16, 32) for seed in (0, 1)]


def test_failures_are_counted_and_at_most_ten_named(command, monkeypatch):
    from bnstudy.train import serial, stacked

    def build(*_):
        raise ValueError("no such network\nat all")

    for module in (serial, stacked):
        monkeypatch.setattr(module, "build_model", build)
    status, out, err = command("-m", "seed=range(0,12)", "steps=5")
    end = err[err.index("bnstudy: ") :]
    assert status == 1
    assert [row[2] for row in table(out)] == ["failed"] * 12
    assert end.startswith("bnstudy: 12 of 12 runs failed:\n  seed=0: ValueError: no such network (")
    assert end.rstrip().endswith("\n  and 2 more")
    assert len(list(Path("results").glob("runs/*/error.txt"))) == 12
    assert not Store(Path("results")).finished()


@pytest.mark.parametrize("linked", ["runs", "studies", "workers", "cache", "slurm"])
def test_a_store_with_a_symbolic_link_in_place_of_a_folder_is_refused_and_nothing_is_written(command, linked):
    Path("home").mkdir()
    Path("results").mkdir()
    Path("results", linked).symlink_to(Path("home").absolute())
    status, _, err = command("steps=3")
    assert status == 2
    assert f"results/{linked} is a symbolic link" in err
    assert not list(Path("home").iterdir())


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_whose_folder_is_a_symbolic_link_is_refused_and_its_target_stays(command, finished):
    assert command("steps=3")[0] == 0
    [run] = Path("results/runs").iterdir()
    Path("home").mkdir()
    Path("home/.old.tmp").touch()
    os.utime("home/.old.tmp", (0, 0))
    if finished:  # only its configuration would be written
        Path("home/summary.json").write_text("{}")
    run.rename("moved")
    run.symlink_to(Path("home").absolute())
    status, _, err = command("steps=3")
    assert status == 2
    assert f"{run} is a symbolic link" in err
    assert {path.name for path in Path("home").iterdir()} == {".old.tmp", *(["summary.json"] if finished else [])}


@pytest.mark.parametrize("target", ["home/planted", "home"])
def test_the_check_that_a_folder_can_be_written_follows_no_planted_link(tmp_path, target):
    (tmp_path / "home").mkdir()
    store = tmp_path / "results"
    store.mkdir()
    planted = store / f".write-{os.getpid()}"
    planted.symlink_to(tmp_path / target)
    check_writable("results_dir", store)
    assert list(store.iterdir()) == [planted]
    assert not list((tmp_path / "home").iterdir())


def test_a_results_dir_may_be_a_symbolic_link(command):
    Path("elsewhere").mkdir()
    Path("results").symlink_to("elsewhere")
    assert command("steps=3")[0] == 0
    assert len(Store(Path("elsewhere")).finished()) == 1


@pytest.mark.parametrize("override", ["study.name=../../x", "study.name=/tmp/x", "+study.scales.a/b={}"])
def test_a_study_whose_name_is_no_folder_name_is_refused(command, override):
    status, _, err = command("study=quickstart", override, "dry_run=true")
    assert status == 2
    assert "Traceback" not in err
    assert "study." in err


def test_a_study_whose_plan_cannot_be_written_is_not_trained(command):
    Path("results/studies").mkdir(parents=True)
    Path("results/studies/quickstart-steps-2").touch()
    status, _, err = command("study=quickstart", "scale=quick", "steps=2")
    assert status == 1
    assert err == (
        "bnstudy: The plan of study=quickstart-steps-2 cannot be written to results/studies (Not a directory): once "
        "it can, the same command goes on.\n"
    )
    assert not Store(Path("results")).finished()


def test_an_error_of_the_disk_is_a_sentence(command, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error", "results/runs")

    monkeypatch.setattr("bnstudy.sweep.command.make_plan", broken)
    assert command("steps=2") == (1, "", "bnstudy: [Errno 5] Input/output error: 'results/runs'.\n")
