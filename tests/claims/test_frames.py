from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.completeness import missing_by_arm
from bnstudy.claims.frames import RowsByRun, StudyData, load_study
from bnstudy.report.arm_tables import arm_rows
from bnstudy.report.cautions import cautions
from bnstudy.report.findings import findings
from bnstudy.report.summary import facts
from bnstudy.store.loading import load_runs
from bnstudy.store.plans import Plans
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.synthetic import Run


def test_a_study_loads_the_runs_of_its_plan_alone(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=s) for s in range(4)])
    synthetic.plan(tmp_path, "half", ids[:2])
    assert set(load_study(tmp_path, "half").runs["run_id"]) == set(ids[:2])
    assert len(load_study(tmp_path).runs) == 4


def test_a_report_without_a_study_allows_for_the_looks_of_a_study(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=s) for s in range(2)])
    assert load_study(tmp_path).looks == "once"
    about = {"name": "decided", "title": "", "claims": [], "looks": "repeated"}
    Plans(tmp_path).add(about, "quick", "bnstudy study=decided until=decided", ids)
    assert load_study(tmp_path).looks == load_study(tmp_path, "decided").looks == "repeated"


def test_diverged_runs_stay_and_count_as_guessing(sweep: StudyData, sweep_dir: Path) -> None:
    assert len(sweep.runs) == len(load_runs(sweep_dir)) == 47
    lost = sweep.runs[sweep.runs["status"] == "diverged"]
    assert len(lost) == 12
    assert lost[["test_accuracy", "val_accuracy", "best_accuracy"]].eq(0.1).all(axis=None)
    fine = sweep.runs[sweep.runs["status"] == "finished"]
    assert fine["test_accuracy"].equals(fine["final.test_accuracy"])


def test_step_time_leaves_the_warm_up_out(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run()])
    study = load_study(tmp_path)
    rows = study.timing[study.timing["step"] > 0.05 * 400]
    assert study.runs["step_ms"].item() == pytest.approx(1000 * rows["step_seconds"].median())


def test_a_begun_run_that_is_missing_is_listed_by_its_arm(tmp_path: Path) -> None:
    runs = [Run(norm, seed=s) for norm in ("NoNorm", "BatchNorm") for s in range(3)]
    synthetic.write(tmp_path, runs[:5])
    Store(tmp_path).begin(runs[5].run_id, runs[5].spec)
    synthetic.plan(tmp_path, "s", [r.run_id for r in runs])
    assert missing_by_arm(load_study(tmp_path, "s")) == (["BatchNorm: 2 of 3 seeds"], 0)


def test_seeds_not_begun_are_listed_by_the_arms_that_lack_them(sweep: StudyData) -> None:
    assert missing_by_arm(sweep) == (["BatchNorm, lr=1: 2 of 3 seeds"], 0)


def test_runs_of_arms_not_begun_are_counted(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=s) for s in range(3)])
    synthetic.plan(tmp_path, "s", [*ids, "a" * 12, "b" * 12])
    study = load_study(tmp_path, "s")
    assert missing_by_arm(study) == ([], 2)
    assert study.n_missing == 2


def test_failures_have_the_last_line_of_their_error(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run()])
    failed = Store(tmp_path).begin(Run(seed=1).run_id, Run(seed=1).spec)
    failed.error.write_text("Traceback\n  somewhere\nRuntimeError: no memory\n")
    synthetic.plan(tmp_path, "s", [*ids, Run(seed=1).run_id])
    assert load_study(tmp_path, "s").failures == {Run(seed=1).run_id: "RuntimeError: no memory"}


def test_an_error_that_a_worker_removes_while_it_is_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = synthetic.write(tmp_path, [Run()])
    failed = Store(tmp_path).begin(Run(seed=1).run_id, Run(seed=1).spec)
    failed.error.write_text("RuntimeError: no memory\n")
    synthetic.plan(tmp_path, "s", [*ids, Run(seed=1).run_id])
    read_text = Path.read_text

    def read(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "error.txt":
            path.unlink()
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read)
    assert load_study(tmp_path, "s").failures == {}
    assert not failed.error.exists()


