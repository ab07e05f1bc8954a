"""Which arm of a family is the best, and what it is compared with."""

from __future__ import annotations

import math

import pandas as pd

from bnstudy.claims import best_arms


def frame(rows: list[tuple], columns: str = "family lr seed score diverged") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns.split())
    return table.assign(
        panel="p",
        norm=table["family"],
        norm_label=table["family"],
        rest="",
        arm=table["family"] + table["lr"].astype(str),
    )


def best(rows: list[tuple[str, str, str]], labels: list[str] | None = None) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["arm", "norm", "rest"])
    return table.assign(panel="p", family=table["arm"], norm_label=table["norm"] if labels is None else labels)


def test_the_best_learning_rate_is_chosen_on_validation_not_on_test() -> None:
    runs = frame([("BN", 0.1, 0, 0.8, False), ("BN", 1.0, 0, 0.7, False)]).assign(test_accuracy=[0.1, 0.99])
    assert best_arms.best_arms(runs)["lr"].tolist() == [0.1]


def test_the_smaller_of_equally_good_rates_is_chosen_and_edges_are_told() -> None:
    rows = [("a", lr, 0, acc, False) for lr, acc in ((0.1, 0.9), (1.0, 0.9), (10.0, 0.5))]
    rows += [("b", lr, 0, acc, False) for lr, acc in ((0.1, 0.5), (1.0, 0.9), (10.0, 0.5))]
    best = best_arms.best_arms(frame(rows)).set_index("family")
    assert best["lr"].to_dict() == {"a": 0.1, "b": 1.0}
    assert best["edge"].to_dict() == {"a": True, "b": False}
    assert not best_arms.best_arms(frame(rows[:2]))["edge"].any()


def test_the_tolerated_rate_needs_every_smaller_one_too() -> None:
    def at(family: str, lr: float, diverged: int) -> list[tuple]:
        return [(family, lr, seed, 0.5, seed < diverged) for seed in range(5)]

    rows = [*at("gap", 0.1, 0), *at("gap", 1, 2), *at("gap", 10, 0)]
    rows += [*at("fine", 0.1, 1), *at("fine", 1, 0), *at("never", 0.1, 5), *at("never", 1, 0), *at("one", 1, 0)]
    table = best_arms.tolerated_rates(frame(rows)).set_index("family")
    assert table["lr"].drop("never").to_dict() == {"gap": 0.1, "fine": 1}
    assert math.isnan(table.loc["never", "lr"])
    assert table["is_largest"].to_dict() == {"gap": False, "fine": True, "never": False}


def test_the_baseline_is_the_unnormalized_arm_that_is_otherwise_alike() -> None:
    rows = [("n1", "NoNorm", "g=1"), ("n2", "NoNorm", "g=2"), ("b1", "BatchNorm", "g=1"), ("b2", "BatchNorm", "g=2")]
    assert best_arms.baselines(best(rows)) == {"b1": "n1", "b2": "n2"}
    assert best_arms.baselines(best([*rows, ("b3", "BatchNorm", "g=3")])) == {"b1": "n1", "b2": "n2"}


def test_without_an_unnormalized_arm_the_first_is_the_baseline() -> None:
    sides = best([("before", "BatchNorm", ""), ("after", "BatchNorm", "")], labels=["before", "after"])
    assert best_arms.baselines(sides) == {"after": "before"}
    gains = best([("a", "NoNorm", "g=1"), ("b", "NoNorm", "g=2")])
    assert best_arms.baselines(gains) == {"b": "a"}


def test_arms_that_differ_in_more_than_the_norm_have_no_baseline() -> None:
    assert best_arms.baselines(best([("a", "NoNorm", "depth=1"), ("b", "BatchNorm", "depth=3")])) == {}
    assert best_arms.baselines(best([("a", "LayerNorm", "depth=1"), ("b", "BatchNorm", "depth=3")])) == {}
