from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnstudy.data.dataset import DecodedImages
from bnstudy.data.equal_images import find_equal_images
from bnstudy.validation import ConfigError


def sentences(train: list[tuple[int, int]], test: list[tuple[int, int]]) -> list[str]:
    """What is said of images of one grey level each, given as (level, label)."""

    def split(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        x = torch.tensor([level for level, _ in pairs], dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        return x.contiguous(), torch.tensor([label for _, label in pairs])

    names = [f"train/{i}" for i in range(len(train))] + [f"test/{i}" for i in range(len(test))]
    return list(find_equal_images(DecodedImages(*split(train), *split(test), ("cat", "dog")), names))


def test_different_images_and_duplicates_in_a_class_are_in_order():
    assert sentences([(1, 0), (1, 0), (2, 0), (3, 1)], [(4, 0), (5, 1)]) == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_equal_images_is_refused(split):
    equal, other = [(1, 0), (1, 1), (1, 1)], [(2, 0), (3, 1)]
    with pytest.raises(ConfigError, match=rf"All 3 images in {split}/ are equal, from {split}/0 on\."):
        sentences(*((equal, other) if split == "train" else (other, equal)))


def test_a_class_of_equal_images_is_named():
    found = sentences([(1, 0), (2, 0), (3, 1), (3, 1)], [(4, 0), (4, 0), (5, 1)])
    assert found == ["In 2 class folders all images are equal: first train/dog."]


def test_test_images_that_are_training_images_are_counted():
    found = sentences([(1, 0), (2, 0), (3, 1), (6, 1)], [(4, 0), (3, 1), (6, 1), (2, 0), (5, 1)])
    assert found == ["3 of 5 test images are training images, too: first test/1 = train/2."]


def test_equal_images_under_two_labels_are_counted():
    found = sentences([(1, 0), (2, 0), (3, 1), (1, 1), (1, 0)], [(4, 0), (5, 1)])
    assert found == ["3 images have an equal one in another class: first train/0 = train/3."]
