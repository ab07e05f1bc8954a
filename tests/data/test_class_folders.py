from __future__ import annotations

import os
from pathlib import Path

import pytest
from torchvision import datasets

from bnstudy.data.class_folders import describe_left_out, list_classes
from bnstudy.data.image_folder import ImageFolder
from bnstudy.validation import ConfigError


def names(root: Path) -> list[str]:
    """The images of the training split, by their paths below it."""
    return [os.path.relpath(path, root / "train") for path, _ in list_classes(root / "train").samples]


def source(root: Path) -> str:
    return ImageFolder(root=str(root)).source()


def test_images_are_those_of_torchvision_in_its_order(write_images):
    root = write_images()
    for folder in ("cat/b", "cat/a/deep", "cat-2", "Dog"):
        (root / "train" / folder).mkdir(parents=True)
        (root / "train" / folder / "x.PNG").write_bytes(b"")
    (root / "train" / "cat" / "x.txt").write_text("")
    theirs, ours = datasets.ImageFolder(root / "train"), list_classes(root / "train")
    assert list(ours.samples) == theirs.samples
    assert list(ours.classes) == theirs.classes


def test_hidden_files_and_folders_are_ignored_without_a_word(write_images):
    root = write_images()
    before = names(root)
    for folder in (".git", "__MACOSX", "cat/.ipynb_checkpoints", "cat/@eaDir"):
        (root / "train" / folder).mkdir()
        (root / "train" / folder / "0.png").write_bytes(b"")
    (root / "train" / "cat" / "._0.png").write_bytes(b"")
    assert names(root) == before
    assert describe_left_out(root, [list_classes(root / "train")]) == ""


def test_what_is_left_out_is_counted_and_named(write_images):
    root = write_images()
    (root / "train" / "readme.txt").write_text("")
    for i in range(3):
        (root / "test" / "cat" / f"{i}.gif").write_text("")
    splits = [list_classes(root / split) for split in ("train", "test")]
    text = describe_left_out(root, splits)
    assert text.startswith("4 entries are left out, no files with .jpg, ")
    assert text.endswith(": train/readme.txt, test/cat/0.gif, test/cat/1.gif, ....")


def test_a_pipe_with_the_name_of_an_image_is_refused_without_opening_it(write_images):
    root = write_images()
    os.mkfifo(root / "train" / "cat" / "x.png")
    with pytest.raises(ConfigError, match=r"train/cat/x\.png is not a regular file but a pipe, socket or device"):
        source(root)


def test_a_link_to_a_device_is_refused_without_opening_it(write_images):
    root = write_images()
    (root / "train" / "cat" / "x.png").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"train/cat/x\.png is not a regular file"):
        source(root)


@pytest.mark.parametrize("target", ["..", "../..", "cat"])
def test_a_class_linked_to_a_folder_of_other_classes_is_refused(write_images, target):
    root = write_images()
    for split in ("train", "test"):
        (root / split / "loop").symlink_to(target)
    with pytest.raises(ConfigError, match=r"(is a link to a folder that contains|are the same folder)"):
        source(root)


def test_a_test_split_linked_to_the_training_split_is_refused(write_images):
    root = write_images(parts=("train",))
    (root / "test").symlink_to("train")
    with pytest.raises(ConfigError, match=r"train/cat and \S+test/cat are the same folder"):
        source(root)


def test_a_link_below_a_class_is_left_out_and_named(write_images):
    root = write_images()
    before = names(root)
    (root / "train" / "cat" / "loop").symlink_to("../dog")
    assert names(root) == before
    text = describe_left_out(root, [list_classes(root / "train")])
    assert text.endswith(": train/cat/loop.")


def test_classes_and_images_may_be_links_to_elsewhere(write_images, tmp_path):
    root = write_images()
    (root / "train" / "cat").rename(tmp_path / "elsewhere")
    (root / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "dog" / "9.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    assert len(names(root)) == 13


def test_unprintable_characters_in_a_class_are_refused_and_escaped(write_images):
    root = write_images(classes=("cat", "\x1b[2Jdog"))
    with pytest.raises(ConfigError, match=r"train/\\x1b\[2Jdog has unprintable characters in its name: rename it"):
        source(root)


def test_images_without_class_folders_are_refused(write_images):
    root = write_images(classes=())
    (root / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"train has no class folders: move each image to train/<class>/"):
        list_classes(root / "train")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_refused(write_images):
    root = write_images()
    (root / "train" / "cat").chmod(0)
    try:
        with pytest.raises(ConfigError, match=r"train/cat cannot be read: Permission denied"):
            source(root)
    finally:
        (root / "train" / "cat").chmod(0o700)
