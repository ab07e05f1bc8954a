from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.claims.frames import StudyData, load_study
from bnstudy.report import summary
from bnstudy.stats.intervals import mean_interval
from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run


def study_of(folder: Path, runs: list[Run]) -> StudyData:
    synthetic.write(folder, runs)
    return load_study(folder)


def scored(norm: str, scores: list[float], **fields: object) -> list[Run]:
    return [Run(norm, seed=i, accuracy=a, val_accuracy=a, **fields) for i, a in enumerate(scores)]  # type: ignore[arg-type]


def test_each_family_is_described_at_its_best_rate_on_validation(tmp_path: Path) -> None:
    runs = [
        Run("BatchNorm", 0.1, accuracy=0.7, val_accuracy=0.9),
        Run("BatchNorm", 1.0, accuracy=0.99, val_accuracy=0.8),
    ]
    assert summary.findings(study_of(tmp_path, runs)) == [
        "MLP on Digits: BatchNorm at its best learning rate, 0.1, reaches 70.0% test accuracy (one seed)."
    ]


def test_findings_compare_nothing(sweep: StudyData) -> None:
    found = summary.findings(sweep)
    assert len(found) == 2
    assert "BatchNorm at its best learning rate, 0.3 (runs incomplete: 23 of 24), reaches" in found[1]
    assert "difference" not in "".join(found)


def test_a_finding_has_mean_and_interval_within_100_percent(tmp_path: Path) -> None:
    (found,) = summary.findings(study_of(tmp_path, scored("BatchNorm", [0.85, 0.95])))
    assert found == "MLP on Digits: BatchNorm reaches 90.0% test accuracy (95% interval 26.5 to 100.0, n = 2)."


def test_a_best_rate_at_the_edge_of_the_grid_is_a_finding(tmp_path: Path) -> None:
    runs = [Run(lr=lr, accuracy=a, val_accuracy=a) for lr, a in ((0.1, 0.5), (1.0, 0.6), (10.0, 0.7))]
    assert "is at the edge of the grid for NoNorm (10)" in summary.findings(study_of(tmp_path, runs))[-1]


def test_a_family_of_which_every_run_diverged_counts_as_guessing(tmp_path: Path) -> None:
    study = study_of(tmp_path, [Run(seed=s, diverged_at=s + 1) for s in range(2)])
    assert summary.findings(study) == ["MLP on Digits: NoNorm counts as guessing, 10.0% (all 2 seeds diverged)."]
    assert summary.diverged_lines(study) == ["NoNorm: 2 of 2 diverged, the first at step 1 (training loss nan)"]


def test_a_family_that_diverged_at_every_rate_has_no_best_one(tmp_path: Path) -> None:
    lost = [Run(lr=lr, seed=s, diverged_at=5) for lr in (0.1, 1.0, 10.0) for s in range(2)]
    assert summary.findings(study_of(tmp_path, lost)) == [
        "MLP on Digits: NoNorm counts as guessing, 10.0%, at every learning rate tried."
    ]


def test_a_family_with_half_a_grid_has_no_best_rate(tmp_path: Path) -> None:
    rates = (0.01, 0.1, 1.0)
    runs = [Run(norm, lr, seed) for norm in ("NoNorm", "BatchNorm") for lr in rates for seed in range(2)]
    for run in runs:
        Store(tmp_path).begin(run.run_id, run.spec)
    study = study_of(tmp_path, [r for r in runs if r.norm == "NoNorm" or r.lr == 0.01])
    text = "MLP on Digits: BatchNorm at learning rate 0.01 (grid incomplete: 1 of 3 rates) reaches"
    assert any(sentence.startswith(text) for sentence in summary.findings(study))
    assert "4 of 12 planned runs are missing" in summary.cautions(study)[1]


def test_a_run_that_ends_near_guessing_failed_to_learn_and_did_not_diverge(tmp_path: Path) -> None:
    runs = [Run(seed=0, diverged_at=7), Run(seed=1, diverged_at=400), Run(seed=2), Run("BatchNorm", diverged_at=400)]
    study = study_of(tmp_path, runs)
    plain, normalized = summary.findings(study)
    assert "n = 3, 1 diverged, 1 did not learn)" in plain
    assert normalized.endswith("counts as guessing, 10.0% (the seed did not learn).")
    assert summary.diverged_lines(study) == [
        "NoNorm: 1 of 3 diverged, the first at step 7 (training loss nan); 1 of 3 did not learn",
        "BatchNorm: 1 of 1 did not learn",
    ]
    assert [(row["diverged"], row["not_learned"]) for row in summary.arm_rows(study.runs)] == [(1, 1), (0, 1)]
    assert dict(summary.facts(study))["Runs"] == "4 of 4 finished, 1 of them diverged, 2 did not learn"


def test_the_facts_name_the_batches_whose_statistics_evaluations_use(tmp_path: Path) -> None:
    by_batch = (("track_running_stats", False),)
    new = [Run("BatchNorm", norm_fields=by_batch, fields=(("evaluation.batch_size", size),)) for size in (64, 4)]
    old = Run("BatchNorm", norm_fields=by_batch)
    assert "Evaluation" not in dict(summary.facts(study_of(tmp_path / "plain", [Run("NoNorm"), Run("BatchNorm")])))
    assert dict(summary.facts(study_of(tmp_path / "both", [Run("NoNorm"), old, *new])))["Evaluation"] == (
        "norms without running statistics use those of random batches of at most 4, 64 images and of class-balanced "
        "parts of 256 images (by an earlier version)"
    )


