from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bnstudy import load_runs
from bnstudy.commands.selection import select
from bnstudy.commands.settings import Options
from bnstudy.store.runs import Store
from tests.commands.conftest import FAILED, FINISHED, SHARED, UNFINISHED
from tests.conftest import Command


def ids(store: Store, **words: str) -> list[str]:
    return select(store, Options(), {key.replace("__", "."): text for key, text in words.items()}).run_ids


def expected(*runs: object) -> list[str]:
    return sorted(run.run_id for run in runs)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("store")
def test_studies_have_their_questions_and_claims_their_statements(command: Command):
    status, out, err = command("list")
    assert (status, err) == (0, "")
    assert "Does batch normalization help a small network to learn" in out
    assert "scale=quick: 4 of 6 runs finished" in out
    assert "mine   (only planned in results)\n      Is it shared?" in out
    assert "Batch normalization makes training reach the same accuracy in fewer steps." in out
    assert "results has 10 runs, 8 of them finished." in out


def test_studies_are_listed_without_a_store(command: Command):
    status, out, _ = command("list")
    assert (status, "There are no runs in results yet." in out) == (0, True)


def test_a_study_of_the_users_is_listed(command: Command, tmp_path: Path):
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "own.yaml").write_text("name: own\ntitle: Is mine better?\n")
    assert "Is mine better?" in command("list", "--config-dir=conf")[1]


def test_runs_are_found_by_names_of_options_and_of_classes(store: Store):
    batch = [run for run in FINISHED if run.norm == "BatchNorm"]
    assert ids(store, norm="batch") == ids(store, norm="BatchNorm") == ids(store, norm="batchnorm") == expected(*batch)
    assert ids(store, norm="batch,layer") == expected(*batch, UNFINISHED, FAILED)
    assert ids(store, model="mlp", data="digits", lr="1") == expected(*(run for run in FINISHED if run.lr == 1))


def test_numbers_may_be_lists_ranges_and_intervals(store: Store):
    everything = expected(*FINISHED, UNFINISHED, FAILED)
    assert ids(store, lr="0.1,1.0") == everything
    assert ids(store, lr="0.10", seed="range(0,1)") == expected(FINISHED[0], FINISHED[4], UNFINISHED)
    assert ids(store, lr="interval(0.5,2)", norm="none") == expected(*FINISHED[2:4])
    assert ids(store, epochs="null") == everything


@pytest.mark.parametrize("words", [{"model__width": "128"}, {"engine": "serial"}, {"final__test_accuracy": "0.1"}])
def test_a_filter_finds_the_same_runs_as_load_runs(store: Store, words: dict[str, str]):
    runs = load_runs(store)
    ((key, text),) = words.items()
    same = runs[runs[key.replace("__", ".")].astype(str) == text]["run_id"]
    assert [run_id for run_id in ids(store, **words) if store.is_finished(run_id)] == sorted(same)


def test_runs_are_found_by_their_study_and_status(store: Store):
    assert ids(store, study="mine") == [SHARED]
    assert ids(store, status="diverged") == [FINISHED[2].run_id]
    assert ids(store, study="quickstart", status="unfinished,failed") == expected(UNFINISHED, FAILED)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("width=3", "width is not a known key; did you mean model.width?"),
        ("colour=3", "colour is not a known key. Known: "),
        ("norm=bacth", "norm=bacth is not known; did you mean batch?"),
        ("study=quickstrat", "study=quickstrat is not planned in results; did you mean quickstart?"),
        ("status=divreged", "did you mean diverged?"),
        ("lr=range(a,b)", "lr=range(a,b) is not allowed: it must have two numbers"),
        ("batch", "batch cannot be read: write key=value"),
        ("results_dir=nowhere", "results_dir=nowhere is not allowed: there is no such folder."),
    ],
)
def test_a_wrong_word_is_named_with_the_nearest(command: Command, word: str, sentence: str):
    status, out, err = command("list", "--runs", word)
    assert (status, out) == (2, "")
    assert sentence in err


@pytest.mark.usefixtures("store")
def test_the_table_has_a_column_for_each_setting_that_differs(command: Command):
    status, out, _ = command("list", "--runs", "norm=none,layer")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("6 runs, all with ")
    assert lines[1].split() == ["run", "status", "test", "acc", "norm", "lr", "seed"]
    of_run = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert of_run[UNFINISHED.run_id] == ["unfinished", "-", "layer", "0.1", "0"]
    assert of_run[FAILED.run_id] == ["failed", "-", "layer", "0.1", "1"]
    assert of_run[FINISHED[2].run_id] == ["diverged", "10.00%", "none", "1", "0"]


@pytest.mark.usefixtures("store")
def test_what_is_listed_may_be_named_without_dashes(command: Command):
    assert command("list", "runs", "norm=batch") == command("list", "--runs", "norm=batch")
    assert command("list", "claims") == command("list", "studies") == command("list")


@pytest.mark.usefixtures("store")
def test_more_runs_than_fit_are_counted(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bnstudy.commands.list.MOST_RUNS", 3)
    out = command("list", "--runs")[1]
    assert out.startswith("10 runs, of which 3 are shown")
    assert "--all shows all" in out
    assert len(command("list", "--runs", "--all")[1].splitlines()) == 12


def test_a_damaged_run_is_named_and_the_others_are_listed(command: Command, store: Store):
    store.run(SHARED).summary.write_text("{}")
    store.run(UNFINISHED.run_id).config.write_text("- \x1b[31mred")
    status, out, _ = command("list", "--runs")
    assert status == 0
    assert f"Run {SHARED} in results/runs/{SHARED} is damaged" in out
    assert ids(store, status="damaged") == sorted([SHARED, UNFINISHED.run_id])
    assert "\x1b" not in out


LINES = ["list", "list --runs", "show RUN", "status", "diff RUN OTHER", "prune --unfinished --yes", "prune --help"]


@pytest.mark.parametrize("line", LINES)
def test_no_subcommand_imports_torch(store: Store, line: str):
    words = [{"RUN": SHARED, "OTHER": FAILED.run_id}.get(word, word) for word in line.split()]
    code = (
        f"import sys; sys.argv = ['bnstudy', *{json.dumps(words)}]\nfrom bnstudy import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {'torch', 'pandas', 'hydra'} & sys.modules.keys()"
    )
    where = store.results_dir.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=where, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["list", "norm=batch"], "norm=batch chooses runs: write bnstudy list --runs norm=batch."),
        (["list", "batch"], "batch is not allowed: bnstudy list takes results_dir=FOLDER and the flags of its --help."),
        (["list", "--all"], "--all is not allowed without --runs: add --runs."),
        (["status", "lr=1"], "lr is not a known key."),
    ],
)
def test_words_that_a_subcommand_does_not_take_are_named(command: Command, words: list[str], sentence: str):
    status, _, err = command(*words)
    assert (status, sentence in err) == (2, True)
