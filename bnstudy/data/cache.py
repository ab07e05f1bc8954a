"""Decoded datasets on disk: one file each, trusted only as far as its checksum holds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bnstudy.store.files import write_atomic

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images uint8 [N, C, H, W] and labels int64 [N] as their source has them; `classes` names the labels."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the shapes and contents of the tensors."""
        digest = hashlib.sha256()
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def cached(path: Path, source: str, decode: Callable[[], Decoded]) -> Decoded:
    """The dataset that `path` holds; decoded and put there where it holds none.

    A damaged file is replaced, and so is one made from raw files with another checksum than `source`.
    """
    kept = _read(path, source) if path.exists() else None
    if kept is not None:
        return kept
    decoded = decode()
    write_atomic(path, lambda temporary: _write(temporary, source, decoded))
    return decoded


def _read(path: Path, source: str) -> Decoded | None:
    """The file's content, or None if it is not to be used."""
    try:
        content = torch.load(path, weights_only=True)
        checksum, made_from = content.pop("checksum"), content.pop("source")
        decoded = Decoded(**{**content, "classes": tuple(content["classes"])})
        intact = decoded.checksum == checksum
    except Exception as error:  # torch.load fails in many ways; what is to be done is always the same
        _log.warning("The cache %s cannot be read (%s): decoding again.", path, type(error).__name__)
        return None
    if not intact:
        _log.warning("The cache %s is damaged, its checksum is wrong: decoding again.", path)
        return None
    if made_from != source:
        _log.info("The files behind the cache %s have changed: decoding again.", path)
        return None
    return decoded


def _write(path: Path, source: str, decoded: Decoded) -> None:
    torch.save(
        {
            "train_x": decoded.train_x,
            "train_y": decoded.train_y,
            "test_x": decoded.test_x,
            "test_y": decoded.test_y,
            "classes": list(decoded.classes),
            "source": source,
            "checksum": decoded.checksum,
        },
        path,
    )
