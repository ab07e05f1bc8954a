from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from bnstudy.data.digits import Digits
from bnstudy.validation import ConfigError


def test_digits_end_to_end(tmp_path: Path, cpu: torch.device) -> None:
    data = Digits().load(tmp_path, cpu)
    assert (data.name, data.classes, data.shape) == ("Digits", 10, (1, 8, 8))
    assert [len(s) for s in (data.train, data.val, data.test)] == [1150, 288, 359]
    for split in (data.train, data.val, data.test):
        counts = split.y.bincount(minlength=10)
        assert counts.max() - counts.min() <= 0.05 * len(split)


def test_no_image_is_lost_or_changed() -> None:
    decoded, original = Digits().decode(), load_digits()
    got = torch.cat([decoded.train_x, decoded.test_x]).squeeze(1).double() / 15
    assert sorted(got.flatten(1).tolist()) == sorted(original.images.reshape(-1, 64).tolist())


def test_labels_stay_with_their_images() -> None:
    decoded, original = Digits().decode(), load_digits()
    label_of = {tuple(p): t for p, t in zip(original.data.tolist(), original.target.tolist(), strict=True)}
    for x, y in zip(decoded.test_x, decoded.test_y.tolist(), strict=True):
        assert label_of[tuple((x.flatten().double() / 15).tolist())] == y


def test_loading_twice_gives_the_same(tmp_path: Path, cpu: torch.device) -> None:
    first, again = (Digits().load(tmp_path / folder, cpu) for folder in ("a", "b"))
    assert first.checksum == again.checksum
    assert torch.equal(first.val.x, again.val.x)
    assert torch.equal(first.train.x, again.train.x)


def test_the_root_does_not_matter(tmp_path: Path) -> None:
    assert Digits(root="a").cache_path(tmp_path) == Digits(root="b").cache_path(tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_share_outside_0_to_1_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_fraction"):
        Digits(val_fraction=fraction)
