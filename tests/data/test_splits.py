from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnstudy.data.dataset import stratified_order, stratified_split


def labels(*sizes: int) -> Tensor:
    """A class of each size, in blocks, as a folder of images has them."""
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def test_an_order_holds_every_image_once_and_is_always_the_same() -> None:
    y = labels(7, 30, 13)
    order = stratified_order(y)
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, stratified_order(y))
    assert order.tolist() != list(range(50))


@pytest.mark.parametrize("sizes", [(100, 100, 100), (300, 100, 20), (50,) * 100])
def test_every_prefix_holds_each_class_in_its_share(sizes: tuple[int, ...]) -> None:
    y = labels(*sizes)
    order = stratified_order(y)
    for m in range(1, len(y)):
        counts = y[order[:m]].bincount(minlength=len(sizes))
        shares = torch.tensor(sizes) * (m / len(y))
        assert (counts - shares).abs().max() <= 1.5


def test_a_split_is_disjoint_complete_and_stratified() -> None:
    y = labels(400, 200, 100)
    aside, others = stratified_split(y, 0.1)
    assert y[aside].bincount().tolist() == [40, 20, 10]
    assert sorted([*aside.tolist(), *others.tolist()]) == list(range(700))


@pytest.mark.parametrize(("fraction", "aside"), [(0.001, 1), (0.999, 9)])
def test_no_part_of_a_split_is_empty(fraction: float, aside: int) -> None:
    assert [len(part) for part in stratified_split(labels(5, 5), fraction)] == [aside, 10 - aside]
