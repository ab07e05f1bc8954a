from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from bnstudy.data.digits import Digits
from bnstudy.validation import ConfigError
from tests.conftest import CPU


def test_digits_have_their_known_sizes_and_stratified_splits(tmp_path):
    data = Digits().load(tmp_path, CPU)
    assert (data.name, data.classes, data.shape) == ("Digits", 10, (1, 8, 8))
    assert [len(s) for s in (data.train, data.val, data.test)] == [1150, 288, 359]
    for split in (data.train, data.val, data.test):
        counts = split.y.bincount(minlength=10)
        assert counts.max() - counts.min() <= 0.05 * len(split)


def test_images_and_labels_are_those_of_scikit_learn():
    decoded, original = Digits().decode(), load_digits()
    x, y = torch.cat([decoded.train_x, decoded.test_x]), torch.cat([decoded.train_y, decoded.test_y])
    found = zip((x.flatten(1).double() / 15).tolist(), y.tolist(), strict=True)
    assert sorted(found) == sorted(zip(original.data.tolist(), original.target.tolist(), strict=True))


def test_digits_are_decoded_and_split_the_same_every_time(tmp_path):
    first, second = (Digits().load(tmp_path / folder, CPU) for folder in ("a", "b"))
    assert first.checksum == second.checksum
    assert torch.equal(first.val.x, second.val.x)
    assert torch.equal(first.train.x, second.train.x)


def test_the_cache_of_digits_does_not_depend_on_the_root(tmp_path):
    assert Digits(root="a").cache_path(tmp_path) == Digits(root="b").cache_path(tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"data\.val_fraction"):
        Digits(val_fraction=fraction)
