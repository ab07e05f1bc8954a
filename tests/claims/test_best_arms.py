from __future__ import annotations

import pandas as pd

from bnstudy.claims.best_arms import best_arms


def frame(rows: list[tuple], columns: str = "family lr seed score diverged") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns.split())
    return table.assign(
        panel="p",
        norm=table["family"],
        norm_label=table["family"],
        rest="",
        arm=table["family"] + table["lr"].astype(str),
    )


def test_the_best_learning_rate_is_chosen_on_validation_not_on_test() -> None:
    runs = frame([("BN", 0.1, 0, 0.8, False), ("BN", 1.0, 0, 0.7, False)]).assign(test_accuracy=[0.1, 0.99])
    assert best_arms(runs)["lr"].tolist() == [0.1]


def test_the_smaller_of_equally_good_rates_is_chosen_and_rates_at_the_edge_are_marked() -> None:
    rows = [("a", lr, 0, acc, False) for lr, acc in ((0.1, 0.9), (1.0, 0.9), (10.0, 0.5))]
    rows += [("b", lr, 0, acc, False) for lr, acc in ((0.1, 0.5), (1.0, 0.9), (10.0, 0.5))]
    best = best_arms(frame(rows)).set_index("family")
    assert best["lr"].to_dict() == {"a": 0.1, "b": 1.0}
    assert best["edge"].to_dict() == {"a": True, "b": False}
    assert not best_arms(frame(rows[:2]))["edge"].any()
