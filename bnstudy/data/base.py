"""The base class of all datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch

from bnstudy.data.dataset import Dataset, Scale
from bnstudy.validation import ADDED, BESIDE, Spec


@dataclass(frozen=True)
class Length(Spec):
    """How many leading rows of a training image a network reads: uniform on min..max, anew for each epoch."""

    group: ClassVar[str] = "data.length"
    has_target: ClassVar[bool] = False

    min: int
    max: int

    def check(self) -> None:
        self.require(self.min >= 1, "min", "at least 1")
        self.require(self.max >= self.min, "max", f"at least data.length.min={self.min}")


@dataclass(frozen=True)
class DataSpec(Spec):
    """A dataset of labelled images.

    root: the folder that holds the raw files; missing files are downloaded to it.
    train_size: size of a stratified subset of the training split; null for all of it.
    val_fraction: fraction of the training images in the validation split, which is stratified and the same for every
        run.
    length: of the training images, for networks that read sequences; null for all rows. Validation and test images
        have all rows.
    test_lengths: numbers of rows at which the final accuracy on the test images is also measured; null for those of
        `default_test_lengths`.
    augment: none, or crop_flip: a random shift by up to an eighth of the height and a horizontal flip.
    scale: of the pixels. standardized (also null): each channel of the training split has mean 0 and standard deviation
        1; unit: black 0, white 1; centred: black -1, white 1; levels: of 0 to 255, minus the mean of each channel.
    """

    group: ClassVar[str] = "data"

    root: str = field(default="data", metadata=BESIDE, kw_only=True)
    train_size: int | None = field(default=None, kw_only=True)
    val_fraction: float = field(default=0.1, kw_only=True)
    length: Length | None = field(default=None, metadata=ADDED, kw_only=True)
    test_lengths: tuple[int, ...] | None = field(default=None, metadata=ADDED, kw_only=True)
    augment: Literal["none", "crop_flip"] = field(default="none", kw_only=True)
    scale: Scale | None = field(default=None, metadata=ADDED, kw_only=True)

    def canonical(self) -> Mapping[str, object]:
        return {"scale": None} if self.scale == "standardized" else {}

    def check(self) -> None:
        self.require(self.train_size is None or self.train_size >= 1, "train_size", "at least 1, or null for all")
        self.require(0 < self.val_fraction < 1, "val_fraction", "between 0 and 1")
        self.require(all(n >= 1 for n in self.test_lengths or ()), "test_lengths", "numbers of rows, each at least 1")

    def lengths_tested(self, height: int) -> tuple[int, ...]:
        """The numbers of rows at which the accuracy on test images of this height is measured at the end, ascending.

        Raises:
            ConfigError: images have fewer rows than `length` or `test_lengths` say.
        """
        rows = f"at most {height}, the rows of an image"
        if self.length is not None:
            self.length.require(self.length.max <= height, "max", rows)
        if self.test_lengths is not None:
            self.require(max(self.test_lengths, default=0) <= height, "test_lengths", rows)
            return tuple(sorted(set(self.test_lengths)))
        return () if self.length is None else default_test_lengths(self.length, height)

    def load(self, cache_dir: Path, device: torch.device) -> Dataset:
        """The splits as tensors on `device`. Raw files are decoded once, into `cache_dir`.

        Raises:
            ConfigError: the dataset is missing, cannot be downloaded or is damaged, or `train_size` exceeds it.
        """
        raise NotImplementedError


def default_test_lengths(length: Length, height: int) -> tuple[int, ...]:
    """All lengths of training; and, not seen in it, half the shortest, the full height, and halfway to that."""
    unseen = {max(1, length.min // 2), (length.max + height) // 2, height}
    return tuple(sorted(unseen.union(range(length.min, length.max + 1))))
