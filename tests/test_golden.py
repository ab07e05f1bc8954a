"""A store of the first version, written before classes, fields and modules were renamed, gives the same results."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

import bnstudy
from bnstudy.claims.frames import load_study
from bnstudy.claims.verdicts import as_json, verdicts
from bnstudy.config.build import build_request, build_run_spec
from bnstudy.config.compose import compose_sweep
from bnstudy.store.files import conf_dir
from bnstudy.store.runs import Store

HERE = Path(__file__).parent / "golden"
EXPECTED: dict[str, Any] = json.loads((HERE / "expected.json").read_text())
"""runs: by study at the quick scale, as other scales use the same classes: the number of runs, the first and last
run_id, and a hash of all. claims: numbers of the reports."""

SHORT = ("scale=quick", "model.depth=2")
RATES = "lr=0.00316,0.01,0.0316,0.1,0.316,1,3.16"
QUICKSTART = ("study=quickstart", *SHORT, RATES, "model.width=8", "steps=24", "seed=range(0,14)")

AT_EQUAL_STEPS = {"small_batches_hurt": "small_batches_hurt_at_equal_updates"}
"""The claim that the stored runs bear on, by the one that their plan names: they have equal steps, not equal epochs."""


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(HERE / "store.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "store"


def test_stored_runs_keep_their_run_ids(golden):
    store = Store(golden)
    ids = store.finished()
    assert len(ids) == 388
    for run_id in ids[::10]:
        assert build_run_spec(store.config(run_id)).run_id == run_id


def test_all_files_of_an_earlier_version_are_intact(golden):
    damages: dict[str, str] = {}
    loaders = (bnstudy.load_runs, bnstudy.load_metrics, bnstudy.load_timing)
    assert [load(golden, damages=damages)["run_id"].nunique() for load in loaders] == [388] * 3
    assert not damages


def test_the_command_of_the_store_finds_all_of_its_runs(golden, command):
    status, out, err = command(*QUICKSTART, f"results_dir={golden}", "dry_run=true")
    assert status == 0
    assert "196 runs: 196 finished, 0 to do" in out + err


@pytest.mark.parametrize("study", EXPECTED["claims"])
def test_a_report_has_the_same_numbers(golden, study):
    about = load_study(golden, study)
    names = tuple(AT_EQUAL_STEPS.get(name, name) for name in about.claims)
    found = as_json(verdicts(replace(about, claims=names)))
    assert len(found) == len(EXPECTED["claims"][study])
    for row, expected in zip(found, EXPECTED["claims"][study], strict=True):
        for key, value in expected.items():
            is_number = isinstance(value, float | list)
            assert row[key] == (pytest.approx(value, rel=1e-9) if is_number else value), (row["claim"], key)


def test_the_columns_of_old_runs_have_present_names(golden):
    runs = bnstudy.load_runs(golden)
    assert set(runs["evaluation.images"]) == {2000}
    assert "evaluation.pictures" not in runs
    assert "bnstudy.norms.batch.BatchNorm" in set(runs["norm._target_"])
    assert not runs["evaluation.when._target_"].str.startswith("bnstudy.spec.").any()


@pytest.mark.slow
def test_studies_plan_the_same_runs():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for study, (count, first, last, digest) in EXPECTED["runs"].items():
            arguments = [f"study={study}", "scale=quick"]
            master = loader.load_configuration("config", arguments, RunMode.MULTIRUN)
            request = build_request(compose_sweep(loader, master, arguments), master.hydra.launcher)
            ids = [run.spec.run_id for run in request.runs]
            found = len(ids), ids[0], ids[-1], hashlib.sha256(" ".join(ids).encode()).hexdigest()[:12]
            assert found == (count, first, last, digest), study
