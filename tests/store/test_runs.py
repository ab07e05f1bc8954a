from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
import yaml

import bnstudy
from bnstudy.run import RunSpec
from bnstudy.store.identity import run_id_of
from bnstudy.store.runs import SharedStore, Store, format_spec, parse_spec
from bnstudy.train.loop import Training, start_serial
from bnstudy.train.record import Outcome
from bnstudy.validation import to_dict
from tests.conftest import CPU, spec_of


def train_and_store(store: Store, spec, digits) -> Training:
    run = start_serial(spec, digits, CPU)
    outcomes: list[tuple[RunSpec, Outcome]] = []
    run.train(outcomes.extend)
    [(_, outcome)] = outcomes
    store.begin(spec.run_id, to_dict(spec))
    summary = {"run_id": spec.run_id, "status": outcome.status, "final": outcome.final, "seconds": {"total": 1.0}}
    store.finish(spec.run_id, outcome.metrics, outcome.timing, summary)
    return run


def test_a_run_is_finished_only_with_its_summary(tmp_path, digits):
    store, spec = Store(tmp_path), spec_of("steps=3")
    store.begin(spec.run_id, to_dict(spec))
    assert not store.is_finished(spec.run_id)
    assert store.finished() == []
    train_and_store(store, spec, digits)
    assert store.finished() == [spec.run_id]


def test_load_runs_has_the_spec_and_the_summary_as_columns(tmp_path, digits):
    for norm in ("none", "batch"):
        train_and_store(Store(tmp_path), spec_of(f"norm={norm}", "steps=3"), digits)
    runs = bnstudy.load_runs(tmp_path).set_index("norm")
    assert set(runs.index) == {"NoNorm", "BatchNorm"}
    assert math.isnan(runs.loc["NoNorm", "norm.eps"])
    run = runs.loc["BatchNorm"]
    assert [*run[["norm.eps", "model.depth", "data", "lr", "steps"]]] == [1e-5, 3, "Digits", 0.1, 3]
    assert 0 <= run["final.test_accuracy"] <= 1


def test_load_metrics_returns_the_recorded_values(tmp_path, digits):
    store = Store(tmp_path)
    runs = {
        spec.run_id: train_and_store(store, spec, digits)
        for spec in (spec_of("seed=0", "steps=3"), spec_of("seed=1", "steps=3"))
    }
    metrics = bnstudy.load_metrics(tmp_path)
    assert metrics.columns.tolist() == ["run_id", "step", "epoch", "split", "metric", "layer", "value"]
    for run_id, run in runs.items():
        one = metrics[(metrics.run_id == run_id) & (metrics.split == "train")]
        assert torch.equal(torch.tensor(one.value.to_numpy(), dtype=torch.float32), run.record.losses[:, 0])
    metrics = bnstudy.load_metrics(tmp_path, run_ids=[min(runs)])
    assert set(metrics.run_id) == {min(runs)}
    assert bnstudy.store.loading.load_timing(tmp_path).columns.tolist() == ["run_id", "step", "seconds", "step_seconds"]


def test_an_empty_store_loads_as_empty_frames(tmp_path):
    assert bnstudy.load_runs(tmp_path).empty
    assert bnstudy.load_metrics(tmp_path).empty


def test_loading_a_store_needs_no_torch(tmp_path, digits):
    train_and_store(Store(tmp_path), spec_of("steps=3"), digits)
    code = f"import bnstudy, sys; bnstudy.load_runs({str(tmp_path)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_finishing_a_run_deletes_the_temporary_files_of_killed_writers(tmp_path, digits):
    spec = spec_of("steps=3")
    old, young = (tmp_path / "runs" / spec.run_id / f".checkpoint.pt.{n:016x}" for n in range(2))
    old.parent.mkdir(parents=True)
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    train_and_store(Store(tmp_path), spec, digits)
    assert (old.exists(), young.exists()) == (False, False)


@pytest.mark.parametrize(
    "text",
    [
        "model: {depth: 3}\nlr: 0.1\nseed: 7\nepochs: null\nprecision: fp32\n",
        "lr: 1e-05\nseed: 010\nsteps: 1_000\nbatch_size: -3\ntrained: yes\nwhen: 2026-01-02\n",
        "norm:\n  eps: 1\nlr: 1\nlr: 2\n",
        "on: 5\n7: 5\nseed: 'seven'\nlr: 1.0e-05\ntexts:\n- a\n- b\n",
        "a: 'in two\nlines: 3\nseed: 4'\nlr: 2\n",
        "- 1\n- 2\n",
        "seed: 3",
        "",
    ],
)
def test_parse_spec_equals_yaml(text):
    assert repr(parse_spec(text)) == repr(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {b: 1}\nc: *x\nseed: 3\n",
        "a: &a [*a]\n",
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40)),
        "seed: 3\n<<: &x {lr: 1}\nmodel: {<<: *x}\n",
        "a: " + "[" * 100_000,
        "- " * 100_000,
    ],
)
def test_a_spec_with_aliases_or_deep_nesting_is_refused_at_once(text):
    start = time.process_time()
    with pytest.raises(ValueError, match="YAML aliases"):
        parse_spec(text)
    assert time.process_time() - start < 1


def test_a_spec_with_a_star_in_a_text_is_read():
    assert parse_spec("pattern: '*.png'\nnote: 3 * 4\n") == {"pattern": "*.png", "note": "3 * 4"}


def test_the_shared_text_of_specs_is_parsed_once(monkeypatch):
    texts = []
    monkeypatch.setattr(yaml, "load", lambda text, loader, load=yaml.load: texts.append(text) or load(text, loader))
    shared = "model:\n  depth: 3\nnorm:\n  of: this test\nlr: 0.125\n"
    specs = [parse_spec(f"{shared}seed: {seed}\n") for seed in range(91_000, 91_010)]
    assert [spec["seed"] for spec in specs] == list(range(91_000, 91_010))
    assert sum("this test" in text for text in texts) == 1


def test_a_shared_store_keeps_a_file_until_its_last_reader(tmp_path):
    specs = [{"model": name} for name in ("once", "twice")]
    once, twice = map(run_id_of, specs)
    store = SharedStore(tmp_path, readers=Counter({once: 0, twice: 2}))
    for run_id, spec in zip((once, twice), specs, strict=True):
        store.begin(run_id, spec)
    first = {run_id: store.config(run_id) for run_id in (once, twice)}
    assert store.config(twice) is first[twice]
    assert store.config(once) == first[once]
    assert store.config(once) is not first[once]
    store.release([once, twice])
    assert store.config(twice) is first[twice]
    store.release([twice])
    assert store.config(twice) is not first[twice]


def test_a_spec_has_the_text_that_yaml_gives_it():
    plain = to_dict(spec_of("norm=batch", "steps=3"))
    for spec in (plain, {**plain, "lr": math.inf, "empty": {}, "list": [1, {"a": None}], "text": "ü: [x]\n"}):
        assert format_spec(spec) == yaml.dump(spec, Dumper=yaml.SafeDumper, sort_keys=False)
