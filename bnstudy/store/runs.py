"""The store: one folder a run, `<results_dir>/runs/<run_id>/`. The plans of studies are in `store/plans.py`.

`docs/reference/store.md` describes the files. `Store.begin` and `Store.finish` write them, except for the checkpoint
and the error: `sweep/worker.py` writes both, the checkpoint through `train/checkpoint.py`. Each appears by an atomic
rename. Reading a store executes nothing in it, and needs no torch.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bnstudy.store.files import holds, remove_abandoned, sync, to_json, write_bytes, write_text
from bnstudy.store.identity import run_id_of
from bnstudy.store.integrity import (
    DamagedRun,
    WrongContent,
    check_agreement,
    check_summary,
    check_table,
    damaged,
    read_stored,
    require,
    seal,
)
from bnstudy.store.outcomes import with_present_outcome
from bnstudy.store.renames import with_present_names

_TEXT = pa.dictionary(pa.int32(), pa.string())
METRICS_SCHEMA = pa.schema(
    {"step": pa.int64(), "epoch": pa.float64(), "split": _TEXT, "metric": _TEXT, "layer": _TEXT, "value": pa.float64()}
)
TIMING_SCHEMA = pa.schema({"step": pa.int64(), "seconds": pa.float64(), "step_seconds": pa.float64()})
SCHEMAS = {"metrics": METRICS_SCHEMA, "timing": TIMING_SCHEMA}

RUN_ID = re.compile(r"[0-9a-f]{12}")

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class RunPaths:
    """All paths of one run, made when asked for: a sweep looks at thousands of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @cached_property
    def metrics(self) -> Path:
        return self.folder / "metrics.parquet"

    @cached_property
    def timing(self) -> Path:
        return self.folder / "timing.parquet"

    @cached_property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @cached_property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @cached_property
    def error(self) -> Path:
        return self.folder / "error.txt"


