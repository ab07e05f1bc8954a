from __future__ import annotations

from pathlib import Path

from bnstudy.claims.frames import StudyData
from bnstudy.report.arm_tables import arm_rows, diverged_lines
from bnstudy.report.cautions import cautions
from bnstudy.report.findings import findings
from bnstudy.report.summary import facts
from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run


def scored(norm: str, scores: list[float], **fields: object) -> list[Run]:
    return [Run(norm, seed=i, accuracy=a, val_accuracy=a, **fields) for i, a in enumerate(scores)]  # type: ignore[arg-type]


def test_each_family_is_described_at_its_best_rate_on_validation(tmp_path: Path) -> None:
    runs = [
        Run("BatchNorm", 0.1, accuracy=0.7, val_accuracy=0.9),
        Run("BatchNorm", 1.0, accuracy=0.99, val_accuracy=0.8),
    ]
    assert findings(synthetic.study_of(tmp_path, runs)) == [
        "MLP on Digits: BatchNorm at its best learning rate, 0.1, reaches 70.0% test accuracy (one seed)."
    ]


def test_findings_compare_nothing(sweep: StudyData) -> None:
    found = findings(sweep)
    assert len(found) == 2
    assert "BatchNorm at its best learning rate, 0.3 (runs incomplete: 23 of 24), reaches" in found[1]
    assert "difference" not in "".join(found)


def test_a_finding_has_mean_and_interval_within_100_percent(tmp_path: Path) -> None:
    (found,) = findings(synthetic.study_of(tmp_path, scored("BatchNorm", [0.85, 0.95])))
    assert found == "MLP on Digits: BatchNorm reaches 90.0% test accuracy (95% interval 26.5 to 100.0, n = 2)."


def test_a_best_rate_at_the_edge_of_the_grid_is_a_finding(tmp_path: Path) -> None:
    runs = [Run(lr=lr, accuracy=a, val_accuracy=a) for lr, a in ((0.1, 0.5), (1.0, 0.6), (10.0, 0.7))]
    assert "is at the edge of the grid for NoNorm (10)" in findings(synthetic.study_of(tmp_path, runs))[-1]


def test_a_family_of_which_every_run_diverged_counts_as_guessing(tmp_path: Path) -> None:
    study = synthetic.study_of(tmp_path, [Run(seed=s, diverged_at=s + 1) for s in range(2)])
    assert findings(study) == ["MLP on Digits: NoNorm counts as guessing, 10.0% (all 2 seeds diverged)."]
    assert diverged_lines(study) == ["NoNorm: 2 of 2 diverged, the first at step 1 (training loss nan)"]


def test_a_family_that_diverged_at_every_rate_has_no_best_one(tmp_path: Path) -> None:
    lost = [Run(lr=lr, seed=s, diverged_at=5) for lr in (0.1, 1.0, 10.0) for s in range(2)]
    assert findings(synthetic.study_of(tmp_path, lost)) == [
        "MLP on Digits: NoNorm counts as guessing, 10.0%, at every learning rate tried."
    ]


def test_a_family_with_half_a_grid_has_no_best_rate(tmp_path: Path) -> None:
    rates = (0.01, 0.1, 1.0)
    runs = [Run(norm, lr, seed) for norm in ("NoNorm", "BatchNorm") for lr in rates for seed in range(2)]
    for run in runs:
        Store(tmp_path).begin(run.run_id, run.spec)
    study = synthetic.study_of(tmp_path, [r for r in runs if r.norm == "NoNorm" or r.lr == 0.01])
    text = "MLP on Digits: BatchNorm at learning rate 0.01 (grid incomplete: 1 of 3 rates) reaches"
    assert any(sentence.startswith(text) for sentence in findings(study))
    assert "4 of 12 planned runs are missing" in cautions(study)[1]


def test_a_run_that_ends_near_guessing_failed_to_learn_and_did_not_diverge(tmp_path: Path) -> None:
    runs = [Run(seed=0, diverged_at=7), Run(seed=1, diverged_at=400), Run(seed=2), Run("BatchNorm", diverged_at=400)]
    study = synthetic.study_of(tmp_path, runs)
    plain, normalized = findings(study)
    assert "n = 3, 1 diverged, 1 did not learn)" in plain
    assert normalized.endswith("counts as guessing, 10.0% (the seed did not learn).")
    assert diverged_lines(study) == [
        "NoNorm: 1 of 3 diverged, the first at step 7 (training loss nan); 1 of 3 did not learn",
        "BatchNorm: 1 of 1 did not learn",
    ]
    assert [(row["diverged"], row["not_learned"]) for row in arm_rows(study.runs)] == [(1, 1), (0, 1)]
    assert dict(facts(study))["Runs"] == "4 of 4 finished, 1 of them diverged, 2 did not learn"


def test_findings_are_those_of_the_rates_that_the_other_seeds_choose(tmp_path: Path) -> None:
    scores = {0.1: [0.9, 0.5, 0.5], 1.0: [0.6, 0.6, 0.6]}  # without seed 0 the second is best, without others the first
    runs = [Run(lr=lr, seed=s, accuracy=a, val_accuracy=a) for lr, of in scores.items() for s, a in enumerate(of)]
    (found,) = findings(synthetic.study_of(tmp_path, runs))
    assert f"at its best learning rate, 0.1 (2 seeds) or 1 (1), reaches {100 * (0.6 + 0.5 + 0.5) / 3:.1f}%" in found
