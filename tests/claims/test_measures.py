from __future__ import annotations

import pandas as pd
import pytest

from bnstudy.claims.measures import MEASURES, dead_units_at_end, mean_training_loss, sentence
from bnstudy.stats.intervals import mean_interval, paired_difference

METRICS = pd.DataFrame(
    [
        ("a", 0, "train", "loss", "", 3.0),
        ("a", 1, "train", "loss", "", 1.0),
        ("a", 1, "val", "loss", "", 9.0),
        ("a", 2, "", "dead_share", "", 0.25),
        ("a", 0, "", "dead_share", "", 0.5),
        ("a", 2, "", "dead_share", "hidden1", 0.9),
        ("b", 0, "train", "loss", "", 5.0),
    ],
    columns=["run_id", "step", "split", "metric", "layer", "value"],
)


def test_the_mean_training_loss_is_over_all_updates():
    assert mean_training_loss(METRICS).to_dict() == {"a": 2.0, "b": 5.0}


def test_dead_units_are_those_of_the_whole_network_after_the_last_update():
    assert dead_units_at_end(METRICS).to_dict() == {"a": 0.25}


def test_a_sentence_gives_means_and_the_paired_difference():
    values = {"plain": pd.Series({0: 0.4, 1: 0.5, 2: 0.6}), "bn": pd.Series({0: 0.1, 1: 0.3, 2: 0.2})}
    told = sentence(MEASURES[0], "", values, {"plain": "NoNorm", "bn": "BatchNorm"}, {"bn": "plain"})
    mean, difference = mean_interval(values["bn"]), paired_difference(values["bn"], values["plain"])
    assert f"BatchNorm 0.200 (95% interval {mean.low:.3f} to {mean.high:.3f})" in told
    assert f"paired, -0.300 (95% interval {difference.low:.3f} to {difference.high:+.3f})" in told


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_one_seed_has_no_interval(measure):
    told = sentence(measure, "", {"plain": pd.Series({0: 0.4})}, {"plain": "NoNorm"}, {})
    assert "interval" not in told
    assert told.endswith(f"NoNorm {measure.text(0.4)}.")
