from __future__ import annotations

from pathlib import Path

import pytest

from bnstudy.claims.frames import StudyData
from bnstudy.report.summary import duration, facts
from tests import synthetic
from tests.synthetic import Run


def test_the_facts_name_the_batches_whose_statistics_evaluations_use(tmp_path: Path) -> None:
    by_batch = (("track_running_stats", False),)
    new = [Run("BatchNorm", norm_fields=by_batch, fields=(("evaluation.batch_size", size),)) for size in (64, 4)]
    old = Run("BatchNorm", norm_fields=by_batch)
    assert "Evaluation" not in dict(facts(synthetic.study_of(tmp_path / "plain", [Run("NoNorm"), Run("BatchNorm")])))
    assert dict(facts(synthetic.study_of(tmp_path / "both", [Run("NoNorm"), old, *new])))["Evaluation"] == (
        "norms without running statistics use those of random batches of at most 4, 64 images and of class-balanced "
        "parts of 256 images (by an earlier version)"
    )


def test_facts_describe_runs_seeds_data_and_versions(sweep: StudyData) -> None:
    found = dict(facts(sweep))
    assert found["Runs"] == "47 of 48 finished, 12 of them diverged"
    assert found["Seeds"] == "3 (0 to 2)"
    assert found["Data"] == "Digits (1150 training, 287 validation, 360 test images)"
    assert found["Versions"] == "bnstudy 0.1.0, python 3.12.3, torch 2.15.0"


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (125, "2 min"), (3720, "1 h 2 min")])
def test_durations_are_in_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text