def test_the_scale_planned_last_is_the_default(tmp_path: Path) -> None:
    small, full = (synthetic.write(tmp_path, [Run(total=t)]) for t in (100, 200))
    synthetic.plan(tmp_path, "s", full, scale="full")
    synthetic.plan(tmp_path, "s", small, scale="quick")
    assert load_study(tmp_path, "s").scale == "quick"
    assert load_study(tmp_path, "s", "full").runs["run_id"].tolist() == full
    with pytest.raises(ConfigError, match=r"scale=huge .* but at full, quick\. To run it: bnstudy study=s scale=huge"):
        load_study(tmp_path, "s", "huge")


def test_an_unknown_study_is_refused_with_the_nearest_name(sweep_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean lr_tolerance\?$"):
        load_study(sweep_dir, "lr_tolerence")


def test_a_study_that_was_not_run_is_refused_with_the_command_to_run_it_spelled_right(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has not been run in [^?]*\. To run it: bnstudy study=lr_tolerance$"):
        load_study(tmp_path, "lr_tolerance")
    with pytest.raises(ConfigError, match=r"did you mean lr_tolerance\? To run it: bnstudy study=lr_tolerance$"):
        load_study(tmp_path, "lr_tolerence")


def test_a_study_that_does_not_exist_is_not_offered_to_be_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has not been run in [^?]*\. There is no such study: bnstudy list shows"):
        load_study(tmp_path, "zzz")


def test_a_study_without_finished_runs_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    synthetic.plan(tmp_path, "s", ["a" * 12])
    with pytest.raises(ConfigError, match=r"none of its 1 runs .* To run them: bnstudy study=s scale=quick"):
        load_study(tmp_path, "s")
    with pytest.raises(ConfigError, match=r"no finished run .* bnstudy -m norm=none,batch steps=300 'seed="):
        load_study(tmp_path / "empty")


@pytest.mark.parametrize("scale", ["huge", 5])
def test_a_scale_without_a_study_is_refused(sweep_dir: Path, scale: str) -> None:
    with pytest.raises(ConfigError, match=rf"scale={scale} is not allowed without a study"):
        load_study(sweep_dir, None, scale)


def test_a_study_may_be_named_by_a_number(tmp_path: Path) -> None:
    synthetic.plan(tmp_path, "5", synthetic.write(tmp_path, [Run(total=20)]), scale="3")
    number: Any = 5
    assert load_study(tmp_path, number).name == "5"
    assert load_study(tmp_path, "5", number - 2).scale == "3"


@pytest.mark.parametrize("name", ["", ".", "..", "lr_tolerance/quick"])
def test_paths_are_refused_as_names_of_a_study(sweep_dir: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="has not been run"):
        load_study(sweep_dir, name)


def test_runs_that_differ_in_their_probes_alone_count_once(tmp_path: Path) -> None:
    seeds = [Run(norm, seed=s) for norm in ("NoNorm", "BatchNorm") for s in range(2)]
    again = [replace(r, probed="weights", dead=False) for r in seeds]
    sparse = [replace(r, fields=(("evaluation.early", 3),), dead=False) for r in seeds]
    synthetic.write(tmp_path, [*again, *seeds, *sparse])
    waiting = replace(seeds[0], probed="none")
    Store(tmp_path).begin(waiting.run_id, waiting.spec)
    study = load_study(tmp_path)
    assert set(study.runs["run_id"]) == {r.run_id for r in seeds} == set(study.planned)
    assert set(study.metrics["run_id"]) == set(study.timing["run_id"]) == set(study.runs["run_id"])
    assert len(study.repeats) == 9
    assert study.n_missing == 0
    assert "4 of 4 finished, 0 of them diverged; 9 more left out" in dict(facts(study))["Runs"]
    assert "n = 2" in findings(study)[0]


def test_different_runs_with_the_same_label_are_refused(tmp_path: Path) -> None:
    runs = [Run(fields=(("init.gain", gain),)) for gain in (1, "1")]
    synthetic.write(tmp_path, runs)
    with pytest.raises(ConfigError, match=r"The runs \w+, \w+ are all called NoNorm, seed=0, but differ in init\.gain"):
        load_study(tmp_path)


def test_runs_have_the_class_names_of_their_arms(tmp_path: Path) -> None:
    mine = Run("BatchNorm", fields=(("norm._target_", "mine.BatchNorm"),))
    synthetic.write(tmp_path, [Run("NoNorm"), Run("BatchNorm"), mine])
    runs = load_study(tmp_path).runs.sort_values("arm")
    assert runs["norm"].tolist() == ["NoNorm", "bnstudy.norms.batch.BatchNorm", "mine.BatchNorm"]


def test_a_run_whose_last_evaluation_is_missing_counts_as_guessing(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [replace(Run(), diverged_at=1)])
    assert load_study(tmp_path).runs["test_accuracy"].tolist() == [0.1]


@pytest.mark.parametrize("order", ["run by run", "mixed", "texts"])
def test_rows_of_runs_agree_with_isin(order: str) -> None:
    names = [f"{i:02d}" for i in range(20)]
    rng = np.random.default_rng(0)
    drawn = rng.choice(names[:17], 200)
    run_id = drawn if order == "mixed" else np.sort(drawn)
    frame = pd.DataFrame({"run_id": run_id, "value": rng.normal(size=200)})
    if order != "texts":
        frame["run_id"] = pd.Categorical(frame["run_id"], categories=names)
    rows = RowsByRun(frame)
    for wanted in ([], ["05"], ["16", "03", "03", "00"], ["19", "none"], names):
        run_ids = pd.Series(wanted, dtype=object)
        pd.testing.assert_frame_equal(rows.of(run_ids), frame[frame["run_id"].isin(run_ids)])


def test_an_unfinished_run_keeps_the_name_of_a_dataset_with_several_versions(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=seed) for seed in range(2)])
    dataset = Store(tmp_path).summary(ids[0])["dataset"]
    synthetic.edit_summary(tmp_path, ids[0], dataset={**dataset, "checksum": "01"})
    Store(tmp_path).begin(Run(seed=2).run_id, Run(seed=2).spec)
    study = load_study(tmp_path)
    data = study.specs.set_index("seed")["data"].to_dict()
    assert data == {0: "Digits (images 01)", 1: "Digits (images 00)", 2: "Digits"}
    assert dict(zip(study.runs["seed"], study.runs["arm"], strict=True)) == {0: data[0], 1: data[1]}
    assert study.n_missing == 1


