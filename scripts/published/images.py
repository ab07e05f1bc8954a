"""CIFAR-10 as JPEG files: a folder, or a tar file that is unpacked once into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from bnstudy.validation import ConfigError

SHA256 = "e3cf9dc2d69b9215ec0733cd60456589a9e9ed546489a6eb58670d658c706bd2"
FOLDER = "cifar10-jpeg"


def find_cifar10(data: Path) -> Path:
    """The folder of the JPEG files: `DATA/cifar10-jpeg`, or `DATA/cifar10-jpeg.tar` unpacked.

    Raises:
        ConfigError: neither is there, or the tar file is another one.
    """
    folder, archive = data / FOLDER, data / f"{FOLDER}.tar"
    if folder.is_dir():
        return folder
    if not archive.is_file():
        raise ConfigError(f"DATA={data} has neither {FOLDER}/ nor {FOLDER}.tar: CIFAR-10 as JPEG files is needed.")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bnstudy"
    return unpack(archive, cache)


def unpack(archive: Path, cache: Path, sha256: str = SHA256) -> Path:
    """Unpack the archive into `cache`, unless it was before: it appears there by rename, whole or not at all."""
    target = cache / f"{FOLDER}-{sha256[:12]}"
    if target.is_dir():
        return target / FOLDER
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ConfigError(f"{archive} has the SHA-256 {found}, not {sha256}: it is damaged or another file.")
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=cache))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target / FOLDER
