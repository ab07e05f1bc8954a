from __future__ import annotations

import itertools

import pytest

from bnstudy.claims.frames import StudyData
from bnstudy.report.reproductions.batch_sizes import ERRORS, WuHeBatches
from tests.report.reproductions.synthetic_study import reproduction, study


def data_of(
    errors: dict[str, dict[int, float]], batches: tuple[int, ...] = (32, 8, 4, 2), lr: float = 0.1
) -> StudyData:
    """Seeds differ in the level of their errors, and a little in the differences between the norms."""
    runs = [
        {
            "norm": norm, "batch_size": batch, "seed": seed, "lr": lr,
            "test_accuracy": 1 - (errors[norm][batch] + 5 * seed + 0.1 * (norm == "BatchNorm") * (seed % 2)) / 100,
        }
        for norm, batch, seed in itertools.product(errors, batches, range(5))
    ]  # fmt: skip
    return study("wu_he_batches", runs, [])


def test_the_published_errors_meet_the_published_trend():
    result = reproduction(data_of(ERRORS))
    assert [(c.arm, c.expected.label, c.result) for c in result.checks] == [
        ("batch size 8", "above 0 (published: 1.3) (n)", "met"),
        ("batch size 4", "above 0 (published: 3.6) (n)", "met"),
        ("batch size 2", "above 0 (published: 11.1) (n)", "met"),
        ("batch size 4 minus 8", "above 0 (published: 2.3) (n)", "met"),
        ("batch size 2 minus 4", "above 0 (published: 7.5) (n)", "met"),
    ]
    assert result.conclusions[0] == (
        "GroupNorm: test error 34.1% at batch size 32, 34.1% at 2; published 24.1% and 24.1%."
    )
    assert result.draw() is not None


def test_errors_that_grow_with_both_norms_do_not_meet_the_trend():
    both = dict.fromkeys(ERRORS, ERRORS["BatchNorm"])
    shrinking = {"BatchNorm": ERRORS["GroupNorm"], "GroupNorm": ERRORS["BatchNorm"]}
    assert {c.result for c in reproduction(data_of(both)).checks} == {"undecided"}
    assert {c.result for c in reproduction(data_of(shrinking)).checks} == {"not met"}


def test_the_cost_of_small_batches_is_a_difference_of_differences_by_seed():
    assert WuHeBatches(data_of(ERRORS)).cost(2).mean == pytest.approx(11.1)


def test_only_the_published_learning_rate_counts():
    one, other = data_of(ERRORS), data_of(dict.fromkeys(ERRORS, ERRORS["GroupNorm"]), lr=1.0)
    runs = [*one.runs.to_dict("records"), *other.runs.to_dict("records")]
    assert [c.result for c in reproduction(study("wu_he_batches", runs, [])).checks] == ["met"] * 5


def test_without_the_reference_batch_size_nothing_is_decided():
    checks = reproduction(data_of(ERRORS, batches=(4, 2))).checks
    assert [c.result for c in checks] == ["no data", "no data", "met"]
