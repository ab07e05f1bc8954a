from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import pytest

from bnstudy.commands import status as module
from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
from tests.commands.conftest import FAILED, UNFINISHED
from tests.conftest import Command


def counts(text: str) -> dict[str, list[str]]:
    """Runs, finished, running, failed and to do, by study."""
    return {line.split()[0]: line.split()[2:] for line in text.splitlines() if " quick " in line}


@pytest.mark.usefixtures("store")
def test_runs_are_counted_by_study(command: Command):
    status, out, err = command("status")
    assert (status, err) == (0, "")
    assert "Nothing is being trained." in out
    assert counts(out) == {"quickstart": ["6", "4", "0", "1", "1"], "mine": ["1", "1", "0", "0", "0"]}
    assert ["(none)", "4", "4", "0", "0", "0"] in [line.split() for line in out.splitlines()]
    assert f"{FAILED.run_id} failed: RuntimeError: no such luck" in out


def test_a_worker_is_shown_with_its_runs(command: Command, store: Store):
    with Leases(store) as leases:
        leases.acquire([UNFINISHED.run_id, FAILED.run_id])
        out = command("status", "--once")[1]
    assert f"process {os.getpid()} on {leases.me.host}, for 0 s\n  2 runs of study quickstart\n" in out
    assert "2 values of seed" in out
    assert "no checkpoint yet" in out
    assert counts(out)["quickstart"] == ["6", "4", "2", "0", "0"]


def test_a_worker_that_waits_is_shown(command: Command, store: Store):
    with Leases(store):
        assert "has no run: it is starting, or waits for those of others" in command("status")[1]


def test_a_dead_worker_is_stale_and_its_runs_are_to_do(command: Command, store: Store):
    leases = Leases(store)
    leases.me = replace(leases.me, started=leases.me.started - 1)  # an earlier process of this number
    leases.acquire([UNFINISHED.run_id])
    out = command("status")[1]
    assert ": stale, the process has ended" in out
    assert counts(out)["quickstart"] == ["6", "4", "0", "1", "1"]


def test_a_silent_worker_elsewhere_is_stale(command: Command, store: Store):
    leases = Leases(store)
    leases.me = replace(leases.me, host="node7", machine="another boot pid:[1]")
    leases.acquire([UNFINISHED.run_id])
    assert "on node7, for 0 s\n" in command("status")[1]
    beat = store.results_dir / "workers" / f"{leases.me.worker}.json"
    os.utime(beat, (beat.stat().st_mtime - 300,) * 2)
    assert "on node7, for 0 s: stale, no heartbeat for 5 min" in command("status")[1]
    beat.unlink()
    assert ": stale, without a heartbeat" in command("status")[1]


@pytest.mark.usefixtures("store")
def test_a_terminal_is_refreshed_until_ctrl_c(command: Command, monkeypatch: pytest.MonkeyPatch):
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    run: Any = module.run
    monkeypatch.setattr(module, "run", lambda arguments: run(arguments, sleep))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    status, out, _ = command("status")
    assert (status, out.count(module.CLEAR)) == (0, 3)


def test_lines_are_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 10)))
    assert module.cut(["a" * 30, "short"]) == ["a" * 16 + "...", "short"]
    assert len(module.cut(["line"] * 30)) == 8
