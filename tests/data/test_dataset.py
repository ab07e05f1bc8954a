from __future__ import annotations

import torch

from bnstudy.data.dataset import Dataset, DecodedImages, assemble, moments, stratified_order


def test_the_training_split_is_normalized_per_channel(dataset: Dataset) -> None:
    x = dataset.train.x
    assert x.dtype == torch.float32
    assert dataset.train.y.dtype == torch.int64
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3))


def test_all_splits_are_normalized_by_the_training_split(dataset: Dataset, decoded: DecodedImages) -> None:
    train = decoded.train_x[:30].double() / 255
    mean, std = train.mean((0, 2, 3)), train.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(dataset.mean, dtype=torch.float64), mean)
    torch.testing.assert_close(torch.tensor(dataset.std, dtype=torch.float64), std)
    for split, raw in [
        (dataset.val, decoded.train_x[30:]),
        (dataset.test, decoded.test_x[stratified_order(decoded.test_y)]),
    ]:
        by_hand = (raw.double() / 255 - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(split.x, by_hand.float())


def test_black_is_what_a_black_pixel_becomes(decoded: DecodedImages, cpu: torch.device) -> None:
    decoded.train_x[0, :, 2, 3] = 0
    dataset = assemble("noise", decoded, torch.arange(30), torch.arange(30, 40), cpu)
    assert torch.equal(dataset.black, dataset.train.x[0, :, 2, 3])


def test_a_constant_channel_has_std_one() -> None:
    x = torch.zeros(4, 2, 3, 3, dtype=torch.uint8)
    x[:, 1] = 51
    assert moments(x) == ((0.0, 51 / 255), (1.0, 1.0))


def test_a_dataset_says_its_shape_and_sizes(dataset: Dataset, decoded: DecodedImages) -> None:
    assert dataset.shape == (3, 6, 5)
    assert dataset.classes == 2
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [30, 10, 10]
    assert dataset.checksum == decoded.checksum
