"""Images of one's own, a folder a class."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from tqdm import tqdm

from bnstudy.data.cache import Decoded
from bnstudy.data.source import CachedData
from bnstudy.validation import ConfigError

_CHUNK = 250  # images a thread decodes in one go


@dataclass(frozen=True)
class ImageFolder(CachedData):
    """torchvision's ImageFolder layout: `<root>/train/<class>/*` and `<root>/test/<class>/*`.

    name: what the dataset is called; null for the name of the folder `root`. Part of what identifies a run.
    size: scale each image to size x size pixels; null if all have one size already.
    channels: 1 for grey, 3 for colour.
    """

    published: ClassVar[bool] = False

    name: str | None = field(default=None, kw_only=True)
    size: int | None = field(default=None, kw_only=True)
    channels: Literal[1, 3] = field(default=3, kw_only=True)

    def check(self) -> None:
        super().check()
        if self.name is None:
            object.__setattr__(self, "name", os.path.basename(os.path.abspath(self.folder)))
        self.require(bool(self.name), "name", "a name for the dataset")
        self.require(self.size is None or self.size >= 1, "size", "at least 1 pixel, or null to keep the size")

    @property
    def label(self) -> str:
        return str(self.name)

    def decoding(self) -> tuple[object, ...]:
        return (self.folder, self.size, self.channels)

    def source(self) -> str:
        # Names, sizes and dates, not contents: to read 60,000 files takes seconds at every start.
        digest, folder = hashlib.sha256(), str(self.folder)
        for listed in self._listings():
            for path, _ in listed.samples:
                digest.update(_description(path, path.removeprefix(folder)))
        return digest.hexdigest()

    def decode(self) -> Decoded:
        train, test = self._listings()
        samples, n = train.samples + test.samples, len(train.samples)
        x = self._images([path for path, _ in samples])
        y = torch.tensor([label for _, label in samples])
        return Decoded(x[:n], y[:n], x[n:], y[n:], tuple(train.classes))

    def _listings(self) -> tuple[datasets.ImageFolder, datasets.ImageFolder]:
        train, test = self._listing("train"), self._listing("test")
        odd = sorted(set(train.classes) ^ set(test.classes))
        if odd:
            raise ConfigError(
                f"{self.folder} has other classes in train/ than in test/: {', '.join(odd[:5])}"
                f"{', ...' if odd[5:] else ''} in one only; both must have a folder for each class."
            )
        if len(train.classes) < 2:
            raise ConfigError(
                f"{self.folder}/train has one class only, {train.classes[0]}: there must be at least two."
            )
        return train, test

    def _listing(self, part: str) -> datasets.ImageFolder:
        if not (self.folder / part).is_dir():
            raise ConfigError(
                f"{self.folder} has no folder {part}/: data=image_folder needs data.root to be a folder with "
                "images as train/<class>/... and test/<class>/...; data=digits needs no files."
            )
        try:
            return datasets.ImageFolder(self.folder / part)
        except OSError as error:
            raise ConfigError(f"{self.folder / part} cannot be used as images: {error}") from None

    def _images(self, paths: list[str]) -> Tensor:
        """The images uint8 [N, C, H, W], all of the first one's size."""
        first = self._image(paths[0])
        out_NCHW = np.empty((len(paths), *first.shape), dtype=np.uint8)

        def fill(start: int) -> int:
            chunk = paths[start : start + _CHUNK]
            for i, path in enumerate(chunk, start):
                image = self._image(path)
                if image.shape != first.shape:
                    raise self._differs(path, image, paths[0], first)
                out_NCHW[i] = image
            return len(chunk)

        with ThreadPoolExecutor() as pool, _progress(len(paths)) as bar:
            for done in pool.map(fill, range(0, len(paths), _CHUNK)):
                bar.update(done)
        return torch.from_numpy(out_NCHW)

    def _image(self, path: str) -> np.ndarray:
        """One image uint8 [C, H, W]."""
        try:
            with Image.open(path) as file:
                image = file.convert("L" if self.channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"{path} is damaged ({error}); delete or replace it.") from None
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, self.channels).transpose(2, 0, 1)

    def _differs(self, path: str, image: np.ndarray, first_path: str, first: np.ndarray) -> ConfigError:
        (height, width), (first_height, first_width) = image.shape[1:], first.shape[1:]
        return ConfigError(
            f"{path} has {width}x{height} pixels and {first_path} {first_width}x{first_height}: "
            "set data.size, e.g. data.size=32, to scale all images to one size."
        )


def _description(path: str, name: str) -> bytes:
    try:
        about = os.stat(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    return os.fsencode(f"{name} {about.st_size} {about.st_mtime_ns}\n")


def _progress(total: int) -> tqdm:
    # disable=None: a bar only where stderr is a terminal.
    return tqdm(total=total, desc="Decoding", unit=" images", disable=None)
