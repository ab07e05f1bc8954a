from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from bnstudy.analysis import stats
from bnstudy.analysis.frames import Study


def frame(rows: list[tuple], columns: str = "family lr seed score diverged") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns.split())
    return table.assign(
        panel="p",
        norm=table["family"],
        norm_label=table["family"],
        rest="",
        arm=table["family"] + table["lr"].astype(str),
    )


def test_mean_interval_is_the_one_of_scipy() -> None:
    values = pd.Series([0.91, 0.94, 0.92, 0.97])
    found = stats.mean_interval(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.mean, found.n) == (pytest.approx(0.935), 4)


def test_two_values_have_the_closed_form() -> None:
    """With one degree of freedom t is Cauchy's: its 97.5% quantile is tan(0.475 pi)."""
    found = stats.mean_interval(pd.Series([1.0, 3.0]))
    assert found.high - found.mean == pytest.approx(math.tan(0.475 * math.pi))


def test_one_value_has_no_interval() -> None:
    found = stats.mean_interval(pd.Series([0.9]))
    assert found.mean == 0.9
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_differences_are_paired_on_shared_seeds() -> None:
    rng = np.random.default_rng(0)
    without = pd.Series(rng.normal(0.9, 0.05, 6), index=range(6))
    with_ = pd.Series(without + rng.normal(0.02, 0.002, 6), index=range(6))
    found = stats.paired_difference(with_.drop(0).sample(frac=1, random_state=1), without.drop(5))
    expected = scipy.stats.ttest_rel(with_[1:5], without[1:5]).confidence_interval(0.95)
    assert found.n == 4
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_a_seed_that_occurs_twice_cannot_be_paired() -> None:
    once, twice = pd.Series([1.0, 2.0], index=[0, 1]), pd.Series([1.0, 2.0], index=[0, 0])
    for pair in ((once, twice), (twice, once)):
        with pytest.raises(ValueError, match="occurs twice"):
            stats.paired_difference(*pair)


def test_no_shared_seed_is_no_difference() -> None:
    found = stats.paired_difference(pd.Series([1.0], index=[0]), pd.Series([1.0], index=[1]))
    assert found.n == 0
    assert math.isnan(found.mean)


def test_summarize_agrees_with_one_group_at_a_time(sweep: Study) -> None:
    table = stats.summarize(sweep.runs, ["arm"], "test_accuracy").set_index("arm")
    for arm, runs in sweep.runs.groupby("arm", observed=True):
        row, naive = table.loc[arm], stats.mean_interval(runs["test_accuracy"])
        assert tuple(row) == pytest.approx((naive.mean, naive.low, naive.high, naive.n))


def test_the_best_learning_rate_is_chosen_on_validation_not_on_test() -> None:
    runs = frame([("BN", 0.1, 0, 0.8, False), ("BN", 1.0, 0, 0.7, False)]).assign(test_accuracy=[0.1, 0.99])
    assert stats.best_arms(runs)["lr"].tolist() == [0.1]


def test_the_smaller_of_equally_good_rates_is_chosen_and_edges_are_told() -> None:
    rows = [("a", lr, 0, acc, False) for lr, acc in ((0.1, 0.9), (1.0, 0.9), (10.0, 0.5))]
    rows += [("b", lr, 0, acc, False) for lr, acc in ((0.1, 0.5), (1.0, 0.9), (10.0, 0.5))]
    best = stats.best_arms(frame(rows)).set_index("family")
    assert best["lr"].to_dict() == {"a": 0.1, "b": 1.0}
    assert best["edge"].to_dict() == {"a": True, "b": False}
    assert not stats.best_arms(frame(rows[:2]))["edge"].any()


def test_the_tolerated_rate_needs_every_smaller_one_too() -> None:
    def at(family: str, lr: float, diverged: int) -> list[tuple]:
        return [(family, lr, seed, 0.5, seed < diverged) for seed in range(5)]

    rows = [*at("gap", 0.1, 0), *at("gap", 1, 2), *at("gap", 10, 0)]
    rows += [*at("fine", 0.1, 1), *at("fine", 1, 0), *at("never", 0.1, 5), *at("never", 1, 0), *at("one", 1, 0)]
    table = stats.tolerated_rates(frame(rows)).set_index("family")
    assert table["lr"].drop("never").to_dict() == {"gap": 0.1, "fine": 1}
    assert math.isnan(table.loc["never", "lr"])
    assert table["is_largest"].to_dict() == {"gap": False, "fine": True, "never": False}


def best(rows: list[tuple[str, str, str]], labels: list[str] | None = None) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["arm", "norm", "rest"])
    return table.assign(panel="p", family=table["arm"], norm_label=table["norm"] if labels is None else labels)


def test_the_baseline_is_the_unnormalized_arm_that_is_otherwise_alike() -> None:
    rows = [("n1", "NoNorm", "g=1"), ("n2", "NoNorm", "g=2"), ("b1", "BatchNorm", "g=1"), ("b2", "BatchNorm", "g=2")]
    assert stats.baselines(best(rows)) == {"b1": "n1", "b2": "n2"}
    assert stats.baselines(best([*rows, ("b3", "BatchNorm", "g=3")])) == {"b1": "n1", "b2": "n2"}


def test_without_an_unnormalized_arm_the_first_is_the_baseline() -> None:
    sides = best([("before", "BatchNorm", ""), ("after", "BatchNorm", "")], labels=["before", "after"])
    assert stats.baselines(sides) == {"after": "before"}
    gains = best([("a", "NoNorm", "g=1"), ("b", "NoNorm", "g=2")])
    assert stats.baselines(gains) == {"b": "a"}


def test_arms_that_differ_in_more_than_the_norm_have_no_baseline() -> None:
    assert stats.baselines(best([("a", "NoNorm", "depth=1"), ("b", "BatchNorm", "depth=3")])) == {}
    assert stats.baselines(best([("a", "LayerNorm", "depth=1"), ("b", "BatchNorm", "depth=3")])) == {}
