from __future__ import annotations

import math

import pytest
import torch

from bnstudy.train.record import Record
from tests.conftest import CPU


def record(*losses: list[float], total: int = 6, steps_per_epoch: int = 2) -> Record:
    """A record with one run for each list of losses."""
    made = Record(total, steps_per_epoch, len(losses), CPU)
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
def test_a_run_diverges_at_its_first_bad_loss(losses, expected):
    assert record(losses).find_diverged(len(losses)).get(0) == expected


def test_runs_diverge_independently():
    made = record([2.0, 1.0, 19.9], [2.0, 20.1, math.nan], [0.1, 1.0, 1.1])
    assert made.find_diverged(2) == {1: (1, "training loss above 10 times the initial")}
    assert made.find_diverged(3).keys() == {1, 2}


def test_the_metrics_table_is_tidy_and_ends_with_the_run():
    made = record([3.0, 2.0, 1.0])
    made.add(0, "val", "accuracy", {"": torch.tensor(0.1)})
    made.add(2, "", "grad_norm", {"": torch.tensor(5.0), "out": torch.tensor(4.0)})
    made.add(3, "val", "accuracy", {"": torch.tensor(0.9)})
    made.flush()
    frame = made.metrics(0, until=2).to_pandas()
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


def test_timings_are_cumulative_with_the_mean_of_a_step():
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
def test_a_runs_table_does_not_depend_on_the_other_runs(run):
    both, alone = two_runs(), record([[3.0, 2.0], [5.0, 4.0]][run])
    alone.add(1, "val", "loss", {"": torch.tensor([1.5, 2.5][run])})
    alone.add(1, "", "grad_norm", {"": torch.tensor([0.5, 0.75][run]), "out": torch.tensor([0.25, 0.0][run])})
    alone.flush()
    assert both.metrics(run, 1).equals(alone.metrics(0, 1))
    assert both.series(run, "", "grad_norm", 1) == alone.series(0, "", "grad_norm", 1)


def test_runs_that_stay_keep_their_measurements():
    before, after = two_runs(), two_runs()
    after.add(2, "val", "loss", {"": torch.tensor([7.0, 8.0])})
    after.keep([1])
    assert after.metrics(0, 1).equals(before.metrics(1, 1))
    assert after.latest(0, "val", "loss", 2) == 8


@pytest.mark.parametrize("runs", [(0, 1), (1, 1, 0)])
def test_a_record_is_restored_from_the_states_of_its_runs(runs):
    made, again = two_runs(), Record(6, 2, len(runs), CPU)
    again.load([made.state(run) for run in runs])
    for i, run in enumerate(runs):
        assert again.metrics(i, 1).equals(made.metrics(run, 1))
    assert again.timing == made.timing
