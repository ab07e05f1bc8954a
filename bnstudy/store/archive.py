"""The files of a packed store: `packed.json`, which lists all others with their hashes, and Parquet files.

A packed store is data from somebody else. Only the files that this version knows are read, each is checked by its hash
before it is parsed, and links are refused. `docs/reference/store.md` describes the format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bnstudy.store.files import is_plain_file
from bnstudy.validation import NAME, ConfigError, show

PACKED = "packed.json"
FORMAT = 1
"""The number of the format. Increase it when earlier versions would read a new packed store wrongly."""

NAMES = ("runs.parquet", "metrics.parquet", "timing.parquet", "plans.parquet", "originals.parquet")
"""The files beside `packed.json`. The last one has the original tables of runs; a thin store lacks it."""

PLANS_SCHEMA = pa.schema({"path": pa.string(), "time": pa.int64(), "text": pa.string()})
ORIGINALS_SCHEMA = pa.schema({"run_id": pa.string(), "metrics": pa.binary(), "timing": pa.binary()})

_HASH = re.compile(r"[0-9a-f]{64}")
_PLAN_PATH = re.compile(rf"studies/{NAME.pattern}/{NAME.pattern}/(?:reported/)?{NAME.pattern}\.json")
"""The paths of files of plans, which are joined to the results_dir: no name begins with a dot."""


@dataclass(frozen=True)
class Archive:
    """A packed store's files.

    is_thin: whether the training losses are those of `thin.LOSSES` steps. hashes: the SHA-256 of each file, by name.
    """

    folder: Path
    is_thin: bool
    runs: int
    hashes: Mapping[str, str]

    def check(self, name: str) -> Path:
        """The path of a file that has its hash. Raises ConfigError if it is missing or damaged."""
        path = self.folder / name
        found = hash_of(path) if is_plain_file(path) else None
        if found != self.hashes[name]:
            raise self.damaged(name, "it is missing" if found is None else "it is not the file that was packed")
        return path

    def open(self, name: str) -> pq.ParquetFile:
        """A file, after its hash was checked. Raises ConfigError if it is missing or damaged."""
        path = self.check(name)
        try:
            return pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowException):
            raise self.damaged(name, "it is not a Parquet table") from None

    def damaged(self, name: str, reason: str) -> ConfigError:
        return ConfigError(
            f"results_dir={self.folder} is a packed store with a damaged file, {name} ({reason}): get the folder again "
            "from where it came, or pack it again with bnstudy pack."
        )


def is_packed(folder: Path) -> bool:
    return is_plain_file(folder / PACKED)


def find_archive(folder: Path) -> Archive | None:
    """The files of a packed store; None if the folder is none.

    Raises:
        ConfigError: `packed.json` cannot be used.
    """
    return open_archive(folder) if is_packed(folder) else None


def open_archive(folder: Path) -> Archive:
    """Raises ConfigError if the folder is no packed store, or its `packed.json` cannot be used."""
    if not is_packed(folder):
        raise ConfigError(f"{folder} is not a packed store: it has no file {PACKED}. To make one: bnstudy pack FOLDER")
    try:
        content = json.loads((folder / PACKED).read_bytes())
    except (ValueError, RecursionError):
        content = None
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is int and schema > FORMAT:
        raise ConfigError(
            f"{folder / PACKED} has schema={schema}, and this version of bnstudy reads up to {FORMAT}: install a later "
            "version."
        )
    archive = _parse(folder, content) if isinstance(content, dict) and schema == FORMAT else None
    if archive is None:
        raise Archive(folder, False, 0, {}).damaged(PACKED, "it does not list the files of a packed store")
    return archive


def _parse(folder: Path, content: Mapping[str, Any]) -> Archive | None:
    thin, runs, files = (content.get(key) for key in ("thin", "runs", "files"))
    if not isinstance(thin, bool) or type(runs) is not int or not isinstance(files, dict):
        return None
    expected = {*NAMES[:-1]} if thin else {*NAMES}
    if {*files} != expected or not all(isinstance(v, str) and _HASH.fullmatch(v) for v in files.values()):
        return None
    return Archive(folder, thin, runs, files)


def refuse_packed(folder: Path) -> None:
    """Raises ConfigError if the folder is a packed store, which nothing is written into."""
    if is_packed(folder):
        raise read_only(folder)


def read_only(folder: Path) -> ConfigError:
    return ConfigError(
        f"results_dir={folder} is a packed store, which can only be read. To make a store of it: "
        f"bnstudy unpack {folder} results_dir=NEW"
    )


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class PlanText:
    """A file of a plan or a mark: `studies/<name>/<scale>/...`, its text, and when it was written, in ns since 1970."""

    path: Path
    time: int
    text: str


def plan_texts(archive: Archive) -> tuple[PlanText, ...]:
    """The files of plans and marks. Raises ConfigError if one would be outside of `studies/`."""
    return _plan_texts(archive.folder, archive.hashes["plans.parquet"], archive.is_thin)


@lru_cache(maxsize=8)  # a report asks for plans a dozen times; the hash names the content
def _plan_texts(folder: Path, sha256: str, thin: bool) -> tuple[PlanText, ...]:
    archive = Archive(folder, thin, 0, {"plans.parquet": sha256})
    with archive.open("plans.parquet") as file:
        try:
            table = file.read(PLANS_SCHEMA.names).select(PLANS_SCHEMA.names).cast(PLANS_SCHEMA)
            table.validate(full=True)
        except (KeyError, pa.ArrowException, OSError):
            raise archive.damaged("plans.parquet", "its columns cannot be read") from None
    rows = table.to_pylist()
    for row in rows:
        if None in row.values() or not _PLAN_PATH.fullmatch(row["path"]):
            raise archive.damaged("plans.parquet", f"path={show(row['path'])} is not allowed")
    return tuple(PlanText(folder / row["path"], row["time"], row["text"]) for row in rows)
