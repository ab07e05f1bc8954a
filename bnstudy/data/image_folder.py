"""A user's own images, one folder a class."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bnstudy.data.cache import CachedData
from bnstudy.data.class_folders import (
    ClassFolders,
    describe_left_out,
    list_classes,
    other_splits,
    refuse_shared_folders,
)
from bnstudy.data.dataset import DecodedImages
from bnstudy.data.equal_images import find_equal_images
from bnstudy.data.image_files import read_image, show_path, warnings_as_errors
from bnstudy.validation import ConfigError, gigabytes

T = TypeVar("T")
_CHUNK = 250  # files that a thread reads at a time
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder(CachedData):
    """torchvision's ImageFolder layout: `<root>/train/<class>/*` and `<root>/test/<class>/*`.

    name: the dataset's name, part of a run's identity; null for the name of the folder `root`.
    size: scale each image to size x size pixels; null if all images have the same size.
    channels: 1 for grey, 3 for colour.
    """

    name: str | None = field(default=None, kw_only=True)
    size: int | None = field(default=None, kw_only=True)
    channels: Literal[1, 3] = field(default=3, kw_only=True)

    def canonical(self) -> Mapping[str, object]:
        named = {"name": os.path.basename(os.path.abspath(self.folder))} if self.name is None else {}
        return {**super().canonical(), **named}

    def check(self) -> None:
        super().check()
        name = str(self.name or "")
        self.require(name.isprintable(), "name", "a name of printable characters")
        self.require(bool(name), "name", "a name for the dataset")
        self.require(self.size is None or self.size >= 1, "size", "at least 1 pixel, or null to keep the size")

    @property
    def label(self) -> str:
        return str(self.name)

    def decoding(self) -> tuple[object, ...]:
        return (self.folder, self.size, self.channels)

    def source(self) -> str:
        # By content: images unpacked from an archive can have the names, sizes and dates of those they replace.
        splits = self._splits()
        paths = [path for split in splits for path, _ in split.samples]
        digest = hashlib.sha256()
        for path, content in zip(paths, _in_threads(_hash_file, paths, "Hashing"), strict=True):
            digest.update(os.fsencode(f"{self._name(path)} {content}\n"))
        # With the warnings: where they change, the images are decoded again and the user reads them.
        digest.update(os.fsencode(" ".join(self._left_out(splits))))
        return digest.hexdigest()

    def decode(self) -> DecodedImages:
        train, test = splits = self._splits()
        samples, n = train.samples + test.samples, len(train.samples)
        paths = [path for path, _ in samples]
        x = self._read_images(paths)
        y = torch.tensor([label for _, label in samples])
        decoded = DecodedImages(x[:n], y[:n], x[n:], y[n:], train.classes)
        names = [show_path(self._name(path)) for path in paths]
        for warning in (*self._left_out(splits), *find_equal_images(decoded, names)):
            _log.warning("%s: %s", show_path(self.folder), warning)
        return decoded

    def _left_out(self, splits: tuple[ClassFolders, ClassFolders]) -> list[str]:
        """Sentences about what is in the folder and not in the dataset."""
        found = [describe_left_out(self.folder, splits)]
        for name in other_splits(self.folder, splits[0].classes):
            found.append(f"{show_path(name)}/ is not used: data.val_fraction of train/ is for validation.")
        return [sentence for sentence in found if sentence]

    def _name(self, path: str) -> str:
        """The path below `folder`."""
        return path.removeprefix(f"{self.folder}{os.sep}")

    def _splits(self) -> tuple[ClassFolders, ClassFolders]:
        for split in ("train", "test"):
            if not (self.folder / split).is_dir():
                raise ConfigError(
                    f"{self.folder} has no folder {split}/: data=image_folder needs data.root to be a folder with "
                    "images as train/<class>/... and test/<class>/...; data=digits needs no files."
                )
        train, test = list_classes(self.folder / "train"), list_classes(self.folder / "test")
        refuse_shared_folders(split.folder / name for split in (train, test) for name in split.classes)
        if odd := sorted(set(train.classes) ^ set(test.classes)):
            raise ConfigError(
                f"{self.folder} has other classes in train/ than in test/: {', '.join(odd[:5])}"
                f"{', ...' if odd[5:] else ''} in only one of them; each class must have a folder in both."
            )
        if len(train.classes) < 2:
            raise ConfigError(f"{self.folder}/train has only one class, {train.classes[0]}; at least two are needed.")
        return train, test

    def _read_images(self, paths: Sequence[str]) -> Tensor:
        """The images uint8 [N, C, H, W]; all must have the size of the first."""
        images = _in_threads(partial(read_image, channels=self.channels, size=self.size), paths, "Decoding")
        with warnings_as_errors():
            first = next(images)
            out_NCHW = self._allocate(len(paths), first.shape)
            for i, image in enumerate(itertools.chain([first], images)):
                if image.shape != first.shape:
                    (_, height, width), (_, first_height, first_width) = image.shape, first.shape
                    raise ConfigError(
                        f"{show_path(paths[i])} has {width}x{height} pixels and {show_path(paths[0])} {first_width}x"
                        f"{first_height}: set data.size, e.g. data.size=32, to scale all images to one size."
                    )
                out_NCHW[i] = image
        return torch.from_numpy(out_NCHW)

    def _allocate(self, n: int, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.empty((n, *shape), dtype=np.uint8)
        except MemoryError:
            raise ConfigError(
                f"{n:,} images of {shape[2]}x{shape[1]} pixels need {gigabytes(n * math.prod(shape))} of memory: "
                "set data.size to a smaller size, e.g. data.size=32."
            ) from None


def _in_threads(function: Callable[[str], T], paths: Sequence[str], title: str) -> Iterator[T]:
    """`function` of each path, in order."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    # disable=None: a bar only if stderr is a terminal.
    progress = tqdm(total=len(paths), desc=title, unit=" images", disable=None, delay=1)
    with ThreadPoolExecutor() as pool, progress as bar:
        for results in pool.map(lambda chunk: [function(path) for path in chunk], chunks):
            yield from results
            bar.update(len(results))


def _hash_file(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{show_path(path)} cannot be read: {error.strerror}.") from None
