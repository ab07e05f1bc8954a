from __future__ import annotations

import pytest
import torch

from bnstudy.data.augment import crop_flip, draw_epoch
from bnstudy.data.batches import BatchStack, BatchStream
from bnstudy.data.dataset import Dataset
from bnstudy.rng import stream


def test_a_batch_is_the_next_stretch_of_the_epochs_order(dataset: Dataset) -> None:
    batches = BatchStream(dataset, "none", batch_size=8, seed=5)
    assert batches.steps_per_epoch == 3
    for step in range(9):
        epoch, batch = divmod(step, 3)
        order = torch.randperm(30, generator=stream(5, "order", epoch))
        index = order[8 * batch : 8 * batch + 8]
        x, y = batches(step)
        assert torch.equal(x, dataset.train.x[index])
        assert torch.equal(y, dataset.train.y[index])


def test_an_augmented_batch_is_the_plain_one_with_the_epochs_draws(dataset: Dataset) -> None:
    plain = BatchStream(dataset, "none", batch_size=8, seed=5)
    augmented = BatchStream(dataset, "crop_flip", batch_size=8, seed=5)
    for step in (0, 2, 4):
        epoch, batch = divmod(step, 3)
        draws = draw_epoch(30, height=6, seed=5, epoch=epoch).at(slice(8 * batch, 8 * batch + 8))
        assert torch.equal(augmented(step)[0], crop_flip(plain(step)[0], draws, dataset.black))
        assert torch.equal(augmented(step)[1], plain(step)[1])


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_a_resumed_run_gets_the_same_batches(dataset: Dataset, augment: str) -> None:
    through = [BatchStream(dataset, augment, 7, seed=0)(step) for step in range(10)]
    resumed = BatchStream(dataset, augment, 7, seed=0)
    for step in (9, 3, 8, 0):
        assert all(torch.equal(a, b) for a, b in zip(resumed(step), through[step], strict=True))


def test_an_epoch_holds_no_image_twice(dataset: Dataset) -> None:
    batches = BatchStream(dataset, "none", batch_size=7, seed=1)
    chosen = torch.cat([batches.select(step)[0] for step in range(batches.steps_per_epoch)])
    assert len(set(chosen.tolist())) == 28


def test_seeds_and_epochs_have_orders_of_their_own(dataset: Dataset) -> None:
    orders = [BatchStream(dataset, "none", 30, seed).select(step)[0] for seed, step in [(0, 0), (0, 1), (1, 0)]]
    assert len({tuple(order.tolist()) for order in orders}) == 3


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_a_stack_holds_the_batches_of_its_runs_bit_for_bit(dataset: Dataset, augment: str) -> None:
    seeds = [3, 0, 3]
    stack = BatchStack(dataset, augment, 8, seeds)
    for step in (0, 2, 3, 1):
        x, y = stack.gather(*stack.select(step))
        assert x.shape == (3, 8, 3, 6, 5)
        for run, seed in enumerate(seeds):
            x_alone, y_alone = BatchStream(dataset, augment, 8, seed)(step)
            assert torch.equal(x[run], x_alone)
            assert torch.equal(y[run], y_alone)


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_the_runs_that_stay_keep_their_batches_within_an_epoch(dataset: Dataset, augment: str) -> None:
    stack = BatchStack(dataset, augment, 8, [0, 1, 2])
    before = stack.gather(*stack.select(1))
    stack.keep([2, 0, 2])
    after = stack.gather(*stack.select(1))
    for ours, theirs in zip(after, before, strict=True):
        assert torch.equal(ours, theirs[[2, 0, 2]])
