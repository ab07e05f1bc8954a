from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bnstudy.data.cache import read_or_decode
from bnstudy.data.dataset import DecodedImages


class Decoder:
    """Gives what it was made with, and counts how often."""

    def __init__(self, decoded: DecodedImages) -> None:
        self.decoded, self.calls = decoded, 0

    def __call__(self) -> DecodedImages:
        self.calls += 1
        return self.decoded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "noise.pt"


def test_a_dataset_is_decoded_once(path: Path, decoded: DecodedImages) -> None:
    decode = Decoder(decoded)
    for _ in range(2):
        got = read_or_decode(path, "v1", decode)
        assert got.checksum == decoded.checksum
        assert got.classes == ("a", "b")
        assert torch.equal(got.test_x, decoded.test_x)
    assert decode.calls == 1
    assert [p.name for p in path.parent.iterdir()] == ["noise.pt"]


def test_a_changed_source_is_decoded_again(path: Path, decoded: DecodedImages) -> None:
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


def forget_a_tensor(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["train_y"]
    torch.save(content, path)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty, change_a_pixel, forget_a_tensor])
def test_a_damaged_cache_is_noticed_and_rebuilt(
    path: Path, decoded: DecodedImages, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    decode = Decoder(decoded)
    read_or_decode(path, "v1", decode)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert read_or_decode(path, "v1", decode).checksum == decoded.checksum
    assert decode.calls == 2
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    read_or_decode(path, "v1", decode)
    assert decode.calls == 2


def test_the_checksum_covers_shapes_images_and_labels(decoded: DecodedImages) -> None:
    variants = [decoded.train_x, decoded.train_x.flip(0), decoded.train_x.transpose(2, 3)]
    others = [DecodedImages(x, decoded.train_y, decoded.test_x, decoded.test_y, ("a", "b")) for x in variants]
    relabelled = DecodedImages(decoded.train_x, 1 - decoded.train_y, decoded.test_x, decoded.test_y, ("a", "b"))
    checksums = [d.checksum for d in (decoded, *others, relabelled)]
    assert checksums[0] == checksums[1]
    assert len(set(checksums)) == 4
