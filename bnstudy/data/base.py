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
class DataSpec(Spec):
    """A dataset of labelled images.

    root: the folder that holds the raw files; missing files are downloaded to it.
    train_size: size of a stratified subset of the training split; null for all of it.
    val_fraction: fraction of the training images in the validation split, which is stratified and the same for every
        run.
    augment: none, or crop_flip: a random shift by up to an eighth of the height and a horizontal flip.
    scale: of the pixels. standardized (also null): each channel of the training split has mean 0 and standard deviation
        1; unit: black 0, white 1; centred: black -1, white 1; levels: of 0 to 255, minus the mean of each channel.
    """

    group: ClassVar[str] = "data"

    root: str = field(default="data", metadata=BESIDE, kw_only=True)
    train_size: int | None = field(default=None, kw_only=True)
    val_fraction: float = field(default=0.1, kw_only=True)
    augment: Literal["none", "crop_flip"] = field(default="none", kw_only=True)
    scale: Scale | None = field(default=None, metadata=ADDED, kw_only=True)

    def canonical(self) -> Mapping[str, object]:
        return {"scale": None} if self.scale == "standardized" else {}

    def check(self) -> None:
        self.require(self.train_size is None or self.train_size >= 1, "train_size", "at least 1, or null for all")
        self.require(0 < self.val_fraction < 1, "val_fraction", "between 0 and 1")

    def load(self, cache_dir: Path, device: torch.device) -> Dataset:
        """The splits as tensors on `device`. Raw files are decoded once, into `cache_dir`.

        Raises:
            ConfigError: the dataset is missing, cannot be downloaded or is damaged, or `train_size` exceeds it.
        """
        raise NotImplementedError
