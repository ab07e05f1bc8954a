from __future__ import annotations

from pathlib import Path

import pytest

from bnstudy.claims.frames import StudyData, load_study
from bnstudy.report import summary
from bnstudy.stats import intervals
from bnstudy.store.runs import Store
from tests import synthetic
from tests.synthetic import Run


def study_of(folder: Path, runs: list[Run]) -> StudyData:
    synthetic.write(folder, runs)
    return load_study(folder)


def scored(norm: str, scores: list[float], **fields: object) -> list[Run]:
    return [Run(norm, seed=i, accuracy=a, val_accuracy=a, **fields) for i, a in enumerate(scores)]  # type: ignore[arg-type]


def outcomes(study: StudyData) -> list[str]:
    """The summary on accuracies and learning rates, without those of `measures`."""
    return [told for told in summary.findings(study) if "training loss" not in told and "dead units" not in told]


def test_arms_are_compared_by_their_paired_difference(tmp_path: Path) -> None:
    study = study_of(tmp_path, [*scored("NoNorm", [0.80, 0.90]), *scored("BatchNorm", [0.85, 0.95])])
    (sentence,) = outcomes(study)
    assert sentence.startswith(
        "MLP on Digits: BatchNorm reaches 90.0% test accuracy (95% interval 26.5 to 100.0, n = 2); "
    )
    assert sentence.endswith(
        "The paired difference is +5.0 percentage points (95% interval +5.0 to +5.0, 2 shared seeds)."
    )


def test_arms_without_a_shared_seed_are_not_subtracted(tmp_path: Path) -> None:
    study = study_of(tmp_path, [Run("NoNorm", seed=0), Run("BatchNorm", seed=1)])
    assert outcomes(study)[0].endswith("They share no seed.")


def test_each_arm_is_taken_at_the_rate_that_is_best_on_validation(tmp_path: Path) -> None:
    runs = [
        Run("BatchNorm", 0.1, accuracy=0.7, val_accuracy=0.9),
        Run("BatchNorm", 1.0, accuracy=0.99, val_accuracy=0.8),
    ]
    told = outcomes(study_of(tmp_path, runs))
    assert told[0] == "MLP on Digits: BatchNorm at its best learning rate, 0.1, reaches 70.0% test accuracy (one seed)."


def test_tolerated_rates_are_told(sweep: StudyData) -> None:
    told = outcomes(sweep)
    assert told[1].startswith(
        "MLP on Digits: the largest learning rate at which, and at all smaller ones, at least 80%"
    )
    assert told[1].endswith(": NoNorm 0.3; BatchNorm 3.")
    assert len(told) == 2


def test_a_best_rate_on_the_edge_of_the_grid_is_told(tmp_path: Path) -> None:
    runs = [Run(lr=lr, accuracy=a, val_accuracy=a) for lr, a in ((0.1, 0.5), (1.0, 0.6), (10.0, 0.7))]
    assert "lies on the edge of those tried for NoNorm (10)" in outcomes(study_of(tmp_path, runs))[-1]


def test_a_family_of_which_every_run_diverged_is_told_so(tmp_path: Path) -> None:
    study = study_of(tmp_path, [Run(seed=s, diverged_at=s + 1) for s in range(2)])
    assert outcomes(study) == [
        "MLP on Digits: NoNorm counts as guessing, 10.0% (all 2 seeds diverged).",
    ]
    assert summary.diverged_lines(study) == ["NoNorm: 2 of 2 diverged, the first at update 1 (training loss nan)"]


def test_a_family_that_diverged_at_every_rate_has_no_best_one(tmp_path: Path) -> None:
    lost = [Run(lr=lr, seed=s, diverged_at=5) for lr in (0.1, 1.0, 10.0) for s in range(2)]
    (told, tolerated) = outcomes(study_of(tmp_path, lost))
    assert told == "MLP on Digits: NoNorm counts as guessing, 10.0%, at every learning rate tried."
    assert tolerated.endswith("NoNorm none of those tried.")


def test_arms_that_differ_in_more_than_the_norm_are_not_compared(tmp_path: Path) -> None:
    shallow = (("model.depth", 1), ("optim.momentum", 0.0))
    runs = [r for s in range(3) for r in (Run("NoNorm", seed=s, fields=shallow), Run("BatchNorm", seed=s))]
    told = outcomes(study_of(tmp_path, runs))
    assert len(told) == 3
    assert told[2] == (
        "MLP on Digits: BatchNorm, depth=3, optim.momentum=0.9 differs in more than the normalization from "
        "NoNorm, depth=1, optim.momentum=0: not compared."
    )
    assert "difference" not in "".join(told)


