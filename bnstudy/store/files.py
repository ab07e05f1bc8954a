"""Atomic writes, and the folders of the configs."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")

THREADS = 8
"""Threads that write files. A disk confirms several files at once: 8 wait a tenth of the time that one does."""


def conf_dir() -> Path:
    """The folder of the configs: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it. Readers see all of the file or nothing.

    The content is on the disk before the file has its name, so that this is also true after a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write(temporary)
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_plain_file(path: Path) -> bool:
    """Whether a file itself is there: a pipe would be waited for, and a link may lead to a device that never ends.

    Raises:
        OSError: it cannot be known now.
    """
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path, seconds: float = 3600) -> None:
    """Delete the temporary files of killed writers in a folder, those of `write_atomic`.

    seconds: a younger one may belong to a living writer, also on another machine.
    """
    with suppress(FileNotFoundError):
        for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):
            path = folder / name
            with suppress(FileNotFoundError):  # its writer has just renamed it
                if path.lstat().st_mtime < time.time() - seconds:
                    path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, to_json(value))


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def holds(path: Path, content: bytes) -> bool:
    """Whether this is the content of a file."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def write_together(write: Callable[[T], object], items: Sequence[T]) -> list[tuple[T, OSError]]:
    """Call `write` for all items in threads, whose waits for the disk overlap; returns those for which it failed."""

    def attempt(item: T) -> OSError | None:
        try:
            write(item)
        except OSError as error:
            return error
        return None

    if len(items) == 1:
        errors = [attempt(items[0])]
    else:
        with ThreadPoolExecutor(THREADS) as threads:
            errors = list(threads.map(attempt, items))
    return [(item, error) for item, error in zip(items, errors, strict=True) if error is not None]
