from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bnstudy.data.dataset import Dataset, DecodedImages, Split, assemble, moments, stratified_order, stratified_split
from tests.conftest import CPU


def test_the_moments_of_the_training_split_normalize_all_splits(dataset, decoded):
    train = decoded.train_x[:30].double() / 255
    mean, std = train.mean((0, 2, 3)), train.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(dataset.mean, dtype=torch.float64), mean)
    torch.testing.assert_close(torch.tensor(dataset.std, dtype=torch.float64), std)
    assert (dataset.train.x.dtype, dataset.train.y.dtype) == (torch.float32, torch.int64)
    for split, raw in [
        (dataset.train, decoded.train_x[:30]),
        (dataset.val, decoded.train_x[30:]),
        (dataset.test, decoded.test_x[stratified_order(decoded.test_y)]),
    ]:
        expected = (raw.double() / 255 - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(split.x, expected.float())


def test_black_is_the_normalized_value_of_a_black_pixel(decoded):
    decoded.train_x[0, :, 2, 3] = 0
    dataset = assemble("noise", decoded, torch.arange(30), torch.arange(30, 40), CPU)
    assert torch.equal(dataset.black, dataset.train.x[0, :, 2, 3])


@pytest.mark.parametrize(("scale", "expected"), [("unit", lambda x: x / 255), ("centred", lambda x: x / 127.5 - 1)])
def test_other_scales_do_not_depend_on_the_images(decoded, scale, expected):
    decoded.train_x[0, :, 2, 3] = 0
    dataset = assemble("noise", decoded, torch.arange(30), torch.arange(30, 40), CPU, scale)
    torch.testing.assert_close(dataset.train.x, expected(decoded.train_x[:30].double()).float())
    torch.testing.assert_close(dataset.val.x, expected(decoded.train_x[30:].double()).float())
    assert torch.equal(dataset.black, dataset.train.x[0, :, 2, 3])
    standardized = assemble("noise", decoded, torch.arange(30), torch.arange(30, 40), CPU)
    assert dataset.checksum == standardized.checksum  # the images are the same


def test_levels_have_mean_0_and_differ_by_whole_numbers(decoded):
    x = assemble("noise", decoded, torch.arange(30), torch.arange(30, 40), CPU, "levels").train.x
    raw = decoded.train_x[:30].float()
    torch.testing.assert_close(x, raw - raw.mean((0, 2, 3), keepdim=True), rtol=0, atol=1e-4)


def test_a_constant_channel_has_std_1():
    x = torch.zeros(4, 2, 3, 3, dtype=torch.uint8)
    x[:, 1] = 51
    assert moments(x) == ((0.0, 51 / 255), (1.0, 1.0))


def labels(*sizes: int) -> Tensor:
    """Labels with one class of each size, in blocks, as in a folder of images."""
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def test_a_stratified_order_is_a_fixed_permutation():
    y = labels(7, 30, 13)
    order = stratified_order(y)
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, stratified_order(y))
    assert order.tolist() != list(range(50))


@pytest.mark.parametrize("sizes", [(100, 100, 100), (300, 100, 20), (50,) * 100])
def test_every_prefix_of_a_stratified_order_is_stratified(sizes):
    y = labels(*sizes)
    order = stratified_order(y)
    for m in range(1, len(y)):
        counts = y[order[:m]].bincount(minlength=len(sizes))
        expected = torch.tensor(sizes) * (m / len(y))
        assert (counts - expected).abs().max() <= 1.5


def test_a_split_is_disjoint_complete_and_stratified():
    y = labels(400, 200, 100)
    val, train = stratified_split(y, 0.1)
    assert y[val].bincount().tolist() == [40, 20, 10]
    assert sorted([*val.tolist(), *train.tolist()]) == list(range(700))


@pytest.mark.parametrize(("fraction", "size"), [(0.001, 1), (0.999, 9)])
def test_no_part_of_a_split_is_empty(fraction, size):
    assert [len(part) for part in stratified_split(labels(5, 5), fraction)] == [size, 10 - size]


def test_a_dataset_without_a_checksum_has_one_of_its_splits():
    x, y = torch.randn(12, 1, 2, 2), torch.arange(12) % 3

    def checksum(x: Tensor, y: Tensor, n: int = 6) -> str:
        return Dataset(
            "mine", 3, Split(x[:n], y[:n]), Split(x[n:9], y[n:9]), Split(x[9:], y[9:]), (0.0,), (1.0,)
        ).checksum

    naive = hashlib.sha256()
    for images, labels in ((x[:6], y[:6]), (x[6:9], y[6:9]), (x[9:], y[9:])):
        naive.update(str(tuple(images.shape)).encode() + images.numpy().tobytes())
        naive.update(str(tuple(labels.shape)).encode() + labels.numpy().tobytes())
    assert checksum(x, y) == checksum(x.mT.contiguous().mT, y) == f"splits:{naive.hexdigest()}"
    others = [(x.flip(0), y), (x, y.flip(0)), (x + 1e-6, y), (x.view(12, 1, 1, 4), y), (x, y, 5)]
    assert len({checksum(x, y), *(checksum(*other) for other in others)}) == 1 + len(others)
    target = Dataset("mine", 1, *[Split(x, x[:, 0, 0])] * 3, (0.0,), (1.0,), checksum="given")
    assert target.checksum == "given"


def test_guessing_names_the_most_frequent_class_of_each_split(dataset):
    expected = {name: max(getattr(dataset, name).y.tolist().count(k) for k in (0, 1)) / 10 for name in ("val", "test")}
    assert dataset.guessing == pytest.approx(expected)
    values = replace(dataset, train=replace(dataset.train, y=torch.zeros(30, 2)))
    assert values.guessing == {"val": None, "test": None}


@pytest.mark.parametrize(
    ("sizes", "unbalanced"), [((30, 30), False), ((30, 20), False), ((31, 20), True), ((30, 30, 0), True)]
)
def test_classes_are_unbalanced_if_the_largest_has_more_than_one_and_a_half_times_the_smallest(sizes, unbalanced):
    y = labels(*sizes)
    x = torch.zeros(len(y), 1, 2, 2, dtype=torch.uint8)
    decoded = DecodedImages(x, y, x, y, tuple("abc"[: len(sizes)]))
    made = assemble("made", decoded, torch.arange(1, len(y)), torch.arange(1), CPU)
    assert made.is_unbalanced is unbalanced
    assert not replace(made, is_learnable=False).is_unbalanced


def test_a_small_subset_of_balanced_classes_is_balanced(digits):
    few = replace(digits.train, x=digits.train.x[:15], y=digits.train.y[:15])
    assert few.y.bincount(minlength=10).max() > 1.5 * few.y.bincount(minlength=10).min()
    assert not replace(digits, train=few).is_unbalanced
