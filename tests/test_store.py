from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from threading import Thread

import pandas as pd
import pytest
import torch

import bnstudy
from bnstudy.spec import ConfigError, to_dict
from bnstudy.store import Store
from bnstudy.train.serial import SerialRun
from bnstudy.train.state import Outcome
from tests.conftest import CPU, spec_of


def stored(store: Store, spec, digits) -> SerialRun:
    run = SerialRun(spec, digits, CPU)
    outcomes: list[Outcome] = []
    run.train(lambda _, outcome: outcomes.append(outcome))
    [outcome] = outcomes
    store.begin(spec.run_id, to_dict(spec))
    summary = {"run_id": spec.run_id, "status": outcome.status, "final": outcome.final, "seconds": {"total": 1.0}}
    store.finish(spec.run_id, outcome.metrics, outcome.timing, summary)
    return run


def test_a_run_counts_only_with_its_summary(tmp_path, digits):
    store, spec = Store(tmp_path), spec_of("steps=3")
    store.begin(spec.run_id, to_dict(spec))
    assert not store.is_finished(spec.run_id)
    assert store.finished() == []
    stored(store, spec, digits)
    assert store.finished() == [spec.run_id]


def test_loaded_runs_have_the_spec_and_the_summary_as_columns(tmp_path, digits):
    for norm in ("none", "batch"):
        stored(Store(tmp_path), spec_of(f"norm={norm}", "steps=3"), digits)
    runs = bnstudy.load_runs(tmp_path).set_index("norm")
    assert set(runs.index) == {"NoNorm", "BatchNorm"}
    assert runs.loc["BatchNorm", "norm.eps"] == 1e-5
    assert math.isnan(runs.loc["NoNorm", "norm.eps"])
    assert runs.loc["BatchNorm", "model.depth"] == 3
    assert runs.loc["BatchNorm", "data"] == "Digits"
    assert runs.loc["BatchNorm", "lr"] == 0.1
    assert 0 <= runs.loc["BatchNorm", "final.test_accuracy"] <= 1
    assert runs.loc["BatchNorm", "steps"] == 3


def test_loaded_metrics_are_what_was_recorded(tmp_path, digits):
    store = Store(tmp_path)
    runs = {
        spec.run_id: stored(store, spec, digits)
        for spec in (spec_of("seed=0", "steps=3"), spec_of("seed=1", "steps=3"))
    }
    metrics = bnstudy.load_metrics(tmp_path)
    assert metrics.columns.tolist() == ["run_id", "step", "epoch", "split", "metric", "layer", "value"]
    for run_id, run in runs.items():
        one = metrics[(metrics.run_id == run_id) & (metrics.split == "train")]
        assert torch.equal(torch.tensor(one.value.to_numpy(), dtype=torch.float32), run.record.losses[:, 0])
    chosen = bnstudy.load_metrics(tmp_path, run_ids=[min(runs)])
    assert set(chosen.run_id) == {min(runs)}
    assert bnstudy.store.load_timing(tmp_path).columns.tolist() == ["run_id", "step", "seconds", "step_seconds"]


def test_an_empty_store_gives_empty_frames(tmp_path):
    assert bnstudy.load_runs(tmp_path).empty
    assert bnstudy.load_metrics(tmp_path).empty
    assert isinstance(bnstudy.load_metrics(tmp_path), pd.DataFrame)


def test_reading_a_store_runs_nothing_and_needs_no_torch(tmp_path, digits):
    stored(Store(tmp_path), spec_of("steps=3"), digits)
    code = f"import bnstudy, sys; bnstudy.load_runs({str(tmp_path)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plan_grows_with_every_command_and_keeps_what_was_planned(tmp_path):
    store, study = Store(tmp_path), {"name": "s", "title": "?", "claims": []}
    store.add_to_plan(study, "quick", "bnstudy study=s", ["b", "a"])
    store.add_to_plan(study, "quick", "bnstudy study=s seed=9", ["c"])
    time.sleep(0.01)
    store.add_to_plan(study, "quick", "bnstudy study=s", ["a"])
    (plan,) = store.plans("s")
    assert plan["run_ids"] == ["a", "c"]
    assert plan["commands"] == ["bnstudy study=s seed=9", "bnstudy study=s"]
    assert (plan["name"], plan["title"], plan["scale"]) == ("s", "?", "quick")
    assert store.studies() == ["s"]


def test_looks_that_were_repeated_once_stay_so(tmp_path):
    store, study = Store(tmp_path), {"name": "s", "title": "?", "claims": []}
    store.add_to_plan(study, "quick", "bnstudy study=s", ["a"])
    assert "looks" not in store.plans("s")[0]
    store.add_to_plan({**study, "looks": "repeated"}, "quick", "bnstudy study=s until=decided", ["b"])
    time.sleep(0.01)
    store.add_to_plan(study, "quick", "bnstudy study=s", ["a"])
    assert store.plans("s")[0]["looks"] == "repeated"


def test_processes_that_plan_at_once_lose_nothing(tmp_path):
    store, study = Store(tmp_path), {"name": "s", "title": "?", "claims": []}
    commands = [Thread(target=store.add_to_plan, args=(study, "quick", f"seed={i}", [f"r{i:02}"])) for i in range(40)]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
    assert store.plans("s")[0]["run_ids"] == [f"r{i:02}" for i in range(40)]


def test_the_scale_planned_last_comes_first(tmp_path):
    store, study = Store(tmp_path), {"name": "s", "title": "?", "claims": []}
    for i, scale in enumerate(("standard", "quick")):
        store.add_to_plan(study, scale, "bnstudy", ["a"])
        (path,) = (tmp_path / "studies" / "s" / scale).glob("*.json")
        os.utime(path, (i, i))
    assert [plan["scale"] for plan in store.plans("s")] == ["quick", "standard"]


@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "metrics.parquet"])
@pytest.mark.parametrize("content", ["{", "", "{}", "[1]"])
def test_a_damaged_run_is_named(tmp_path, digits, name, content):
    spec = spec_of("steps=3")
    stored(Store(tmp_path), spec, digits)
    (tmp_path / "runs" / spec.run_id / name).write_text(content)
    load = bnstudy.load_metrics if name == "metrics.parquet" else bnstudy.load_runs
    with pytest.raises(ConfigError, match=f"Run {spec.run_id} in .* is damaged .{name}: .* delete the folder"):
        load(tmp_path)


def test_temporary_files_of_killed_writers_go_with_the_finished_run(tmp_path, digits):
    spec = spec_of("steps=3")
    old, young = (tmp_path / "runs" / spec.run_id / f".checkpoint.pt.{age}" for age in ("old", "young"))
    old.parent.mkdir(parents=True)
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    stored(Store(tmp_path), spec, digits)
    assert (old.exists(), young.exists()) == (False, True)
