"""Where the files of plans and marks are: in folders, or in the file of a packed store."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Protocol

from bnstudy.store.archive import PlanText, find_archive, plan_texts
from bnstudy.validation import ConfigError


class PlanFiles(Protocol):
    """The files of the plans under a results_dir."""

    def folders(self) -> list[Path]:
        """The folders `studies/<name>/<scale>`, sorted."""

    def files(self, folder: Path) -> list[Path]:
        """The JSON files in a folder, the oldest first."""

    def time(self, path: Path) -> int:
        """When the file was written, in nanoseconds since 1970."""

    def text(self, path: Path) -> str:
        """Raises ConfigError if the path is no file."""


class Folders:
    """Files on disk."""

    def __init__(self, results_dir: Path) -> None:
        self.results_dir = results_dir

    def folders(self) -> list[Path]:
        return sorted((self.results_dir / "studies").glob("*/*/"))

    def files(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("*.json"), key=lambda path: (self.time(path), path))

    def time(self, path: Path) -> int:
        return path.lstat().st_mtime_ns

    def text(self, path: Path) -> str:
        if not path.is_file():  # a pipe would be waited for
            raise ConfigError("it is no file")
        return path.read_text(encoding="utf-8")


class PackedFiles:
    """Files that are rows of `plans.parquet`."""

    def __init__(self, texts: tuple[PlanText, ...]) -> None:
        self.texts = {text.path: text for text in texts}

    @cached_property
    def _by_folder(self) -> dict[Path, list[Path]]:
        found: dict[Path, list[Path]] = {}
        for path in sorted(self.texts, key=lambda path: (self.time(path), path)):
            found.setdefault(path.parent, []).append(path)
        return found

    def folders(self) -> list[Path]:
        return sorted({folder.parent if folder.name == "reported" else folder for folder in self._by_folder})

    def files(self, folder: Path) -> list[Path]:
        return self._by_folder.get(folder, [])

    def time(self, path: Path) -> int:
        return self.texts[path].time

    def text(self, path: Path) -> str:
        return self.texts[path].text


def find_plan_files(results_dir: Path) -> PlanFiles:
    """Raises ConfigError if the folder is a packed store that is damaged."""
    archive = find_archive(results_dir)
    return Folders(results_dir) if archive is None else PackedFiles(plan_texts(archive))
