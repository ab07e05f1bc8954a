"""A user's own images, one folder a class."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from tqdm import tqdm

from bnstudy.data.cache import CachedData
from bnstudy.data.dataset import DecodedImages
from bnstudy.validation import ConfigError

_CHUNK = 250  # images that a thread decodes at a time


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
        return {"name": os.path.basename(os.path.abspath(self.folder))} if self.name is None else {}

    def check(self) -> None:
        super().check()
        self.require(bool(self.name), "name", "a name for the dataset")
        self.require(self.size is None or self.size >= 1, "size", "at least 1 pixel, or null to keep the size")

    @property
    def label(self) -> str:
        return str(self.name)

    def decoding(self) -> tuple[object, ...]:
        return (self.folder, self.size, self.channels)

    def source(self) -> str:
        # Names, sizes and dates, not contents: reading 60,000 files takes seconds at every start.
        digest, folder = hashlib.sha256(), str(self.folder)
        for path, _ in itertools.chain.from_iterable(part.samples for part in self._parts()):
            try:
                stat = os.stat(path)
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
            digest.update(os.fsencode(f"{path.removeprefix(folder)} {stat.st_size} {stat.st_mtime_ns}\n"))
        return digest.hexdigest()

    def decode(self) -> DecodedImages:
        train, test = self._parts()
        samples, n = train.samples + test.samples, len(train.samples)
        x = self._read_images([path for path, _ in samples])
        y = torch.tensor([label for _, label in samples])
        return DecodedImages(x[:n], y[:n], x[n:], y[n:], tuple(train.classes))

    def _parts(self) -> tuple[datasets.ImageFolder, datasets.ImageFolder]:
        train, test = self._part("train"), self._part("test")
        if odd := sorted(set(train.classes) ^ set(test.classes)):
            raise ConfigError(
                f"{self.folder} has other classes in train/ than in test/: {', '.join(odd[:5])}"
                f"{', ...' if odd[5:] else ''} in only one of them; each class must have a folder in both."
            )
        if len(train.classes) < 2:
            raise ConfigError(f"{self.folder}/train has only one class, {train.classes[0]}; at least two are needed.")
        return train, test

    def _part(self, part: str) -> datasets.ImageFolder:
        if not (self.folder / part).is_dir():
            raise ConfigError(
                f"{self.folder} has no folder {part}/: data=image_folder needs data.root to be a folder with "
                "images as train/<class>/... and test/<class>/...; data=digits needs no files."
            )
        try:
            return datasets.ImageFolder(self.folder / part)
        except OSError as error:
            raise ConfigError(f"{self.folder / part} cannot be used as images: {error}") from None

    def _read_images(self, paths: list[str]) -> Tensor:
        """The images uint8 [N, C, H, W]; all must have the size of the first."""
        first = self._read_image(paths[0])
        out_NCHW = np.empty((len(paths), *first.shape), dtype=np.uint8)

        def fill(start: int) -> int:
            chunk = paths[start : start + _CHUNK]
            for i, path in enumerate(chunk, start):
                image = self._read_image(path)
                if image.shape != first.shape:
                    (_, height, width), (_, first_height, first_width) = image.shape, first.shape
                    raise ConfigError(
                        f"{path} has {width}x{height} pixels and {paths[0]} {first_width}x{first_height}: "
                        "set data.size, e.g. data.size=32, to scale all images to one size."
                    )
                out_NCHW[i] = image
            return len(chunk)

        # disable=None: a bar only if stderr is a terminal.
        progress = tqdm(total=len(paths), desc="Decoding", unit=" images", disable=None)
        with ThreadPoolExecutor() as pool, progress as bar:
            for done in pool.map(fill, range(0, len(paths), _CHUNK)):
                bar.update(done)
        return torch.from_numpy(out_NCHW)

    def _read_image(self, path: str) -> np.ndarray:
        """One image uint8 [C, H, W]."""
        try:
            with Image.open(path) as file:
                image = file.convert("L" if self.channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"{path} is damaged ({error}); delete or replace it.") from None
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, self.channels).transpose(2, 0, 1)
