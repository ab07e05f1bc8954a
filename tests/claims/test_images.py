from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.claim import claim_of
from bnstudy.claims.contrasts import contrasts
from bnstudy.claims.frames import StudyData, load_study
from bnstudy.claims.images import image_error
from bnstudy.store.loading import load_test_correct
from bnstudy.store.runs import SharedStore
from tests import synthetic
from tests.sweeps import NODE
from tests.synthetic import Run

SEEDS = 4
WITH = [Run("BatchNorm", seed=seed) for seed in range(SEEDS)]
WITHOUT = [Run("NoNorm", seed=seed, diverged_at=50 if seed == 2 else None) for seed in range(SEEDS)]


@pytest.fixture
def study(tmp_path: Path) -> StudyData:
    synthetic.write(tmp_path, [*WITH, *WITHOUT])
    return load_study(tmp_path)


def ids(runs: list[Run]) -> list[str]:
    return [run.run_id for run in runs]


def test_a_study_has_the_correct_test_images_of_its_runs(study: StudyData, tmp_path: Path) -> None:
    stored = load_test_correct(tmp_path)
    assert study.test_correct.keys() == stored.keys() == {*ids(WITH), *ids(WITHOUT)} - {WITHOUT[2].run_id}
    assert all(np.array_equal(study.test_correct[run_id], stored[run_id]) for run_id in stored)


def test_diverged_runs_count_as_guessing_on_every_image(study: StudyData) -> None:
    wide = pd.DataFrame(dict(study.test_correct)).astype(float)
    wide[WITHOUT[2].run_id] = 0.1
    effect = wide[ids(WITH)].mean(axis=1) - wide[ids(WITHOUT)].mean(axis=1)
    found = image_error(study, ids(WITH), ids(WITHOUT))
    assert found == (pytest.approx(effect.sem(), rel=1e-12), 360)


def test_a_side_of_diverged_runs_alone_has_no_error_of_its_own(study: StudyData) -> None:
    lost = replace(study, runs=study.runs.assign(counts_as_guessing=study.runs["norm"] == "NoNorm"))
    found = image_error(lost, ids(WITH), ids(WITHOUT))
    wide = pd.DataFrame({run_id: study.test_correct[run_id] for run_id in ids(WITH)}).mean(axis=1)
    assert found == (pytest.approx(wide.sem(), rel=1e-12), 360)


def test_an_accuracy_by_itself_has_an_error_too(study: StudyData) -> None:
    wide = pd.DataFrame({run_id: study.test_correct[run_id] for run_id in ids(WITH)}).mean(axis=1)
    assert image_error(study, ids(WITH), []) == (pytest.approx(wide.sem(), rel=1e-12), 360)


def test_a_contrast_has_the_error_of_its_evaluated_runs(tmp_path: Path) -> None:
    batches = {b: [replace(run, batch_size=b) for run in (*WITH, *WITHOUT)] for b in (8, 32)}
    synthetic.write(tmp_path, [*batches[8], *batches[32]])
    study = load_study(tmp_path)
    (contrast,) = contrasts(study, claim_of({**NODE, "across": {"batch_size": 32}}, "c"))
    wide = pd.DataFrame(dict(study.test_correct)).astype(float)
    effects = {}
    for b, runs in batches.items():
        for run in runs:
            wide[run.run_id] = 0.1 if run.diverged_at else wide[run.run_id]
        effects[b] = wide[ids(runs[:SEEDS])].mean(axis=1) - wide[ids(runs[SEEDS:])].mean(axis=1)
    assert contrast.image_error == pytest.approx(100 * (effects[8] - effects[32]).sem())
    assert contrast.images == 360


def test_there_is_no_error_if_a_run_has_no_record_or_other_images(study: StudyData) -> None:
    unrecorded = {run_id: bits for run_id, bits in study.test_correct.items() if run_id != WITH[1].run_id}
    assert image_error(replace(study, test_correct=unrecorded), ids(WITH), ids(WITHOUT)) is None
    assert image_error(replace(study, test_correct=unrecorded), ids(WITH[2:]), ids(WITHOUT[2:])) is not None
    checksum = study.runs["norm"].map({"BatchNorm": "00", "NoNorm": "01"})
    others = study.runs.assign(**{"dataset.checksum": checksum})
    assert image_error(replace(study, runs=others), ids(WITH), ids(WITHOUT)) is None
    regression = study.runs.assign(chance=np.nan)
    assert image_error(replace(study, runs=regression), ids(WITH), ids(WITHOUT)) is None
    assert image_error(study, [], []) is None


def test_a_shared_store_gives_the_same_test_images(study: StudyData, tmp_path: Path) -> None:
    store = SharedStore(tmp_path)
    store.readers.update(dict.fromkeys(study.runs["run_id"], 2))
    for _ in range(2):
        shared = load_study(store)
        assert image_error(shared, ids(WITH), ids(WITHOUT)) == image_error(study, ids(WITH), ids(WITHOUT))
        store.release(study.runs["run_id"])
