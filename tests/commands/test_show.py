from __future__ import annotations

import os
import shlex

import pytest

from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
from tests.commands.conftest import FAILED, FINISHED, SHARED, UNFINISHED
from tests.conftest import Command


def rows(text: str) -> dict[str, str]:
    """The lines with a heading, by it."""
    parts = [line.strip().split("  ", 1) for line in text.splitlines() if line.startswith("  ")]
    return {part[0]: part[1].strip() for part in parts if len(part) == 2}


def test_a_finished_run_has_its_results_and_the_studies_that_plan_it(command: Command, store: Store):
    status, out, err = command("show", SHARED[:6])
    assert (status, err) == (0, "")
    assert out.startswith(f"Run {SHARED}: MLP on Digits, NoNorm, lr=0.1, seed=0\n")
    of, final = rows(out), store.summary(SHARED)["final"]
    assert of["status"] == "finished"
    accuracies = f"test {100 * final['test_accuracy']:.2f}%, validation {100 * final['val_accuracy']:.2f}%"
    assert of["accuracy"] == accuracies
    assert of["studies"] == "mine (scale=quick); quickstart (scale=quick)"
    assert of["folder"] == f"results/runs/{SHARED}"
    assert of["norm"].split() == ["none", "batch"]


@pytest.mark.usefixtures("store")
def test_a_diverged_run_says_when_and_why(command: Command):
    assert rows(command("show", FINISHED[2].run_id)[1])["diverged"] == "at step 3: training loss nan"


@pytest.mark.usefixtures("store")
def test_a_failed_run_shows_its_error(command: Command):
    of = rows(command("show", FAILED.run_id)[1])
    assert of["status"] == "failed"
    path = f"results/runs/{FAILED.run_id}/error.txt"
    assert of["error"] == f"RuntimeError: no such luck (traceback in {path})"


def test_a_run_in_training_shows_who_holds_it(command: Command, store: Store):
    with Leases(store) as leases:
        leases.acquire([UNFINISHED.run_id])
        of = rows(command("show", UNFINISHED.run_id)[1])
    assert of["status"] == "running"
    assert of["held by"].startswith(f"process {os.getpid()} on ")


def test_the_command_of_a_run_trains_it_again(command: Command):
    assert command("norm=none", "lr=0.5", "steps=3", "model.width=8", "progress=false")[0] == 0
    (run_id,) = os.listdir("results/runs")
    line = command("show", run_id)[1].splitlines()[-1]
    assert command(*shlex.split(line)[1:], "results_dir=again", "progress=false")[0] == 0
    assert os.listdir("again/runs") == [run_id]


def test_a_damaged_run_is_shown_as_far_as_it_can_be_read(command: Command, store: Store):
    store.run(SHARED).metrics.write_bytes(b"\x1b[31m")
    status, out, _ = command("show", SHARED)
    assert status == 1
    assert rows(out)["damaged"].startswith(f"Run {SHARED} in results/runs/{SHARED} is damaged")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["show"], "bnstudy show needs the id of a run, such as bnstudy show 0a1b2c3d, and was given 0"),
        (["diff", SHARED], "bnstudy diff needs the ids of 2 runs"),
        (["show", "abc"], "abc is not allowed: it must be an id of a run, or its first 4 or more digits"),
        (["show", "0000"], "0000 is not a run in results."),
        (["show", SHARED, "norm=batch"], "norm is not a known key"),
    ],
)
def test_a_run_that_cannot_be_found_is_named(command: Command, words: list[str], sentence: str):
    status, out, err = command(*words)
    assert (status, out) == (2, "")
    assert sentence in err


def test_a_start_of_several_ids_is_refused(command: Command, store: Store):
    for end in ("00", "01"):
        (store.results_dir / "runs" / f"0123456789{end}").mkdir()
    assert "0123456789 is the start of 2 ids, 012345678900, 012345678901" in command("show", "0123456789")[2]
    status, out, _ = command("show", "results/runs/012345678900")
    assert (status, "config.yaml: it is missing" in out) == (1, True)
