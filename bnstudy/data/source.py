"""What all datasets have in common: raw files, decoded once, split the same way for every run."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from bnstudy.data.base import DataSpec
from bnstudy.data.cache import Decoded, cached
from bnstudy.data.dataset import Dataset, assemble
from bnstudy.data.splits import stratified_split

_FORMAT = 1
"""Raised when the same raw files come to be decoded to something else."""

OFFLINE = "data=digits needs no download, and data=image_folder reads images of your own."
"""What works without a network: the end of every message about a dataset that is not there."""


@dataclass(frozen=True)
class CachedData(DataSpec):
    """A dataset whose raw files are decoded into a cache; a subclass says what and how to decode."""

    def source(self) -> str:
        """A checksum that changes when the raw files do. Files that are missing are downloaded first.

        Raises:
            ConfigError: they cannot be had, or are damaged.
        """
        raise NotImplementedError

    def decode(self) -> Decoded:
        """Read the raw files; called after `source`.

        Raises:
            ConfigError: they are damaged.
        """
        raise NotImplementedError

    def decoding(self) -> tuple[object, ...]:
        """Everything that the result of `decode` depends on, beside the content of the raw files."""
        return (self.folder,)

    @property
    def folder(self) -> Path:
        """`root` as an absolute path."""
        return Path(self.root).expanduser().absolute()

    def cache_path(self, cache_dir: Path) -> Path:
        identity = f"{_FORMAT} {type(self).__module__}.{type(self).__qualname__} {self.decoding()}"
        key = hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]
        name = re.sub(r"[^\w.-]+", "_", self.label)
        return cache_dir / f"{name}-{key}.pt"

    def load(self, cache_dir: Path, device: torch.device) -> Dataset:
        decoded = cached(self.cache_path(cache_dir), self.source(), self.decode)
        val, train = stratified_split(decoded.train_y, self.val_fraction)
        if self.train_size is not None and self.train_size > len(train):
            raise self.refuse("train_size", f"at most {len(train)}, what the validation split leaves, or null for all")
        return assemble(self.label, decoded, train[: self.train_size], val, device)
