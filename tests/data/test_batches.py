from __future__ import annotations

import pytest
import torch

from bnstudy.data.augment import crop_flip, draw_epoch, keep_rows
from bnstudy.data.base import Length
from bnstudy.data.batches import BatchStack, BatchStream
from bnstudy.rng import stream


def test_batches_follow_the_order_of_their_epoch(dataset):
    batches = BatchStream(dataset, "none", batch_size=8, seed=5)
    assert batches.steps_per_epoch == 3
    for step in range(9):
        epoch, batch = divmod(step, 3)
        order = torch.randperm(30, generator=stream(5, "order", epoch))
        index = order[8 * batch : 8 * batch + 8]
        x, y = batches(step)
        assert torch.equal(x, dataset.train.x[index])
        assert torch.equal(y, dataset.train.y[index])


def test_augmentation_applies_the_draws_of_the_epoch_to_the_batch(dataset):
    plain = BatchStream(dataset, "none", batch_size=8, seed=5)
    augmented = BatchStream(dataset, "crop_flip", batch_size=8, seed=5)
    for step in (0, 2, 4):
        epoch, batch = divmod(step, 3)
        of_epoch = draw_epoch(30, height=6, augment="crop_flip", length=None, seed=5, epoch=epoch)
        draws = {name: t[8 * batch : 8 * batch + 8] for name, t in of_epoch.items()}
        assert torch.equal(augmented(step)[0], crop_flip(plain(step)[0], draws, dataset.black))
        assert torch.equal(augmented(step)[1], plain(step)[1])


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_batches_can_be_requested_in_any_order(dataset, augment):
    in_order = [BatchStream(dataset, augment, 7, seed=0)(step) for step in range(10)]
    batches = BatchStream(dataset, augment, 7, seed=0)
    for step in (9, 3, 8, 0):
        assert all(torch.equal(a, b) for a, b in zip(batches(step), in_order[step], strict=True))


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_a_stack_has_the_batches_of_its_runs_bit_for_bit(dataset, augment):
    seeds = [3, 0, 3]
    stack = BatchStack(dataset, augment, 8, seeds)
    for step in (0, 2, 3, 1):
        x, y = stack.gather(*stack.select(step))
        assert x.shape == (3, 8, 3, 6, 5)
        for run, seed in enumerate(seeds):
            assert all(map(torch.equal, (x[run], y[run]), BatchStream(dataset, augment, 8, seed)(step)))


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_the_remaining_runs_of_a_stack_keep_their_batches(dataset, augment):
    stack = BatchStack(dataset, augment, 8, [0, 1, 2])
    before = stack.gather(*stack.select(1))
    stack.keep([2, 0, 2])
    after = stack.gather(*stack.select(1))
    for tensor, original in zip(after, before, strict=True):
        assert torch.equal(tensor, original[[2, 0, 2]])


LENGTH = Length(min=2, max=5)


def test_an_image_shows_as_many_rows_as_were_drawn_for_it_in_the_epoch(dataset):
    plain, cut = (BatchStream(dataset, "crop_flip", 8, seed=5, length=length) for length in (None, LENGTH))
    for step in (0, 2, 4):
        epoch, batch = divmod(step, 3)
        rows = draw_epoch(30, 6, "none", LENGTH, seed=5, epoch=epoch)["rows"][8 * batch : 8 * batch + 8]
        for image, whole, n in zip(cut(step)[0], plain(step)[0], rows.tolist(), strict=True):
            assert torch.equal(image[:, :n], whole[:, :n])
            assert image[:, n:].isnan().all()
        assert torch.equal(cut(step)[1], plain(step)[1])
    assert torch.equal(keep_rows(dataset.train.x, 4)[:, :, :4], dataset.train.x[:, :, :4])
    assert keep_rows(dataset.train.x, 4)[:, :, 4:].isnan().all()


def test_a_stack_has_the_lengths_of_its_runs(dataset):
    stack = BatchStack(dataset, "none", 8, [3, 0, 3], LENGTH)
    for step in (0, 3, 1):
        x, _ = stack.gather(*stack.select(step))
        for run, seed in enumerate((3, 0, 3)):
            alone = BatchStream(dataset, "none", 8, seed, LENGTH)(step)[0]
            torch.testing.assert_close(x[run], alone, rtol=0, atol=0, equal_nan=True)
