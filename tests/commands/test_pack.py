from __future__ import annotations

import json

import pytest

from bnstudy.store.loading import load_metrics, load_runs
from bnstudy.store.plans import Plans
from tests import synthetic
from tests.commands.conftest import FINISHED, SHARED
from tests.synthetic import Run

pytestmark = pytest.mark.usefixtures("store")


def packed_ids(folder) -> set[str]:
    return {*load_runs(folder)["run_id"]}


def test_all_finished_runs_and_all_plans_are_packed(command, tmp_path):
    status, out, err = command("pack", "packed")
    assert (status, err) == (0, "")
    assert out.startswith("Packed 8 runs in packed (")
    assert packed_ids(tmp_path / "packed") == {run.run_id for run in FINISHED}
    assert Plans(tmp_path / "packed").studies() == ["mine", "quickstart"]


@pytest.mark.parametrize(
    ("words", "ids", "studies"),
    [
        (["study=quickstart"], [run.run_id for run in FINISHED[:4]], ["quickstart"]),
        (["study=mine"], [SHARED], ["mine"]),
        (["study=mine,quickstart", "scale=quick"], [run.run_id for run in FINISHED[:4]], ["mine", "quickstart"]),
        (["norm=batch", "lr=1"], [run.run_id for run in FINISHED[6:8]], ["mine", "quickstart"]),
    ],
)
def test_words_choose_runs_as_in_list(command, tmp_path, words, ids, studies):
    assert command("pack", "packed", *words)[0] == 0
    assert packed_ids(tmp_path / "packed") == {*ids}
    assert Plans(tmp_path / "packed").studies() == studies


def test_a_thin_pack_says_so(command, tmp_path):
    status, out, _ = command("pack", "--thin", "packed")
    assert status == 0
    assert "a run, training loss at 200 steps)." in out
    assert json.loads((tmp_path / "packed/packed.json").read_text())["thin"] is True


def test_a_thin_pack_keeps_all_losses_of_runs_whose_claims_need_them(command, tmp_path):
    runs = [Run(norm, seed=9, total=400) for norm in ("NoNorm", "BatchNorm", "LayerNorm")]
    for run, name, claims in zip(
        runs, ("decay", "other", "mine"), (["weight_decay_is_a_rate"], ["dead_relus"], ["my_own_claim"]), strict=True
    ):
        synthetic.plan(tmp_path / "results", name, synthetic.write(tmp_path / "results", [run]), claims=claims)
    status, out, _ = command("pack", "--thin", "packed")
    assert status == 0
    assert "training loss at 200 steps, and all of it of 2 runs whose claims need it)." in out
    metrics = load_metrics(tmp_path / "packed", [run.run_id for run in runs])
    counts = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss")]["run_id"].value_counts()
    assert [counts[run.run_id] == 400 for run in runs] == [True, False, True]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "bnstudy pack needs one folder, such as bnstudy pack packed, and was given 0."),
        (["a", "b"], "bnstudy pack needs one folder, such as bnstudy pack packed, and was given 2."),
        (["results"], "results is not allowed: it is the store itself. Name another folder."),
        (["p", "study=cost"], "study=cost is not planned in results. Known: mine, quickstart."),
        (["p", "seed=99"], "There is no finished run like this in results."),
        (["p", "results_dir=none"], "results_dir=none is not allowed: there is no such folder."),
    ],
)
def test_what_cannot_be_packed_is_said(command, words, sentence):
    assert command("pack", *words) == (2, "", f"bnstudy: {sentence}\n")


def test_the_commands_read_a_packed_store(command):
    command("pack", "packed")
    at = "results_dir=packed"
    assert "packed has 8 runs, 8 of them finished." in command("list", at)[1]
    assert "8 runs" in command("list", "--runs", at)[1]
    shown = command("show", SHARED, at)
    assert shown[0] == 0
    assert "packed in" in shown[1]
    assert "lr" in command("diff", FINISHED[0].run_id, FINISHED[2].run_id, at)[1]
    assert "quickstart" in command("status", "--once", at)[1]
    assert command("export", "csv", "to=out", at)[1] == "Exported 8 runs to out.\n"


@pytest.mark.parametrize(
    "words", [["prune", "--unfinished"], ["pack", "other"], ["unpack", "packed"], ["steps=1", "data=digits"]]
)
def test_nothing_is_trained_in_or_removed_from_a_packed_store(command, tmp_path, words):
    command("pack", "packed")
    before = {path.name for path in (tmp_path / "packed").iterdir()}
    status, _, err = command(*words, "results_dir=packed")
    assert status == 2
    sentence = "results_dir=packed is a packed store, which can only be read. To make a store of it: bnstudy unpack"
    assert err.startswith(f"bnstudy: {sentence}")
    assert {path.name for path in (tmp_path / "packed").iterdir()} == before


def test_unpack_makes_a_store_again(command, store, tmp_path):
    command("pack", "packed")
    status, out, err = command("unpack", "packed", "results_dir=new")
    assert (status, out, err) == (0, "Unpacked 8 runs to new.\n", "")
    again = "Unpacked 0 runs to new. 8 runs had been finished there already and stayed.\n"
    assert command("unpack", "packed", "results_dir=new")[1] == again
    own = tmp_path / "new/runs" / SHARED / "summary.json"
    assert own.read_bytes() == store.run(SHARED).summary.read_bytes()


def test_unpack_needs_a_packed_store(command):
    sentence = "results is not a packed store: it has no file packed.json. To make one: bnstudy pack FOLDER"
    assert command("unpack", "results", "results_dir=new") == (2, "", f"bnstudy: {sentence}\n")
