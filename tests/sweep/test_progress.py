from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bnstudy.sweep import progress
from bnstudy.sweep.messages import Beat
from bnstudy.sweep.progress import Progress, RunResult, duration, table


def result(i: int, arm: str = "norm=batch", status: str = "finished", accuracy: float = 0.9) -> RunResult:
    return RunResult(f"id{i}", f"{arm} seed={i}", arm, status, accuracy, 1.0, Path("runs") / f"id{i}")


def beat(step: int, worker: str = "worker", name: str = "seed=0", runs: int = 1, total: int = 100) -> Beat:
    return Beat(worker, name, runs, step, total, loss=0.5, accuracy=0.75)


def test_messages_are_dropped_if_the_terminal_is_gone(monkeypatch):
    def gone(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(progress.tqdm, "write", gone)
    progress.say("nobody reads this")
    monkeypatch.setattr(progress.tqdm, "write", lambda text, file: (_ for _ in ()).throw(ValueError(text)))
    with pytest.raises(ValueError, match="but this is wrong"):
        progress.say("but this is wrong")


def test_a_caller_that_shows_each_info_is_not_told_of_stages_and_keeps_its_own_handler():
    code = (
        "import logging\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "from bnstudy.sweep.progress import say, show_warnings\n"
        "from bnstudy.report.terminal import stage\n"
        "package, own = logging.getLogger('bnstudy'), logging.NullHandler()\n"
        "package.addHandler(own)\n"
        "show_warnings(), show_warnings()\n"
        "stage.info('Planning')\n"
        "say('said')\n"
        "print(len(package.handlers), own in package.handlers)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == ("2 True\n", "said\n")


def test_a_few_runs_have_a_row_each():
    lines = table([result(0), result(1, status="failed", accuracy=math.nan)]).splitlines()
    assert lines == [
        "run  arm                status    test acc",
        "id0  norm=batch seed=0  finished    90.00%",
        "id1  norm=batch seed=1  failed           -",
    ]


def test_arms_have_a_row_each_if_there_are_many_runs():
    results = [result(i, arm) for arm in ("norm=none", "norm=batch") for i in range(30)]
    results[0] = result(0, "norm=none", "diverged", 0.1)
    results[1:3] = [result(i, "norm=none", "did not learn", 0.1) for i in (1, 2)]
    lines = table(results).splitlines()
    assert len(lines) == 3
    assert re.split(r"  +", lines[0]) == [
        "arm",
        "runs",
        "diverged",
        "did not learn",
        "failed",
        "mean test acc",
    ]
    assert lines[1].split() == ["norm=none", "30", "1", "2", "0", f"{(27 * 90 + 30) / 30:.2f}%"]


def test_a_single_run_has_no_arm():
    lines = table([RunResult("id0", "", "", "finished", 0.9, 1.0, Path("runs/id0"))]).splitlines()
    assert lines == ["run  status    test acc", "id0  finished    90.00%"]


def test_learning_rates_of_a_second_pass_stand_between_those_of_the_first():
    arms = [f"norm={norm} lr={lr}" for lr in ("0.01", "0.1") for norm in ("none", "batch")]
    arms += ["norm=batch lr=0.0316", "norm=none lr=3.16e-03"]
    lines = table([result(i, arm) for arm in arms for i in range(20)]).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "norm=none lr=3.16e-03", "norm=none lr=0.01", "norm=none lr=0.1",
        "norm=batch lr=0.01", "norm=batch lr=0.0316", "norm=batch lr=0.1",
    ]  # fmt: skip


def test_families_have_a_row_each_if_there_are_many_learning_rates():
    arms = [f"norm={norm} lr={lr}" for norm in ("none", "batch") for lr in range(30)]
    lines = table([result(i, arm) for arm in arms for i in range(2)]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["norm=none", "60", "0", "0", "0"],
        ["norm=batch", "60", "0", "0", "0"],
    ]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (300, "5 min"), (7200, "2.0 h"), (math.nan, "unknown")])
def test_durations_have_a_readable_unit(seconds, text):
    assert duration(seconds) == text


def test_without_a_terminal_a_line_is_printed_when_something_has_changed(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    shown = Progress(2, 200, shown=True)
    shown.beat(beat(0))
    shown.beat(beat(50))
    shown.beat(beat(50))
    shown.run_done("worker", "1", 100)
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(", ")[0] for line in lines] == ["0/2 runs, 0%", "0/2 runs, 25%", "1/2 runs, 50%"]
    assert all(re.fullmatch(r"\d\d:\d\d left", line.rpartition(", ")[2]) for line in lines[1:])


def test_progress_false_prints_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    hidden = Progress(1, 10, shown=False)
    hidden.beat(beat(5, total=10))
    hidden.note("a note")
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_loss_accuracy_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    shown = Progress(2, 200, shown=True)
    shown.bar.mininterval = 0
    shown.beat(beat(50, name="norm=batch"))
    shown.run_done("worker", "2", 100)
    shown.close()
    err = capsys.readouterr().err
    assert "0/2 runs, norm=batch loss 0.5, val acc 75.00%" in err
    assert "left" in err
    assert "steps: " in err
    assert err.endswith("\r")  # cleared


def test_the_bar_shows_the_steps_of_all_runs_together(monkeypatch):
    """Two workers train 3 and 2 runs of 100 steps; one of the first three diverges at step 40."""
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    shown, reached = Progress(5, 500, shown=True), []
    for report in (
        lambda: shown.beat(beat(40, "one", runs=3)),
        lambda: shown.beat(beat(10, "two", runs=2)),
        lambda: shown.run_done("one", "a", 100),
        lambda: shown.beat(beat(80, "one", runs=2)),
        lambda: shown.beat(beat(100, "one", runs=2)),
        lambda: [shown.run_done("one", run_id, 100) for run_id in ("b", "c")],
        lambda: [shown.run_done("", run_id, 100) for run_id in ("b", "c", "d", "e")],  # found in the store
    ):
        report()
        reached.append(shown.bar.n)
    assert reached == [120, 140, 100 + 2 * 40 + 20, 100 + 160 + 20, 100 + 200 + 20, 320, 500]


def test_the_steps_of_a_dead_worker_do_not_count(monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    shown = Progress(2, 200, shown=True)
    shown.beat(beat(60, "worker 1", runs=2))
    shown.gone("worker 1")
    shown.beat(beat(70, "worker 2", runs=2))
    assert shown.bar.n == 140