def test_findings_are_those_of_the_rates_that_the_other_seeds_choose(tmp_path: Path) -> None:
    scores = {0.1: [0.9, 0.5, 0.5], 1.0: [0.6, 0.6, 0.6]}  # without seed 0 the second is best, without others the first
    runs = [Run(lr=lr, seed=s, accuracy=a, val_accuracy=a) for lr, of in scores.items() for s, a in enumerate(of)]
    (found,) = summary.findings(study_of(tmp_path, runs))
    assert f"at its best learning rate, 0.1 (2 seeds) or 1 (1), reaches {100 * (0.6 + 0.5 + 0.5) / 3:.1f}%" in found


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (1, ["only one seed; at least 10 are needed."]),
        (5, ["With 5 seeds 0.062 is the smallest p there is, above the level of 0.05."]),
        (9, ["only 9 seeds; at least 10 are needed. With 9 seeds 0.0039 is the smallest p there is."]),
        (10, []),
    ],
)
def test_fewer_than_10_seeds_are_a_smoke_test(tmp_path: Path, seeds: int, expected: list[str]) -> None:
    found = summary.cautions(study_of(tmp_path, [Run(seed=s, total=20) for s in range(seeds)]))
    assert len(found) == len(expected)
    assert all(text in sentence for text, sentence in zip(expected, found, strict=True))


def test_all_cautions_that_apply_are_given(sweep: StudyData, tmp_path: Path) -> None:
    smoke, missing = summary.cautions(sweep)
    assert "only 2 seeds" in smoke
    assert missing == "1 of 48 planned runs is missing: all results may change."
    failed = Run(seed=10, total=20)
    Store(tmp_path).begin(failed.run_id, failed.spec).error.write_text("RuntimeError: no memory")
    study = study_of(tmp_path, [Run(seed=s, total=20) for s in range(10)])
    assert summary.cautions(study) == ["1 of 11 planned runs is missing (1 failed): all results may change."]


def test_the_table_has_every_arm_and_marks_the_best_rates(sweep: StudyData) -> None:
    rows = summary.arm_rows(sweep.runs)
    assert [r["arm"] for r in rows if r["chosen"]] == ["NoNorm, lr=0.1", "BatchNorm, lr=0.3"]
    assert len(rows) == 16
    assert sum(r["diverged"] for r in rows) == 12
    naive = mean_interval(sweep.runs.query("arm == 'NoNorm, lr=0.1'")["test_accuracy"])
    row = next(r for r in rows if r["arm"] == "NoNorm, lr=0.1")
    assert row["test"] == f"{100 * naive.mean:.1f}%"
    assert row["interval"] == f"{100 * naive.low:.1f} to {100 * naive.high:.1f}"


def test_facts_describe_runs_seeds_data_and_versions(sweep: StudyData) -> None:
    facts = dict(summary.facts(sweep))
    assert facts["Runs"] == "47 of 48 finished, 12 of them diverged"
    assert facts["Seeds"] == "3 (0 to 2)"
    assert facts["Data"] == "Digits (1150 training, 287 validation, 360 test images)"
    assert facts["Versions"] == "bnstudy 0.1.0, python 3.12.3, torch 2.15.0"


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (125, "2 min"), (3720, "1 h 2 min")])
def test_durations_are_in_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert summary.duration(seconds) == text


def test_seeds_added_after_looking_are_a_caution(sweep: StudyData) -> None:
    added = [line for line in summary.cautions(replace(sweep, looks="repeated")) if line not in summary.cautions(sweep)]
    assert len(added) == 1
    assert added[0].startswith("The number of seeds was not fixed in advance")


def probed(**columns: list) -> pd.DataFrame:
    table = pd.DataFrame({"panel": ["MLP on Digits", "MLP on Digits", "VGG on Digits"], "seconds.total": [10.0, 20, 5]})
    return table.assign(**{f"probe_seconds.{name}": seconds for name, seconds in columns.items()})


def test_overhead_is_a_mean_over_the_runs_with_the_probe() -> None:
    rows = summary.probe_overhead(probed(norms=[1.0, 4.0, None], sharpness=[5.0, None, 0.5]))
    assert [tuple(row.values()) for row in rows] == [
        ("MLP on Digits", "sharpness", 1, "5", "50.0%"),
        ("MLP on Digits", "norms", 2, "2.5", "15.0%"),  # the mean of 10% and 20%
        ("MLP on Digits", "all probes", 2, "5", "40.0%"),  # of 60% and 20%
        ("VGG on Digits", "sharpness", 1, "0.5", "10.0%"),
    ]


def test_runs_without_probes_have_no_overhead() -> None:
    assert summary.probe_overhead(probed()) == summary.probe_overhead(probed(old=[None, None, None])) == []


@pytest.mark.parametrize("n", [1, 2])
def test_runs_that_an_earlier_version_stopped_at_one_large_loss_are_named(tmp_path: Path, n: int) -> None:
    runs = [Run(seed=s, diverged_at=7 if s < n else None) for s in range(3)]
    ids = synthetic.write(tmp_path, runs)
    for run_id in ids[:n]:
        synthetic.edit_summary(tmp_path, run_id, diverged_because="training loss above 10 times the initial")
    synthetic.plan(tmp_path, "s", ids)
    study = load_study(tmp_path, "s")
    text = summary.cautions(study)[-1]
    assert text.startswith(f"An earlier version stopped {n} run{'s' if n > 1 else ''} at the first training loss above")
    assert all(run_id in text for run_id in ids[:n])
    assert text.endswith(study.commands[-1])
    assert not any("earlier version" in line for line in summary.cautions(study_of(tmp_path / "new", runs)))
