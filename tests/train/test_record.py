from __future__ import annotations

import math

import pytest
import torch

from bnstudy.train.record import Record
from tests.conftest import CPU


def record(losses: list[float], total: int = 6) -> Record:
    made = Record(total, CPU)
    made.losses[: len(losses)] = torch.tensor(losses)
    return made


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.0, 19.9], None),
        ([2.0, 1.0, 20.1, 1.0], (2, "training loss above 10 times the initial")),
        ([2.0, math.nan, 1.0], (1, "training loss nan")),
        ([2.0, math.inf], (1, "training loss inf")),
        ([math.nan], (0, "training loss nan")),
        ([], None),
    ],
)
def test_divergence_is_the_first_bad_loss(losses, expected):
    assert record(losses).first_bad_step(len(losses)) == expected


def test_the_table_is_tidy_and_ends_where_the_run_does():
    made = record([3.0, 2.0, 1.0])
    made.add(0, "val", "accuracy", {"": torch.tensor(0.1)})
    made.add(2, "", "grad_norm", {"": torch.tensor(5.0), "out": torch.tensor(4.0)})
    made.add(3, "val", "accuracy", {"": torch.tensor(0.9)})
    made.flush()
    frame = made.metrics(until=2, steps_per_epoch=2).to_pandas()
    assert frame.columns.tolist() == ["step", "epoch", "split", "metric", "layer", "value"]
    assert [(r.step, r.split, r.metric, r.layer, r.value) for r in frame.itertuples()] == [
        (0, "train", "loss", "", 3.0),
        (1, "train", "loss", "", 2.0),
        (2, "train", "loss", "", 1.0),
        (0, "val", "accuracy", "", pytest.approx(0.1)),
        (2, "", "grad_norm", "", 5.0),
        (2, "", "grad_norm", "out", 4.0),
    ]
    assert frame.epoch.tolist() == [0, 0.5, 1, 0, 1, 1]
    assert made.latest("val", "accuracy", until=2) == pytest.approx(0.1)
    assert math.isnan(made.latest("test", "accuracy", until=2))


def test_timings_are_cumulative_with_a_mean_per_update():
    made = record([1.0])
    made.timing += [(0, 0.0), (2, 0.5), (6, 2.5)]
    frame = made.timings(until=6).to_pandas()
    assert frame.seconds.tolist() == [0, 0.5, 2.5]
    assert frame.step_seconds.tolist()[1:] == [0.25, 0.5]


def test_a_record_survives_its_state():
    made = record([3.0, 2.0])
    made.add(1, "val", "loss", {"": torch.tensor(1.5)})
    again = Record(6, CPU)
    again.load(made.state())
    assert again.metrics(1, 3).equals(made.metrics(1, 3))
