from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnstudy.data.image_folder import ImageFolder
from bnstudy.validation import ConfigError, to_dict
from tests.conftest import CPU

WriteImages = Callable[..., Path]


def test_a_folder_of_images_becomes_stratified_splits(write_images, tmp_path):
    root = write_images()
    data = ImageFolder(root=str(root), val_fraction=0.5).load(tmp_path / "cache", CPU)
    assert (data.name, data.classes, data.shape) == ("pets", 2, (3, 5, 4))
    assert data.train.y.bincount().tolist() == data.val.y.bincount().tolist() == [3, 3]
    assert data.test.y.bincount().tolist() == [6, 6]


def test_images_are_decoded_by_pil_in_order_of_their_paths(write_images):
    root = write_images()
    decoded = ImageFolder(root=str(root)).decode()
    assert decoded.classes == ("cat", "dog")
    for x, path in zip(decoded.train_x, sorted((root / "train").glob("*/*.png")), strict=True):
        assert np.array_equal(x.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))


def test_one_channel_decodes_images_to_grey(write_images):
    root = write_images()
    x = ImageFolder(root=str(root), channels=1).decode().train_x
    assert x.shape == (12, 1, 5, 4)
    assert np.array_equal(x[0, 0].numpy(), np.asarray(Image.open(root / "train/cat/0.png").convert("L")))


def test_images_of_different_sizes_need_data_size(write_images):
    root = write_images(sizes=[(4, 5), (6, 5)])
    with pytest.raises(ConfigError, match=r"1\.png has 6x5 pixels and \S+0\.png 4x5: set data\.size"):
        ImageFolder(root=str(root)).decode()
    assert ImageFolder(root=str(root), size=3).decode().train_x.shape == (4, 3, 3, 3)


def test_the_name_defaults_to_that_of_the_folder_and_is_part_of_the_identity(write_images, monkeypatch):
    root = write_images()
    assert ImageFolder(root=str(root)).label == "pets"
    monkeypatch.chdir(root)
    assert to_dict(ImageFolder(root="."))["name"] == "pets"
    assert ImageFolder(root="train/..").label == "pets"
    assert to_dict(ImageFolder(root=str(root), name="Cats & dogs"))["name"] == "Cats & dogs"
    assert "root" not in to_dict(ImageFolder(root=str(root)))


def test_the_cache_file_of_any_name_has_a_valid_file_name(tmp_path):
    path = ImageFolder(name="cats / dogs (JPEG)").cache_path(tmp_path)
    assert path.parent == tmp_path
    assert path.name.startswith("cats_dogs_JPEG_-")
    assert len(ImageFolder(name=1000 * "x").cache_path(tmp_path).name) < 100


def test_each_decoding_has_its_own_cache(tmp_path):
    specs = [ImageFolder(), ImageFolder(size=8), ImageFolder(channels=1), ImageFolder(root="a/data")]
    assert len({spec.cache_path(tmp_path) for spec in specs}) == 4


def test_changed_images_are_decoded_again(write_images, tmp_path):
    spec = ImageFolder(root=str(write_images()))
    before = spec.load(tmp_path / "cache", CPU)
    image = spec.folder / "test" / "dog" / "3.png"
    Image.new("RGB", (4, 5)).save(image)
    os.utime(image, (0, 0))
    after = spec.load(tmp_path / "cache", CPU)
    assert after.checksum != before.checksum
    assert (after.test.x == after.black[:, None, None]).all((1, 2, 3)).sum() == 1


def test_changed_images_of_the_same_name_size_and_date_are_decoded_again(write_images, tmp_path):
    spec = ImageFolder(root=str(write_images()))
    image = spec.folder / "test" / "dog" / "3.png"
    os.utime(image, (0, 0))
    before, size = spec.load(tmp_path / "cache", CPU), image.stat().st_size
    pixels = np.asarray(Image.open(image))
    Image.fromarray(pixels[::-1]).save(image)
    image.write_bytes(image.read_bytes().ljust(size, b"\0")[:size])
    os.utime(image, (0, 0))
    after = spec.load(tmp_path / "cache", CPU)
    assert after.checksum != before.checksum
    assert (after.test.x != before.test.x).any((1, 2, 3)).sum() == 1


def test_unchanged_images_are_not_decoded_again(write_images, tmp_path, monkeypatch):
    spec = ImageFolder(root=str(write_images()))
    first = spec.load(tmp_path / "cache", CPU)
    monkeypatch.setattr(ImageFolder, "decode", lambda _: pytest.fail("decoded again"))
    assert torch.equal(spec.load(tmp_path / "cache", CPU).train.x, first.train.x)


