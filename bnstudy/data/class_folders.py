"""The files of images in `<split>/<class>/`, and what is left out beside them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS

from bnstudy.data.image_files import show_path
from bnstudy.validation import ConfigError

_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir"}  # of macOS's archives, and thumbnails on a Synology disk


@dataclass(frozen=True)
class ClassFolders:
    """One split of a folder of images.

    samples: path and label of each image, in the order of torchvision's ImageFolder.
    left_out: paths of other files, and of links to folders below a class folder.
    """

    folder: Path
    classes: tuple[str, ...]
    samples: tuple[tuple[str, int], ...]
    left_out: tuple[str, ...]


def list_classes(folder: Path) -> ClassFolders:
    """The classes and images of one split. Hidden files and folders are ignored.

    Raises:
        ConfigError: a class has no images or unprintable characters in its name, or something cannot be read.
    """
    entries = _scan(folder)
    classes = [entry.name for entry in entries if entry.is_dir()]
    if not classes:
        raise ConfigError(f"{show_path(folder)} has no class folders: move each image to {folder.name}/<class>/.")
    samples: list[tuple[str, int]] = []
    left_out = [entry.path for entry in entries if not entry.is_dir()]
    for label, name in enumerate(classes):
        path = os.path.join(folder, name)
        if not name.isprintable():
            raise ConfigError(f"The class folder {show_path(path)} has unprintable characters in its name: rename it.")
        images, others = _walk(path)
        if not images:
            found = f", only {_few(os.path.relpath(other, path) for other in others)}" if others else ""
            raise ConfigError(f"{path} has no images ({', '.join(IMG_EXTENSIONS)}){found}: add some or remove it.")
        samples += [(image, label) for image in images]
        left_out += others
    return ClassFolders(folder, tuple(classes), tuple(samples), tuple(left_out))


def refuse_shared_folders(folders: Iterable[Path]) -> None:
    """Refuse a link that makes the images of one class folder those of another, in the same split or the other one."""
    real: dict[Path, Path] = {}
    for folder in folders:
        if (other := real.setdefault(folder.resolve(), folder)) != folder:
            raise ConfigError(f"{other} and {folder} are the same folder: each class in each split needs its own.")
    for target, folder in real.items():
        for parent in target.parents:
            if parent in real:
                raise ConfigError(f"{real[parent]} is a link to a folder that contains {folder}: remove the link.")


def describe_left_out(root: Path, splits: Iterable[ClassFolders]) -> str:
    """How many files are left out, and the first of them; "" if all are taken."""
    paths = [os.path.relpath(path, root) for split in splits for path in split.left_out]
    if not paths:
        return ""
    noun = "entry is" if len(paths) == 1 else "entries are"
    return f"{len(paths):,} {noun} left out, no files with {', '.join(IMG_EXTENSIONS)}: {_few(paths)}."


def other_splits(root: Path, classes: Iterable[str]) -> list[str]:
    """The folders beside train/ and test/ that have class folders of the same names, such as val."""
    beside = [entry.name for entry in _scan(root) if entry.is_dir() and entry.name not in ("train", "test")]
    return [name for name in beside if any((root / name / label).is_dir() for label in classes)]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, in the order of its name."""
    try:
        return sorted((e for e in os.scandir(folder) if not _is_hidden(e.name)), key=lambda entry: entry.name)
    except OSError as error:
        _refuse(error)


def _walk(folder: str) -> tuple[list[str], list[str]]:
    """The images below a class folder, and what is left out, in order."""
    images, others, found = [], [], []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found.append((parent, sorted(files), sorted(links)))
    for parent, files, links in sorted(found):
        others += [os.path.join(parent, name) for name in links]
        for name in files:
            path = os.path.join(parent, name)
            if name.lower().endswith(IMG_EXTENSIONS) and not _is_hidden(name):
                _require_file(path)
                images.append(path)
            elif not _is_hidden(name):
                others.append(path)
    return images, others


def _require_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        _refuse(error)
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{show_path(path)} is not a regular file but a pipe, socket or device: delete it.")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _refuse(error: OSError) -> NoReturn:
    raise ConfigError(f"{show_path(str(error.filename))} cannot be read: {error.strerror}.") from None


def _few(names: Iterable[str]) -> str:
    """The first three names, escaped."""
    first = list(names)
    return ", ".join(map(show_path, first[:3])) + (", ..." if first[3:] else "")
