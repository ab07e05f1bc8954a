from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bnstudy.claims.frames import StudyData, load_study
from bnstudy.report.cautions import cautions
from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (1, ["only 1 seed; at least 10 are needed."]),
        (5, ["With 5 seeds 0.062 is the smallest p there is, above the level of 0.05."]),
        (9, ["only 9 seeds; at least 10 are needed. With 9 seeds 0.0039 is the smallest p there is."]),
        (10, []),
    ],
)
def test_fewer_than_10_seeds_are_too_few_for_a_verdict(tmp_path: Path, seeds: int, expected: list[str]) -> None:
    found = cautions(synthetic.study_of(tmp_path, [Run(seed=s, total=20) for s in range(seeds)]))
    assert len(found) == len(expected)
    assert all(text in sentence for text, sentence in zip(expected, found, strict=True))


def test_all_cautions_that_apply_are_given(sweep: StudyData, tmp_path: Path) -> None:
    smoke, missing = cautions(sweep)
    assert "only 2 seeds" in smoke
    assert missing == "1 of 48 planned runs is missing: all results may change."
    failed = Run(seed=10, total=20)
    Store(tmp_path).begin(failed.run_id, failed.spec).error.write_text("RuntimeError: no memory")
    study = synthetic.study_of(tmp_path, [Run(seed=s, total=20) for s in range(10)])
    assert cautions(study) == ["1 of 11 planned runs is missing (1 failed): all results may change."]


def test_seeds_added_after_looking_are_a_caution(sweep: StudyData) -> None:
    added = [line for line in cautions(replace(sweep, looks="repeated")) if line not in cautions(sweep)]
    assert len(added) == 1
    assert added[0].startswith("The number of seeds was not fixed in advance")


@pytest.mark.parametrize("n", [1, 2])
def test_runs_that_an_earlier_version_stopped_at_one_large_loss_are_named(tmp_path: Path, n: int) -> None:
    runs = [Run(seed=s, diverged_at=7 if s < n else None) for s in range(3)]
    ids = synthetic.write(tmp_path, runs)
    for run_id in ids[:n]:
        synthetic.edit_summary(tmp_path, run_id, diverged_because="training loss above 10 times the initial")
    synthetic.plan(tmp_path, "s", ids)
    study = load_study(tmp_path, "s")
    text = cautions(study)[-1]
    assert text.startswith(f"An earlier version stopped {n} run{'s' if n > 1 else ''} at the first training loss above")
    assert all(run_id in text for run_id in ids[:n])
    assert text.endswith(study.commands[-1])
    assert not any("earlier version" in line for line in cautions(synthetic.study_of(tmp_path / "new", runs)))


def test_a_study_without_claims_is_not_short_of_seeds_for_a_verdict(tmp_path: Path) -> None:
    study = replace(synthetic.study_of(tmp_path, [Run(seed=s, total=20) for s in range(3)]), name="reproduction")
    assert cautions(study) == ["Few seeds: some arm has only 3 seeds; intervals over seeds are wide."]