def test_a_missing_test_folder_is_refused(write_images):
    root = write_images(parts=("train",))
    with pytest.raises(ConfigError, match=rf"{root} has no folder test/: .*train/<class>"):
        ImageFolder(root=str(root)).source()


def test_different_classes_in_train_and_test_are_refused(write_images):
    write_images(parts=("train",))
    root = write_images(parts=("test",), classes=("cat", "fox"))
    with pytest.raises(ConfigError, match=r"other classes in train/ than in test/: dog, fox in only one of them"):
        ImageFolder(root=str(root)).source()


def test_a_class_without_images_is_refused_with_what_it_has(write_images):
    root = write_images()
    for path in (root / "test" / "dog").iterdir():
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(
        ConfigError, match=rf"{root}/test/dog has no images \(\.jpg, .*\), only 0\.gif, 1\.gif, 2\.gif, \.\.\."
    ):
        ImageFolder(root=str(root)).source()


def test_the_error_for_a_damaged_image_names_it(write_images):
    root = write_images()
    image = root / "train" / "dog" / "2.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(ConfigError, match=rf"{image} is damaged"):
        ImageFolder(root=str(root)).decode()


def test_the_error_for_a_missing_image_names_it(write_images):
    root = write_images()
    (root / "train" / "dog" / "link.png").symlink_to("nowhere.png")
    with pytest.raises(ConfigError, match=r"link\.png cannot be read: No such file"):
        ImageFolder(root=str(root)).source()


def test_fields_of_an_image_folder_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"data\.size=0"):
        ImageFolder(size=0)
    with pytest.raises(ConfigError, match=r"data\.channels=2 is not allowed: it must be one of 1, 3"):
        ImageFolder(channels=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"data\.name"):
        ImageFolder(root="/")


@pytest.mark.parametrize("name", ["cats\nand dogs", "\x1b[2J", "\u202epets"])
def test_unprintable_characters_in_a_name_are_refused(name):
    with pytest.raises(ConfigError, match=r"data\.name=.*\\(n|x1b|u202e).* is not allowed"):
        ImageFolder(name=name)


def test_equal_images_throughout_are_refused(write_images):
    root = write_images()
    for path in (root / "test").glob("*/*.png"):
        Image.new("RGB", (4, 5)).save(path)
    with pytest.raises(ConfigError, match=r"All 12 images in test/ are equal, from test/cat/0\.png on"):
        ImageFolder(root=str(root)).decode()


def test_files_left_out_and_equal_images_are_reported_when_images_are_decoded(write_images, tmp_path, caplog):
    root = write_images()
    spec = ImageFolder(root=str(root))
    spec.load(tmp_path / "cache", CPU)
    assert not caplog.records
    (root / "train" / "cat" / "notes.txt").write_text("")
    shutil.copytree(root / "test", root / "val")
    shutil.copy(root / "train" / "cat" / "1.png", root / "test" / "cat" / "9.png")
    for _ in range(2):
        spec.load(tmp_path / "cache", CPU)
    left_out, val, leak = (record.getMessage() for record in caplog.records)
    assert left_out.startswith(f"{root}: 1 entry is left out, no files with .jpg, ")
    assert left_out.endswith(": train/cat/notes.txt.")
    assert val == f"{root}: val/ is not used: data.val_fraction of train/ is for validation."
    assert "1 of 13 test images are training images, too: first test/cat/9.png = train/cat/1.png." in leak


def test_a_decompression_bomb_in_a_folder_is_refused_by_name(write_images):
    root = write_images()
    Image.new("1", (10_000, 10_000)).save(root / "train" / "dog" / "2.png")
    with pytest.raises(ConfigError, match=r"train/dog/2\.png has more than 89,478,485 pixels"):
        ImageFolder(root=str(root), size=4).decode()


@pytest.mark.slow
def test_cifar10_as_jpegs_loads(real_jpegs, tmp_path):
    """20 training and 10 test images of each of CIFAR-10's classes."""
    with tarfile.open(real_jpegs) as tar:
        for member in tar:
            number, part = int(Path(member.name).stem), Path(member.name).parts[1]
            if number < (20 if part == "train" else 10):
                tar.extract(member, tmp_path, filter="data")
    data = ImageFolder(root=str(tmp_path / "cifar10-jpeg")).load(tmp_path / "cache", CPU)
    assert (data.name, data.classes, data.shape) == ("cifar10-jpeg", 10, (3, 32, 32))
    assert data.train.y.bincount().tolist() == [18] * 10
    assert data.test.y.bincount().tolist() == [10] * 10
    assert data.mean == pytest.approx((0.49, 0.48, 0.45), abs=0.05)
