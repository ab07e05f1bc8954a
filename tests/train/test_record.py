from __future__ import annotations

import math

import pytest
import torch

from bnstudy.train.record import Record
from tests.conftest import CPU


def record(*losses: list[float], total: int = 6) -> Record:
    """A record of as many runs as there are lists of losses."""
    made = Record(total, len(losses), CPU)
    made.losses[: len(losses[0])] = torch.tensor(losses).T
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
    assert record(losses).first_bad_steps(len(losses)).get(0) == expected


def test_each_run_diverges_on_its_own():
    made = record([2.0, 1.0, 19.9], [2.0, 20.1, math.nan], [0.1, 1.0, 1.1])
    assert made.first_bad_steps(2) == {1: (1, "training loss above 10 times the initial")}
    assert made.first_bad_steps(3).keys() == {1, 2}


def test_the_table_is_tidy_and_ends_where_the_run_does():
    made = record([3.0, 2.0, 1.0])
    made.add(0, "val", "accuracy", {"": torch.tensor(0.1)})
    made.add(2, "", "grad_norm", {"": torch.tensor(5.0), "out": torch.tensor(4.0)})
    made.add(3, "val", "accuracy", {"": torch.tensor(0.9)})
    made.flush()
    frame = made.metrics(0, until=2, steps_per_epoch=2).to_pandas()
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
    assert made.latest(0, "val", "accuracy", until=2) == pytest.approx(0.1)
    assert math.isnan(made.latest(0, "test", "accuracy", until=2))


def test_timings_are_cumulative_with_a_mean_per_update():
    made = record([1.0])
    made.timing += [(0, 0.0), (2, 0.5), (6, 2.5)]
    frame = made.timings(until=6).to_pandas()
    assert frame.seconds.tolist() == [0, 0.5, 2.5]
    assert frame.step_seconds.tolist()[1:] == [0.25, 0.5]


def two_runs() -> Record:
    made = record([3.0, 2.0], [5.0, 4.0])
    made.add(1, "val", "loss", {"": torch.tensor([1.5, 2.5])})
    made.add(1, "", "grad_norm", {"": torch.tensor([0.5, 0.75]), "out": torch.tensor([0.25, 0.0])})
    made.timing.append((1, 0.5))
    made.flush()
    return made


@pytest.mark.parametrize("run", [0, 1])
def test_a_runs_table_is_the_one_it_would_have_alone(run):
    both, alone = two_runs(), record([[3.0, 2.0], [5.0, 4.0]][run])
    alone.add(1, "val", "loss", {"": torch.tensor([1.5, 2.5][run])})
    alone.add(1, "", "grad_norm", {"": torch.tensor([0.5, 0.75][run]), "out": torch.tensor([0.25, 0.0][run])})
    alone.flush()
    assert both.metrics(run, 1, 3).equals(alone.metrics(0, 1, 3))
    assert both.series(run, "", "grad_norm", 1) == alone.series(0, "", "grad_norm", 1)


def test_the_runs_that_stay_keep_what_is_theirs():
    before, after = two_runs(), two_runs()
    after.add(2, "val", "loss", {"": torch.tensor([7.0, 8.0])})
    after.keep([1])
    assert after.metrics(0, 1, 3).equals(before.metrics(1, 1, 3))
    assert after.latest(0, "val", "loss", 2) == 8


def test_a_record_survives_its_state():
    made, again = two_runs(), Record(6, 2, CPU)
    again.load([made.state(0), made.state(1)])
    for run in (0, 1):
        assert again.metrics(run, 1, 3).equals(made.metrics(run, 1, 3))
    assert again.timing == made.timing


def test_runs_may_go_on_in_other_company():
    made, again = two_runs(), Record(6, 3, CPU)
    again.load([made.state(run) for run in (1, 1, 0)])
    assert again.metrics(0, 1, 3).equals(made.metrics(1, 1, 3))
    assert again.metrics(2, 1, 3).equals(made.metrics(0, 1, 3))
