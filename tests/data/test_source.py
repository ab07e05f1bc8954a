from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from bnstudy.data.cache import CachedData
from bnstudy.data.dataset import Dataset, DecodedImages
from bnstudy.validation import ConfigError


@dataclass(frozen=True)
class Stripes(CachedData):
    """A dataset of one's own: image i is all of the grey value i, so that an image tells where it came from."""

    val_fraction: float = field(default=0.2, kw_only=True)

    def source(self) -> str:
        return "stripes"

    def decode(self) -> DecodedImages:
        x = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
        y = torch.arange(200) % 4
        return DecodedImages(x[:160], y[:160], x[160:], y[160:], ("a", "b", "c", "d"))


def images(dataset: Dataset, split: str) -> list[int]:
    """The grey values that the split's images had, in order."""
    x = getattr(dataset, split).x[:, 0, 0, 0].double()
    return (255 * (x * dataset.std[0] + dataset.mean[0])).round().int().tolist()


@pytest.fixture
def whole(tmp_path: Path, cpu: torch.device) -> Dataset:
    return Stripes().load(tmp_path, cpu)


def test_the_splits_are_disjoint_and_complete(whole: Dataset) -> None:
    train, val, test = (images(whole, split) for split in ("train", "val", "test"))
    assert sorted(train + val) == list(range(160))
    assert sorted(test) == list(range(160, 200))
    assert whole.test.y[:4].unique().numel() == 4  # in a stratified order
    assert whole.val.y.bincount().tolist() == [8, 8, 8, 8]


@pytest.mark.parametrize("size", [1, 17, 60, 128])
def test_a_subset_is_stratified_and_leaves_validation_alone(
    whole: Dataset, tmp_path: Path, cpu: torch.device, size: int
) -> None:
    part = Stripes(train_size=size, augment="crop_flip").load(tmp_path, cpu)
    assert len(part.train) == size
    counts = part.train.y.bincount(minlength=4)
    assert counts.max() - counts.min() <= 1
    assert images(part, "val") == images(whole, "val")


def test_a_smaller_subset_is_contained_in_a_larger_one(tmp_path: Path, cpu: torch.device) -> None:
    small, large = (set(images(Stripes(train_size=n).load(tmp_path, cpu), "train")) for n in (20, 70))
    assert small < large


def test_too_large_a_subset_is_refused(tmp_path: Path, cpu: torch.device) -> None:
    with pytest.raises(ConfigError, match=r"data\.train_size=129 is not allowed: it must be at most 128"):
        Stripes(train_size=129).load(tmp_path, cpu)


def test_only_what_changes_the_decoding_changes_the_cache(tmp_path: Path) -> None:
    path = Stripes(root="here").cache_path(tmp_path)
    assert path.parent == tmp_path
    assert path == Stripes(root="here", train_size=3, val_fraction=0.5).cache_path(tmp_path)
    assert path != Stripes(root="there").cache_path(tmp_path)