@dataclass(frozen=True)
class Store:
    """The runs under one results_dir. `packed.open_store` gives that of a folder which may be a packed store."""

    results_dir: Path

    def run_ids(self) -> list[str]:
        """The ids of all folders of runs, whatever is in them, sorted."""
        folder = self.results_dir / "runs"
        return sorted(filter(RUN_ID.fullmatch, os.listdir(folder))) if folder.is_dir() else []

    def run(self, run_id: str) -> RunPaths:
        return RunPaths(self.results_dir / "runs" / run_id)

    def is_finished(self, run_id: str) -> bool:
        # False if the folder cannot be read, where Path.exists raises.
        return os.path.exists(f"{self.results_dir}/runs/{run_id}/summary.json")

    def finished(self) -> list[str]:
        """The ids of the finished runs, sorted."""
        return sorted(p.parent.name for p in (self.results_dir / "runs").glob("*/summary.json"))

    def begun(self) -> list[str]:
        """The ids of the runs that have begun, finished ones included, sorted."""
        folder = self.results_dir / "runs"
        return sorted({p.parent.name for name in ("config.yaml", "summary.json") for p in folder.glob(f"*/{name}")})

    def has_begun(self, run_id: str) -> bool:
        """Whether the run has begun; finished ones have."""
        return os.path.exists(self.run(run_id).config) or self.is_finished(run_id)

    def begin(self, run_id: str, spec: Mapping[str, Any]) -> RunPaths:
        """Make the run's folder, and write its `config.yaml` unless it is there and intact."""
        paths = self.run(run_id)
        try:
            self.config(run_id)
        except DamagedRun:  # it is missing, or was half-written by a machine that lost power
            write_text(paths.config, format_spec(spec))
        return paths

    def finish(self, run_id: str, metrics: pa.Table, timing: pa.Table, summary: Mapping[str, Any]) -> None:
        """Write the results of a run, unless another worker has. `summary.json` marks the run as finished.

        It comes last, when the tables are on the disk, and has their hashes.
        """
        paths = self.run(run_id)
        if not self.is_finished(run_id):
            files = {
                paths.metrics: to_parquet(metrics, METRICS_SCHEMA),
                paths.timing: to_parquet(timing, TIMING_SCHEMA),
            }
            sealed = seal(summary, run_id, {path.name: content for path, content in files.items()})
            files[paths.summary] = to_json(sealed)
            self._write(run_id, files)
            if not all(holds(path, content) for path, content in files.items()) and not self._is_intact(run_id):
                # A worker that lost its lease wrote in between: its timing is another.
                self._write(run_id, files)
        if paths.checkpoint.exists():
            sync(paths.folder)  # the summary's name is on the disk before the checkpoint is gone
        for path in (paths.checkpoint, paths.error):
            path.unlink(missing_ok=True)
        remove_abandoned(paths.folder, seconds=0)  # the folder is this worker's

    def _write(self, run_id: str, files: Mapping[Path, bytes]) -> None:
        try:
            for path, content in files.items():
                write_bytes(path, content)
        except FileNotFoundError:  # another worker finished the run, and removed our temporary file
            if not self.is_finished(run_id):
                raise

    def _is_intact(self, run_id: str) -> bool:
        try:
            self._check_tables(run_id, self.summary(run_id))
        except DamagedRun:
            return False
        return True

    # The methods below raise DamagedRun if a file is missing, cannot be read, or is not what was written for the run.

    def summary(self, run_id: str) -> dict[str, Any]:
        """The content of `summary.json`, with present keys."""
        return self._read(
            self.run(run_id).summary,
            lambda p: with_present_outcome(check_summary(json.loads(p.read_text("utf-8")), run_id)),
        )

    def config(self, run_id: str) -> dict[str, Any]:
        """The content of `config.yaml`, with present names."""
        return self._read(self.run(run_id).config, lambda p: check_identity(parse_spec(p.read_text("utf-8")), run_id))

    def table(self, run_id: str, name: str) -> pa.Table:
        """`metrics` or `timing` of a finished run."""
        summary = self.summary(run_id)
        return self._read(self._table(run_id, name), lambda p: _parse_table(read_stored(p, summary), SCHEMAS[name]))

    def outcome(self, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The configuration and the summary of a finished run, which agree."""
        spec, summary = self.config(run_id), self.summary(run_id)
        try:
            check_agreement(summary, spec)
        except WrongContent as error:
            raise damaged(self.run(run_id).summary, error) from None
        return spec, summary

    def check(self, run_id: str) -> dict[str, Any]:
        """The summary of a finished run, after all of the run's files were checked by their hashes."""
        _, summary = self.outcome(run_id)
        self._check_tables(run_id, summary)
        return summary

    def _check_tables(self, run_id: str, summary: Mapping[str, Any]) -> None:
        for name in SCHEMAS:  # past the cache of a shared store, which has parsed tables under these paths
            Store._read(self, self._table(run_id, name), lambda p: read_stored(p, summary))

    def _table(self, run_id: str, name: str) -> Path:
        return self.run(run_id).folder / f"{name}.parquet"

    def _read(self, path: Path, read: Callable[[Path], Any]) -> Any:
        try:
            if not path.is_file():
                raise WrongContent("it is not a file" if path.exists() else "it is missing")
            return read(path)
        except MemoryError:
            raise
        except Exception as error:  # each file format fails in its own ways
            raise damaged(path, error) from error


@dataclass(frozen=True)
class SharedStore(Store):
    """A store with several readers in turn. A file is read and checked once, and kept until its last reader is done.

    A table, which a reader reads only once, is kept for later readers alone.

    readers: by run_id, the number of remaining readers, including the present one.
    """

    readers: Counter[str] = field(default_factory=Counter)
    _cache: dict[Path, Any] = field(default_factory=dict)

    def release(self, run_ids: Iterable[str]) -> None:
        """Count one reader less of each of these runs."""
        self.readers.subtract(run_ids)
        for path in [path for path in self._cache if self.readers[path.parent.name] < 1]:
            del self._cache[path]

    def _read(self, path: Path, read: Callable[[Path], Any]) -> Any:
        if path in self._cache:
            return self._cache[path]
        content = super()._read(path, read)
        if self.readers[path.parent.name] > (path.suffix == ".parquet"):
            self._cache[path] = content
        return content


def format_spec(spec: Mapping[str, Any]) -> str:
    """The text of a `config.yaml`. The runs of a sweep differ in a few entries: what they share is formatted once."""
    return "".join(_format(json.dumps({key: value})) for key, value in spec.items())


@lru_cache(maxsize=4096)
def _format(entry: str) -> str:
    return str(yaml.dump(json.loads(entry), Dumper=Dumper, sort_keys=False))


LONG_SPEC = 10_000
"""Characters of a spec that may nest too deeply."""
MAX_DEPTH = 100

_SCALAR_LINE = re.compile(r"^(\w+): (-?\.?\w[\w.+-]*)$", re.MULTILINE)
"""A line of a spec with a number or a word and nothing else: `seed: 3`."""


def parse_spec(text: str) -> dict[str, Any]:
    """The content of a `config.yaml`, with present names.

    The runs of a sweep differ in a few scalar lines. The rest is parsed once, and is the same object in all of them.
    """
    scalars = dict(_SCALAR_LINE.findall(text))
    shared = _parse(_SCALAR_LINE.sub(r"\1: 0", text))
    if not isinstance(shared, dict) or any(type(shared.get(key)) is not int or shared[key] for key in scalars):
        return with_present_names(_load_yaml(text))
    return {**shared, **{key: _parse(value) for key, value in scalars.items()}}


@lru_cache(maxsize=4096)
def _parse(text: str) -> Any:
    return with_present_names(_load_yaml(text))


def _load_yaml(text: str) -> Any:
    """Raises ValueError for aliases, which multiply a short text endlessly, and for nesting that ends the process."""
    if "*" in text or len(text) > LONG_SPEC:
        depth = 0
        for event in yaml.parse(text, Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
                raise ValueError("YAML aliases, or too deep")
    return yaml.load(text, Loader)


def to_parquet(table: pa.Table, schema: pa.Schema) -> bytes:
    """A table as the content of a file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table if table.schema.equals(schema) else table.cast(schema), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _parse_table(content: bytes, schema: pa.Schema) -> pa.Table:
    # One thread without read-ahead: setting up more takes longer than reading a few thousand rows.
    with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
        return check_table(file.read(use_threads=False), schema)


def check_identity(spec: Any, run_id: str, id_of: Callable[[Mapping[str, Any]], str] = run_id_of) -> dict[str, Any]:
    """The spec itself. Raises WrongContent if it is not that of the run."""
    require(isinstance(spec, dict), "it is not a mapping")
    require(id_of(spec) == run_id, "it is not the configuration of this run")
    return spec
