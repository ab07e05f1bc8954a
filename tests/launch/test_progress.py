from __future__ import annotations

import math
from pathlib import Path

import pytest

from bnstudy.launch import progress
from bnstudy.launch.progress import Progress, RunResult, duration, percent, table


def result(i: int, arm: str = "norm=batch", status: str = "finished", accuracy: float = 0.9) -> RunResult:
    return RunResult(f"id{i}", f"{arm} seed={i}", arm, status, accuracy, 1.0, Path("runs") / f"id{i}")


def test_few_runs_are_a_row_each():
    lines = table([result(0), result(1, status="failed", accuracy=math.nan)]).splitlines()
    assert lines[0].split() == ["run", "arm", "status", "test", "acc", "seconds", "folder"]
    assert lines[1].split() == ["id0", "norm=batch", "seed=0", "finished", "90.00%", "1.0", "runs/id0"]
    assert lines[2].split() == ["id1", "norm=batch", "seed=1", "failed", "-", "1.0", "runs/id1"]


def test_many_runs_are_a_row_an_arm():
    results = [result(i, arm) for arm in ("norm=none", "norm=batch") for i in range(30)]
    results[0] = result(0, "norm=none", "diverged", 0.1)
    lines = table(results).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["norm=none", "30", "1", "0", f"{(29 * 90 + 10) / 30:.2f}%", "30.0"]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (300, "5 min"), (7200, "2.0 h"), (math.nan, "unknown")])
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_accuracy_that_is_not_known_is_a_dash():
    assert (percent(0.5), percent(math.nan)) == ("50.00%", "-")


def test_without_a_terminal_a_line_comes_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    shown = Progress(2, shown=True)
    shown.start("seed=0", 0, 100)
    shown.beat(50, 100, 0.5, 0.75)
    shown.finish(100, 0.1, 0.9)
    shown.close()
    err = capsys.readouterr().err
    assert "run 1/2 seed=0: step 50/100, loss 0.5, val acc 75.00%, about" in err
    assert "\r" not in err


def test_nothing_is_shown_when_not_wanted(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    hidden = Progress(1, shown=False)
    hidden.start("", 0, 10)
    hidden.beat(5, 10, 0.5, 0.5)
    hidden.note("a note")
    hidden.close()
    assert capsys.readouterr().err == ""


def test_on_a_terminal_bars_show_loss_accuracy_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    shown = Progress(2, shown=True)
    shown.start("norm=batch", 0, 100)
    shown.run_bar.mininterval = 0
    shown.beat(50, 100, 0.5, 0.75)
    shown.finish(100, 0.1, 0.9)
    shown.close()
    err = capsys.readouterr().err
    assert "loss 0.5, val acc 75.00%" in err
    assert "norm=batch" in err
    assert "sweep" in err