def test_half_a_grid_is_told_and_not_compared(tmp_path: Path) -> None:
    rates = (0.01, 0.1, 1.0)
    runs = [Run(norm, lr, seed) for norm in ("NoNorm", "BatchNorm") for lr in rates for seed in range(2)]
    done = [r for r in runs if r.norm == "NoNorm" or r.lr == 0.01]
    for run in runs:
        Store(tmp_path).begin(run.run_id, run.spec)
    study = study_of(tmp_path, done)
    told = outcomes(study)
    assert told[0].startswith("MLP on Digits: BatchNorm at learning rate 0.01 (grid incomplete: 1 of 3 rates) reaches")
    assert told[0].endswith("No difference is stated: what their best learning rates are is not settled.")
    assert "paired" not in "".join(told)
    assert "4 of 12 planned runs are missing" in summary.cautions(study)[1]


def test_a_rate_without_all_its_seeds_is_not_yet_the_best(sweep: StudyData) -> None:
    told = outcomes(sweep)[0]
    assert "BatchNorm at its best learning rate, 0.3 (runs incomplete: 23 of 24), reaches" in told
    assert "NoNorm at its best learning rate, 0.1, reaches" in told
    assert "paired" not in told


def test_where_no_rate_is_chosen_shared_seeds_are_compared(tmp_path: Path) -> None:
    study = study_of(tmp_path, [*scored("NoNorm", [0.8, 0.9, 0.9]), *scored("BatchNorm", [0.85, 0.95])])
    (told,) = outcomes(study)
    assert "BatchNorm (seeds incomplete: 2 of 3) reaches" in told
    assert told.endswith("2 shared seeds).")


@pytest.mark.parametrize(("seeds", "expected"), [(1, ["only one seed"]), (9, ["only 9 seeds"]), (10, [])])
def test_few_seeds_are_a_smoke_test(tmp_path: Path, seeds: int, expected: list[str]) -> None:
    found = summary.cautions(study_of(tmp_path, [Run(seed=s, total=20) for s in range(seeds)]))
    assert len(found) == len(expected)
    assert all(text in sentence for text, sentence in zip(expected, found, strict=True))


def test_all_cautions_that_apply_are_told(sweep: StudyData, tmp_path: Path) -> None:
    smoke, missing = summary.cautions(sweep)
    assert "only 2 seeds" in smoke
    assert missing == "1 of 48 planned runs is missing: everything here may change."
    failed = Run(seed=10, total=20)
    Store(tmp_path).begin(failed.run_id, failed.spec).error.write_text("RuntimeError: no memory")
    study = study_of(tmp_path, [Run(seed=s, total=20) for s in range(10)])
    assert summary.cautions(study) == ["1 of 11 planned runs is missing (1 failed): everything here may change."]


def test_the_table_has_every_arm_and_marks_the_chosen(sweep: StudyData) -> None:
    rows = summary.arm_rows(sweep.runs)
    assert [r.arm for r in rows if r.chosen] == ["NoNorm, lr=0.1", "BatchNorm, lr=0.3"]
    assert len(rows) == 16
    assert sum(r.diverged for r in rows) == 12
    naive = intervals.mean_interval(sweep.runs.query("arm == 'NoNorm, lr=0.1'")["test_accuracy"])
    row = next(r for r in rows if r.arm == "NoNorm, lr=0.1")
    assert (row.test, row.interval) == (f"{100 * naive.mean:.1f}%", f"{100 * naive.low:.1f} to {100 * naive.high:.1f}")


def test_facts_say_what_was_run(sweep: StudyData) -> None:
    told = dict(summary.facts(sweep))
    assert told["Runs"] == "47 of 48 finished, 12 of them diverged"
    assert told["Seeds"] == "3 (0 to 2)"
    assert told["Data"] == "Digits (1150 training, 287 validation, 360 test images)"
    assert told["Versions"] == "bnstudy 0.1.0, python 3.12.3, torch 2.15.0"


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (125, "2 min"), (3720, "1 h 2 min")])
def test_durations(seconds: float, text: str) -> None:
    assert summary.duration(seconds) == text


def test_what_happened_inside_is_told_of_arms_that_lost_no_run(tmp_path: Path) -> None:
    whole = [*scored("NoNorm", [0.80, 0.90]), *scored("BatchNorm", [0.85, 0.95])]
    study = study_of(tmp_path, [*whole, Run("LayerNorm", seed=0, diverged_at=30), Run("LayerNorm", seed=1)])
    told = [sentence for sentence in summary.findings(study) if sentence not in outcomes(study)]
    assert [sentence.split(": ")[1] for sentence in told] == [
        "mean training loss over all updates",
        "dead units at the end (% of all ReLU units)",
    ]
    for sentence in told:
        assert "BatchNorm minus NoNorm, paired," in sentence
        assert "LayerNorm" not in sentence
