from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from bnstudy.data.cache import CachedData, read_or_decode
from bnstudy.data.dataset import Dataset, DecodedImages
from bnstudy.validation import ConfigError
from tests.conftest import CPU


class Decoder:
    """Returns the given images and counts the calls."""

    def __init__(self, decoded: DecodedImages) -> None:
        self.decoded, self.calls = decoded, 0

    def __call__(self) -> DecodedImages:
        self.calls += 1
        return self.decoded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "noise.pt"


def test_a_dataset_is_decoded_once(path, decoded):
    decode = Decoder(decoded)
    for _ in range(2):
        images = read_or_decode(path, "v1", decode)
        assert images.checksum == decoded.checksum
        assert images.classes == ("a", "b")
        assert torch.equal(images.test_x, decoded.test_x)
    assert decode.calls == 1
    assert [p.name for p in path.parent.iterdir()] == ["noise.pt"]


def test_a_changed_source_is_decoded_again(path, decoded):
    decode = Decoder(decoded)
    for source in ("v1", "v2", "v2"):
        read_or_decode(path, source, decode)
    assert decode.calls == 2


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def change_a_pixel(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["train_x"][3, 0, 0, 0] += 1
    torch.save(content, path)


def delete_a_tensor(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["train_y"]
    torch.save(content, path)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty, change_a_pixel, delete_a_tensor])
def test_a_damaged_cache_is_reported_and_rebuilt(path, decoded, damage, caplog):
    decode = Decoder(decoded)
    read_or_decode(path, "v1", decode)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert read_or_decode(path, "v1", decode).checksum == decoded.checksum
    assert decode.calls == 2
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    read_or_decode(path, "v1", decode)
    assert decode.calls == 2


def test_a_cache_that_cannot_be_written_is_a_warning(path, decoded, caplog):
    path.parent.write_text("a file in place of the folder")
    decode = Decoder(decoded)
    for _ in range(2):
        assert read_or_decode(path, "v1", decode).checksum == decoded.checksum
    assert decode.calls == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"The cache {path} cannot be written (FileExistsError): going on without it."
    ] * 2


def test_the_checksum_covers_shapes_images_and_labels(decoded):
    def checksum(x: torch.Tensor, y: torch.Tensor) -> str:
        return DecodedImages(x, y, decoded.test_x, decoded.test_y, ("a", "b")).checksum

    x, y = decoded.train_x, decoded.train_y
    assert checksum(x, y) == decoded.checksum
    assert len({decoded.checksum, checksum(x.flip(0), y), checksum(x.transpose(2, 3), y), checksum(x, 1 - y)}) == 4


@dataclass(frozen=True)
class GreyLevels(CachedData):
    """A user's own dataset. Every pixel of image i has the value i, so that an image shows its index."""

    val_fraction: float = field(default=0.2, kw_only=True)

    def source(self) -> str:
        return "grey levels"

    def decode(self) -> DecodedImages:
        x = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
        y = torch.arange(200) % 4
        return DecodedImages(x[:160], y[:160], x[160:], y[160:], ("a", "b", "c", "d"))


def indices(dataset: Dataset, split: str) -> list[int]:
    """The indices of the split's images, from their grey values."""
    x = getattr(dataset, split).x[:, 0, 0, 0].double()
    return (255 * (x * dataset.std[0] + dataset.mean[0])).round().int().tolist()


@pytest.fixture
def whole(tmp_path: Path) -> Dataset:
    return GreyLevels().load(tmp_path, CPU)


def test_the_splits_are_disjoint_complete_and_stratified(whole):
    train, val, test = (indices(whole, split) for split in ("train", "val", "test"))
    assert sorted(train + val) == list(range(160))
    assert sorted(test) == list(range(160, 200))
    assert whole.test.y[:4].unique().numel() == 4
    assert whole.val.y.bincount().tolist() == [8, 8, 8, 8]


@pytest.mark.parametrize("size", [1, 17, 60, 128])
def test_a_subset_is_stratified_and_does_not_change_the_validation_split(whole, tmp_path, size):
    subset = GreyLevels(train_size=size, augment="crop_flip").load(tmp_path, CPU)
    assert len(subset.train) == size
    counts = subset.train.y.bincount(minlength=4)
    assert counts.max() - counts.min() <= 1
    assert indices(subset, "val") == indices(whole, "val")


def test_a_larger_subset_contains_a_smaller_one(tmp_path):
    small, large = (set(indices(GreyLevels(train_size=n).load(tmp_path, CPU), "train")) for n in (20, 70))
    assert small < large


def test_a_subset_larger_than_the_training_split_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.train_size=129 is not allowed: it must be at most 128"):
        GreyLevels(train_size=129).load(tmp_path, CPU)


def test_a_subset_of_the_test_images_is_stratified_and_changes_no_other_split(whole, tmp_path):
    subset = GreyLevels(test_size=8).load(tmp_path, CPU)
    assert subset.test.y.bincount().tolist() == [2, 2, 2, 2]
    assert indices(subset, "test") == indices(whole, "test")[:8]
    assert indices(subset, "train") == indices(whole, "train")
    assert subset.checksum == whole.checksum


@pytest.mark.parametrize(("size", "allowed"), [(0, "at least 1, or null for all"), (41, "at most 40, or null for all")])
def test_a_subset_that_is_no_part_of_the_test_images_is_refused(tmp_path, size, allowed):
    with pytest.raises(ConfigError, match=rf"data\.test_size={size} is not allowed: it must be {allowed}"):
        GreyLevels(test_size=size).load(tmp_path, CPU)


def test_fields_that_do_not_change_the_decoding_share_a_cache(tmp_path):
    path = GreyLevels(root="here").cache_path(tmp_path)
    assert path.parent == tmp_path
    assert path == GreyLevels(root="here", train_size=3, test_size=5, val_fraction=0.5).cache_path(tmp_path)
    assert path != GreyLevels(root="there").cache_path(tmp_path)
