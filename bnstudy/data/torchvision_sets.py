"""torchvision's datasets, with its downloads, checksums and readers."""

from __future__ import annotations

import http.client
import socket
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import calculate_md5

from bnstudy.data.cache import OFFLINE, CachedData
from bnstudy.data.dataset import DecodedImages
from bnstudy.validation import ConfigError

_TIMEOUT = 30.0  # seconds without a byte; torchvision itself waits forever
_DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)
_READ_ERRORS = (RuntimeError, AssertionError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class _TorchvisionSet(CachedData):
    """Raw files where torchvision puts them below `root`; torchvision downloads them if one is missing."""

    dataset: ClassVar[Callable[..., Any]]
    below_root: ClassVar[str]
    md5: ClassVar[Mapping[str, str | None]]
    """The MD5 of each raw file; None if it is not published."""

    @property
    def raw_folder(self) -> Path:
        return self.folder / self.below_root

    def source(self) -> str:
        if self._is_incomplete():
            self._download()
        found = []
        for name, published in self.md5.items():
            path = self.raw_folder / name
            try:
                md5 = calculate_md5(path)
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
            if published not in (md5, None):
                raise self._damage_error(path)
            found.append(f"{name}:{md5}")
        return " ".join(found)

    def _damage_error(self, path: Path) -> ConfigError:
        return ConfigError(
            f"{path} is damaged: delete {self.raw_folder} and run the command again to download {self.label}."
        )

    def _is_incomplete(self) -> bool:
        return not all((self.raw_folder / name).is_file() for name in self.md5)

    def _download(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._download_error(f"data.root={self.root} cannot be created: {error.strerror}") from None
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT)
        try:
            self.dataset(self.folder, download=True)
        except _DOWNLOAD_ERRORS as error:
            raise self._download_error(" ".join(str(error).split()) or type(error).__name__) from None
        finally:
            socket.setdefaulttimeout(before)
        if self._is_incomplete():
            raise self._download_error("torchvision found nothing to download")

    def _download_error(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.label} is not in {self.raw_folder} and could not be downloaded ({reason}): set data.root to "
            f"the folder that has {self.below_root} in it; {OFFLINE}"
        )


@dataclass(frozen=True)
class MNIST(_TorchvisionSet):
    """LeCun et al. 1998: 60,000 + 10,000 handwritten digits, 28x28 in grey."""

    dataset = datasets.MNIST
    below_root = "MNIST/raw"
    # torchvision checks the archives that it downloads, but not unpacked files.
    md5: ClassVar[Mapping[str, str | None]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def decode(self) -> DecodedImages:
        return DecodedImages(*self._part("train"), *self._part("t10k"), tuple(self.dataset.classes))

    def _part(self, part: str) -> tuple[Tensor, Tensor]:
        labels = self.raw_folder / f"{part}-labels-idx1-ubyte"
        x = self._read(read_image_file, self.raw_folder / f"{part}-images-idx3-ubyte")
        y = self._read(read_label_file, labels)
        if len(x) != len(y) or y.max() >= len(self.dataset.classes):
            raise self._damage_error(labels)
        return x.unsqueeze(1), y

    def _read(self, read: Callable[[str], Tensor], path: Path) -> Tensor:
        try:
            return read(str(path))
        except _READ_ERRORS:
            raise self._damage_error(path) from None


@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """Xiao et al. 2017: 60,000 + 10,000 pieces of clothing, 28x28 in grey."""

    dataset = datasets.FashionMNIST
    below_root = "FashionMNIST/raw"
    md5 = dict.fromkeys(MNIST.md5)


def _published_md5(dataset: type[datasets.CIFAR10]) -> dict[str, str | None]:
    """The raw files of a CIFAR set and their MD5."""
    return {**dict(dataset.train_list + dataset.test_list), dataset.meta["filename"]: dataset.meta["md5"]}


@dataclass(frozen=True)
class CIFAR10(_TorchvisionSet):
    """Krizhevsky 2009: 50,000 + 10,000 images of 10 classes, 32x32 in colour."""

    dataset = datasets.CIFAR10
    below_root = datasets.CIFAR10.base_folder
    md5 = _published_md5(datasets.CIFAR10)

    def decode(self) -> DecodedImages:
        train, test = parts = [self.dataset(self.folder, train=train) for train in (True, False)]
        train_x, test_x = (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in parts)
        return DecodedImages(
            train_x, torch.tensor(train.targets), test_x, torch.tensor(test.targets), tuple(train.classes)
        )


@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """Krizhevsky 2009: 50,000 + 10,000 images of 100 classes, 32x32 in colour."""

    dataset = datasets.CIFAR100
    below_root = datasets.CIFAR100.base_folder
    md5 = _published_md5(datasets.CIFAR100)