def test_runs_of_an_earlier_version_have_the_guessing_of_others_on_the_same_images(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=seed) for seed in range(2)])
    dataset = Store(tmp_path).summary(ids[0])["dataset"]
    guessing = {"val": 0.7, "test": 0.8, "loss": 0.5}
    synthetic.edit_summary(tmp_path, ids[0], learned=True, dataset={**dataset, "guessing": guessing})
    assert load_study(tmp_path).runs["chance"].tolist() == [0.8, 0.8]


def test_runs_that_did_not_learn_count_as_guessing_the_most_frequent_class(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=seed) for seed in range(3)])
    changes = ({"learned": True}, {"learned": False}, {"learned": None, "status": "diverged", "diverged_step": 5})
    for run_id, change in zip(ids, changes, strict=True):
        summary = Store(tmp_path).summary(run_id)
        dataset = {**summary["dataset"], "guessing": {"val": 0.7, "test": 0.8, "loss": 0.5}}
        final = {**summary["final"], "test_balanced_accuracy": None if change["learned"] is None else 0.6}
        final["val_balanced_accuracy"] = 0.65
        synthetic.edit_summary(tmp_path, run_id, **change, dataset=dataset, final=final)
    runs = load_study(tmp_path).runs.set_index("run_id").loc[ids]
    assert runs["diverged"].tolist() == [False, False, True]
    assert runs["not_learned"].tolist() == [False, True, False]
    assert runs["counts_as_guessing"].tolist() == [False, True, True]
    assert runs["test_accuracy"].tolist() == [runs["final.test_accuracy"].iloc[0], 0.8, 0.8]
    assert runs["val_accuracy"].tolist()[1:] == runs["best_accuracy"].tolist()[1:] == [0.7, 0.7]
    assert runs["balanced_accuracy"].tolist() == [0.6, 0.1, 0.1]
    assert (runs["chance"] == 0.8).all()
    assert runs["score"].tolist() == [0.65, 0.1, 0.1]
    (row,) = arm_rows(runs.reset_index())
    assert (row["balanced"], row["diverged"], row["not_learned"]) == ("26.7%", 1, 1)
    assert "guessing the most frequent one is right for 80.0% of its test images" in cautions(load_study(tmp_path))[-1]
