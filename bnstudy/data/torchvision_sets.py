"""torchvision's datasets, with its downloads, checksums and readers."""

from __future__ import annotations

import http.client
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import calculate_md5, check_integrity

from bnstudy.data.cache import OFFLINE, CachedData
from bnstudy.data.dataset import DecodedImages
from bnstudy.validation import ConfigError

_TIMEOUT = 30.0  # seconds without a byte; torchvision itself waits forever
_DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class _TorchvisionSet(CachedData):
    """Raw files where torchvision puts them below `root`; torchvision downloads them if one is missing."""

    dataset: ClassVar[Callable[..., Any]]
    below_root: ClassVar[str]
    md5: ClassVar[Mapping[str, str]]
    """The published MD5 of each raw file."""

    @classmethod
    def archives(cls) -> Mapping[str, str]:
        """The MD5 of each file that torchvision downloads, by its path below `root`."""
        raise NotImplementedError

    @property
    def raw_folder(self) -> Path:
        return self.folder / self.below_root

    def source(self) -> str:
        if self._is_incomplete():
            self._download()
        for name, published in self.md5.items():
            path = self.raw_folder / name
            try:
                md5 = calculate_md5(path)
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
            if md5 != published:
                raise self._damage_error(path, md5)
        return " ".join(self.md5.values())

    def _damage_error(self, path: Path, md5: str) -> ConfigError:
        owner = next((s.__name__ for s in (MNIST, FashionMNIST, CIFAR10, CIFAR100) if md5 in s.md5.values()), None)
        what, cure = "damaged", "delete"
        if owner not in (None, self.label):
            what, cure = f"a file of {owner}", "rename"
        return ConfigError(
            f"{path} is {what}: {cure} {self.raw_folder} and run the command again to download {self.label}."
        )

    def _is_incomplete(self) -> bool:
        return not all((self.raw_folder / name).is_file() for name in self.md5)

    def _download(self) -> None:
        with self._new_folder() as folder, _timeout():
            try:
                self.dataset(folder, download=True)
                self.raw_folder.mkdir(parents=True, exist_ok=True)
                for name in self.md5:
                    (folder / self.below_root / name).replace(self.raw_folder / name)
            except _DOWNLOAD_ERRORS as error:
                raise self._download_error(" ".join(str(error).split()) or type(error).__name__) from None

    @contextmanager
    def _new_folder(self) -> Iterator[Path]:
        """A temporary root with the archives that are in `root` already, so that a failure leaves nothing behind."""
        created = [folder for folder in (self.raw_folder, *self.raw_folder.parents) if not folder.exists()]
        try:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                temporary = tempfile.TemporaryDirectory(dir=self.folder, prefix=".download-")
            except OSError as error:
                verb = "written" if self.folder.is_dir() else "created"
                raise self._download_error(f"data.root={self.root} cannot be {verb}: {error.strerror}") from None
            with temporary as name:
                for archive, md5 in self.archives().items():
                    if check_integrity(self.folder / archive, md5):
                        link = Path(name) / archive
                        link.parent.mkdir(parents=True, exist_ok=True)
                        link.symlink_to(self.folder / archive)
                yield Path(name)
        finally:
            for folder in created:
                with suppress(OSError):  # it has files: the download succeeded
                    folder.rmdir()

    def _download_error(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.label} is not in {self.raw_folder} and could not be downloaded: set data.root to the folder that "
            f"has {self.below_root} in it; {OFFLINE} The download failed: {reason}."
        )


@contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@dataclass(frozen=True)
class MNIST(_TorchvisionSet):
    """LeCun et al. 1998: 60,000 + 10,000 handwritten digits, 28x28 in grey."""

    dataset = datasets.MNIST
    below_root = "MNIST/raw"
    # torchvision checks the archives that it downloads, but not unpacked files.
    md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    @classmethod
    def archives(cls) -> Mapping[str, str]:
        return {f"{cls.below_root}/{name}": md5 for name, md5 in cls.dataset.resources}

    def decode(self) -> DecodedImages:
        return DecodedImages(*self._part("train"), *self._part("t10k"), tuple(self.dataset.classes))

    def _part(self, part: str) -> tuple[Tensor, Tensor]:
        x = read_image_file(str(self.raw_folder / f"{part}-images-idx3-ubyte"))
        return x.unsqueeze(1), read_label_file(str(self.raw_folder / f"{part}-labels-idx1-ubyte"))


@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """Xiao et al. 2017: 60,000 + 10,000 pieces of clothing, 28x28 in grey."""

    dataset = datasets.FashionMNIST
    below_root = "FashionMNIST/raw"
    # Of the files unpacked from the archives whose MD5 torchvision has; the same in several public projects.
    md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }


def _published_md5(dataset: type[datasets.CIFAR10]) -> dict[str, str]:
    """The raw files of a CIFAR set and their MD5."""
    return {**dict(dataset.train_list + dataset.test_list), dataset.meta["filename"]: dataset.meta["md5"]}


@dataclass(frozen=True)
class CIFAR10(_TorchvisionSet):
    """Krizhevsky 2009: 50,000 + 10,000 images of 10 classes, 32x32 in colour."""

    dataset = datasets.CIFAR10
    below_root = datasets.CIFAR10.base_folder
    md5 = _published_md5(datasets.CIFAR10)

    @classmethod
    def archives(cls) -> Mapping[str, str]:
        return {cls.dataset.filename: cls.dataset.tgz_md5}

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
