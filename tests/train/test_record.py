from __future__ import annotations

import math

import pytest
import torch

from bnstudy.train.record import Record
from tests.conftest import CPU


def record(*losses: list[float], total: int = 6, steps_per_epoch: int = 2, guessing: float = math.nan) -> Record:
    """A record with one run for each list of losses."""
    made = Record(total, steps_per_epoch, len(losses), CPU, guessing)
    made.losses[: len(losses[0])] = torch.tensor(losses).T
    return made


LASTS = "training loss above 10 times the larger of the loss of guessing and the initial loss for 10 steps"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.0, *[19.9] * 12], None),
        ([2.0, 1.0, *[20.1] * 9, 1.0], None),
        ([2.0, 1.0, *[20.1] * 10, 1.0], (2, LASTS)),
        ([2.0, math.nan, 1.0], (1, "training loss nan")),
        ([2.0, math.inf], (1, "training loss inf")),
        ([2.0, *[1e9] * 9, math.nan], (10, "training loss nan")),
        ([2.0, *[1e9] * 10, math.nan], (1, LASTS)),
        ([math.nan], (0, "training loss nan")),
        ([], None),
    ],
)
def test_a_run_diverges_at_a_loss_that_is_not_finite_or_stays_large(losses, expected):
    assert record(losses, total=20).find_diverged(len(losses)).get(0) == expected


@pytest.mark.parametrize(
    ("guessing", "initial", "loss", "diverges"),
    [
        (2.3, 0.1, 22.9, False),  # an initial loss far below that of guessing
        (2.3, 0.1, 23.1, True),
        (2.3, 2500.0, 24000.0, False),  # large initial weights
        (2.3, 2500.0, 26000.0, True),
        (math.nan, 2.0, 21.0, True),
        (0.0, 2.0, 21.0, True),  # all targets are equal
        (-1.0, -2.0, 100.0, False),  # a loss of the user's that may be negative has no such bound
    ],
)
def test_the_bound_is_ten_times_the_larger_of_the_losses_of_guessing_and_of_the_start(
    guessing, initial, loss, diverges
):
    losses = [initial, *[loss] * 10]
    assert bool(record(losses, total=20, guessing=guessing).find_diverged(11)) is diverges


def test_long_runs_need_a_large_loss_for_a_hundredth_of_their_steps():
    losses = [1.0, *[11.0] * 24, 1.0, *[11.0] * 25]
    assert record(losses, total=2500).find_diverged(50) == {}
    assert record(losses, total=2500).find_diverged(51)[0][0] == 26


def first_divergence(losses: list[float], lasting: int) -> int | None:
    """Step by step: the loss is not finite, or has been above 10 times the initial one for `lasting` steps."""
    stretch = 0
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            return step
        stretch = stretch + 1 if loss > 10 * losses[0] else 0
        if stretch == lasting:
            return step - lasting + 1
    return None


def test_what_is_found_does_not_depend_on_when_it_is_looked_for():
    generator = torch.Generator().manual_seed(0)
    found = set()
    for _ in range(200):
        large = torch.rand(60, generator=generator).cumsum(0).remainder(torch.rand(1, generator=generator) * 8) > 1
        losses = torch.where(large, 11.0, 1.0)
        losses[torch.rand(60, generator=generator) < 0.01] = math.nan
        losses[0] = 1.0
        made = record(losses.tolist(), total=60)
        for done in range(61):
            expected = first_divergence(losses[:done].tolist(), lasting=10)
            assert made.find_diverged(done).get(0, (None,))[0] == expected
        found.add(expected is None)
    assert found == {True, False}


def test_runs_diverge_independently():
    made = record([2.0, 1.0, *[19.9] * 10], [2.0, 1.0, *[20.1] * 10], [0.1, math.nan, *[1.1] * 10], total=12)
    assert made.find_diverged(2).keys() == {2}
    assert made.find_diverged(12) == {1: (2, LASTS), 2: (1, "training loss nan")}


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
