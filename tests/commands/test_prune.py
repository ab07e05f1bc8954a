from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bnstudy.commands import prune
from bnstudy.store.leases import Leases
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from tests.commands.conftest import FAILED, FINISHED, SHARED, UNFINISHED
from tests.conftest import Command


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`answers("y")`: on a terminal, with this answer."""

    def set_answer(text: str) -> None:
        monkeypatch.setattr(prune, "is_terminal", lambda: True)
        monkeypatch.setattr("builtins.input", lambda question: print(question) or text)

    return set_answer


def left(store: Store) -> set[str]:
    return {path.name for path in (store.results_dir / "runs").iterdir()}


@pytest.mark.parametrize(
    ("words", "removed"),
    [
        (["--unfinished"], [UNFINISHED]),
        (["--failed"], [FAILED]),
        (["--unfinished", "--failed"], [UNFINISHED, FAILED]),
        (["--failed", "norm=batch"], []),
        (["norm=batch", "lr=1"], FINISHED[6:8]),
        (["study=quickstart"], [*FINISHED[1:4], UNFINISHED, FAILED]),
        (["--unfinished", "study=quickstart"], [UNFINISHED]),
        (["--failed", "scale=quick"], [FAILED]),
        (["study=quickstart,mine", "status=finished"], [FINISHED[0], FINISHED[1], FINISHED[3]]),
    ],
)
def test_only_the_chosen_runs_are_removed(command: Command, store: Store, words: list[str], removed: list):
    before = left(store)
    status, _, err = command("prune", *words, "--yes")
    assert (status, err) == (0, "")
    assert before - left(store) == {run.run_id for run in removed}


def test_it_says_what_it_would_free_and_asks(command: Command, store: Store, answers):
    answers("n")
    before = left(store)
    status, out, _ = command("prune", "study=quickstart")
    assert status == 0
    assert "Stays: 1 run that study mine (scale=quick) also plans." in out
    assert "5 runs of results to remove (" in out
    assert " kB): 2 finished, 1 diverged, 1 unfinished, 1 failed.\n" in out
    assert "Remove them? [y/N]" in out
    assert "Nothing was removed." in out
    assert left(store) == before
    answers("y")
    status, out, _ = command("prune", "study=quickstart")
    assert "5 runs removed." in out
    assert "Their plan stays: bnstudy prune --plan study=quickstart" in out
    assert SHARED in left(store)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "bnstudy prune needs to know which runs: --unfinished, --failed, --damaged, study=NAME, or settings"),
        (["--unfinished"], "Nothing was removed, since there is no terminal to ask on: add --yes."),
        (["--plan"], "bnstudy prune --plan needs study=NAME."),
        (["--plan", "study=quickstart"], "no terminal to ask on: add --yes."),
        (["--plan", "study=quickstart", "number=2", "--yes"], "it must be a whole number from 1 to 1."),
        (["--plan", "study=quickstart", "norm=batch"], "norm is not allowed with --plan"),
        (["study=qiuckstart", "--yes"], "did you mean quickstart?"),
        (["--unfinishd"], "--unfinishd is not a flag"),
    ],
)
def test_without_a_choice_or_an_answer_nothing_is_removed(
    command: Command, store: Store, words: list[str], sentence: str
):
    before = left(store)
    status, _, err = command("prune", *words)
    assert (status, left(store)) == (2, before)
    assert sentence in err


def test_damaged_runs_are_found_by_their_hashes(command: Command, store: Store):
    store.run(FINISHED[1].run_id).timing.write_bytes(b"")
    store.run(FINISHED[5].run_id).config.write_text("seed: 3\n")
    before = left(store)
    command("prune", "--damaged", "--yes")
    assert before - left(store) == {FINISHED[1].run_id, FINISHED[5].run_id}


def test_runs_of_a_later_version_are_not_damaged(store: Store):
    path = store.run(SHARED).summary
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 3'))
    assert not prune.is_damaged(store, SHARED)


def test_runs_that_a_worker_trains_stay(command: Command, store: Store):
    with Leases(store) as leases:
        leases.acquire([UNFINISHED.run_id])
        status, out, _ = command("prune", "--unfinished", "--yes")
        assert leases.lost() == set()
    assert status == 0
    assert f"Stays: 1 run of process {os.getpid()} on " in out
    assert "There is nothing to remove in results." in out
    assert UNFINISHED.run_id in left(store)


def test_the_plan_of_a_command_line_is_taken_back_and_its_runs_stay(command: Command, store: Store, answers):
    plans, before = Plans(store.results_dir), left(store)
    plans.add({"name": "mine", "title": "?", "claims": []}, "full", "bnstudy study=mine lr=3", [UNFINISHED.run_id])
    answers("")
    out = command("prune", "--plan", "study=mine")[1]
    assert "1  bnstudy study=mine scale=quick\n" in out
    assert "2  bnstudy study=mine lr=3\n" in out
    assert "Nothing was removed." in out
    command("prune", "--plan", "study=mine", "number=2", "--yes")
    assert [line.command for line in plans.commands("mine")] == ["bnstudy study=mine scale=quick"]
    command("prune", "--plan", "study=mine", "--yes")
    assert plans.studies() == ["quickstart"]
    assert left(store) == before


def test_nothing_outside_of_the_store_is_removed(command: Command, store: Store, tmp_path: Path):
    store.run(SHARED).folder.rename(tmp_path / "elsewhere")
    store.run(SHARED).folder.symlink_to(tmp_path / "elsewhere")
    status, _, err = command("prune", "study=mine,quickstart", "--yes")
    assert (status, "symbolic link" in err) == (2, True)
    assert (tmp_path / "elsewhere" / "summary.json").exists()
