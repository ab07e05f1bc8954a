"""Datasets that are decoded once: raw files, a cache of the decoded images, and the same splits for every run."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bnstudy.data.base import DataSpec
from bnstudy.data.dataset import Dataset, DecodedImages, assemble, stratified_split
from bnstudy.store.files import remove_abandoned, write_atomic
from bnstudy.validation import ADDED

_FORMAT = 2  # raise it to decode the same raw files differently

OFFLINE = "data=digits needs no download, and data=image_folder reads images of your own."
"""The alternatives without a network: the end of every message about a missing dataset."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedData(DataSpec):
    """A dataset whose raw files are decoded into a cache. A subclass implements `source` and `decode`.

    test_size: size of a stratified subset of the test images; null for all of them.
    """

    test_size: int | None = field(default=None, metadata=ADDED, kw_only=True)

    def check(self) -> None:
        super().check()
        self.require(self.test_size is None or self.test_size >= 1, "test_size", "at least 1, or null for all")

    def source(self) -> str:
        """A checksum of the raw files, which are downloaded first if they are missing.

        Raises:
            ConfigError: the files cannot be downloaded, or are damaged.
        """
        raise NotImplementedError

    def decode(self) -> DecodedImages:
        """Read the raw files; called after `source`.

        Raises:
            ConfigError: the files are damaged.
        """
        raise NotImplementedError

    def decoding(self) -> tuple[object, ...]:
        """Everything that the result of `decode` depends on besides the content of the raw files."""
        return (self.folder,)

    @property
    def folder(self) -> Path:
        """`root` as an absolute path."""
        return Path(self.root).expanduser().absolute()

    def cache_path(self, cache_dir: Path) -> Path:
        identity = f"{_FORMAT} {type(self).__module__}.{type(self).__qualname__} {self.decoding()}"
        key = hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]
        name = re.sub(r"[^\w.-]+", "_", self.label)[:50]
        return cache_dir / f"{name}-{key}.pt"

    def load(self, cache_dir: Path, device: torch.device) -> Dataset:
        decoded = read_or_decode(self.cache_path(cache_dir), self.source() + own_code(type(self)), self.decode)
        val, train = stratified_split(decoded.train_y, self.val_fraction)
        if self.train_size is not None and self.train_size > len(train):
            allowed = f"at most {len(train)}, the images that the validation split leaves, or null for all"
            raise self.refuse("train_size", allowed)
        if self.test_size is not None and self.test_size > len(decoded.test_y):
            raise self.refuse("test_size", f"at most {len(decoded.test_y)}, or null for all")
        scale = self.scale or "standardized"
        return assemble(self.label, decoded, train[: self.train_size], val, device, scale, self.test_size)


def own_code(cls: type) -> str:
    """A checksum of the modules of a user's class, whose `decode` may have changed; "" for a class of bnstudy."""
    modules = {base.__module__ for base in cls.__mro__} - {"builtins"}
    own = sorted(name for name in modules if not name.startswith("bnstudy."))
    files = [getattr(sys.modules.get(name), "__file__", None) for name in own]
    code = b"".join(Path(file).read_bytes() for file in files if file and Path(file).is_file())
    return hashlib.sha256(code).hexdigest() if code else ""


def read_or_decode(path: Path, source: str, decode: Callable[[], DecodedImages]) -> DecodedImages:
    """The images in the cache file `path`. If the file is missing, damaged, or made from another `source`, the images
    are decoded and the file is written."""
    if path.is_file():
        try:
            content = torch.load(path, weights_only=True)
            checksum, cached_source = content.pop("checksum"), content.pop("source")
            cached = DecodedImages(**{**content, "classes": tuple(content["classes"])})
            is_intact = cached.checksum == checksum
        except Exception as error:  # torch.load fails in many ways; the remedy is always the same
            _log.warning("The cache %s cannot be read (%s): decoding again.", path, type(error).__name__)
        else:
            if is_intact and cached_source == source:
                return cached
            if not is_intact:
                _log.warning("The cache %s is damaged, its checksum is wrong: decoding again.", path)
    decoded = decode()
    content = {**vars(decoded), "classes": list(decoded.classes), "source": source, "checksum": decoded.checksum}
    try:
        write_atomic(path, lambda temporary: torch.save(content, temporary))
        remove_abandoned(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save has a RuntimeError for a full disk
        _log.warning("The cache %s cannot be written (%s): going on without it.", path, type(error).__name__)
    return decoded
