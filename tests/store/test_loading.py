from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bnstudy
from bnstudy.store.bits import pack_bits
from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run


def test_the_correct_test_images_of_each_run_are_loaded_by_its_id(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=seed) for seed in range(3)])
    bits = np.arange(360) % 3 > 0
    synthetic.edit_summary(tmp_path, ids[1], test_correct=pack_bits(bits))
    found = bnstudy.load_test_correct(tmp_path)
    assert list(found) == sorted(ids)
    assert found[ids[1]].dtype == bool
    assert found[ids[1]].tolist() == bits.tolist()
    accuracy = bnstudy.load_runs(tmp_path).set_index("run_id")["final.test_accuracy"]
    assert found[ids[0]].mean() == pytest.approx(accuracy[ids[0]], abs=1 / 720)
    assert bnstudy.load_test_correct(tmp_path, [ids[2], "unknown"]).keys() == {ids[2]}


def test_runs_that_recorded_no_test_images_are_left_out(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(), Run(seed=1), Run(seed=2, diverged_at=7)])
    synthetic.edit_summary(tmp_path, ids[0], test_correct=None)
    assert bnstudy.load_test_correct(tmp_path).keys() == {ids[1]}
    assert len(bnstudy.load_runs(tmp_path)) == 3
    (tmp_path / "empty").mkdir()
    assert bnstudy.load_test_correct(tmp_path / "empty") == {}


@pytest.mark.parametrize("load", [bnstudy.load_runs, bnstudy.load_metrics, bnstudy.load_timing])
def test_a_folder_that_does_not_exist_is_no_empty_store(tmp_path: Path, load: Callable[[Path], object]) -> None:
    with pytest.raises(bnstudy.ConfigError, match=r"results_dir=.*nowhere is not allowed: there is no such folder"):
        load(tmp_path / "nowhere")


def test_the_table_of_runs_has_no_column_of_test_images(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [Run()])
    columns = bnstudy.load_runs(tmp_path).columns
    assert not [name for name in columns if "test_correct" in name]
    assert "final.test_accuracy" in columns


@pytest.mark.parametrize("damage", [{"test_correct": "gEA="}, {"test_correct": 5}, {"dataset": {}}])
def test_the_error_for_damaged_test_images_names_the_run(tmp_path: Path, damage: dict[str, object]) -> None:
    [run_id] = synthetic.write(tmp_path, [Run()])
    synthetic.edit_summary(tmp_path, run_id, **damage)
    with pytest.warns(UserWarning, match=f"Run {run_id} in .* is damaged .summary.json: .* delete the folder"):
        assert bnstudy.load_test_correct(tmp_path) == {}


def test_load_runs_warns_of_runs_on_different_images_of_one_name(tmp_path: Path) -> None:
    ids = synthetic.write(tmp_path, [Run(seed=seed) for seed in range(3)])
    synthetic.write(tmp_path, [Run(data="MNIST")])
    assert len(bnstudy.load_runs(tmp_path)) == 4
    synthetic.edit_summary(tmp_path, ids[1], dataset={**Store(tmp_path).summary(ids[1])["dataset"], "checksum": "01"})
    with pytest.warns(UserWarning, match=rf"^Digits has named different images.*run {ids[1]} on images 01"):
        assert len(bnstudy.load_runs(tmp_path)) == 4
    assert len(bnstudy.load_runs(tmp_path, ids[:1])) == 1
