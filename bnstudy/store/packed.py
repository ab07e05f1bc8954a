"""A packed store as a store: the runs in a few Parquet files, which can be read and not written.

It is data from somebody else: each file is checked by its hash before it is parsed (`archive.py`), and what a run's
texts say is checked as it is in folders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bnstudy.store.archive import Archive, find_archive, open_archive, read_only
from bnstudy.store.identity import Identities
from bnstudy.store.integrity import DamagedRun, WrongContent, check_agreement, check_summary
from bnstudy.store.outcomes import with_present_outcome
from bnstudy.store.runs import RUN_ID, SCHEMAS, RunPaths, Store, check_identity, parse_spec
from bnstudy.validation import show

RUNS_SCHEMA = pa.schema(
    {"run_id": pa.string(), "metrics": pa.int64(), "timing": pa.int64(), "config": pa.string(), "summary": pa.string()}
)
"""One row a run, in the order of the rows in the tables: how many rows it has there, and the texts of its files."""


def open_store(results_dir: Path) -> Store:
    """The store in a folder, which may be packed.

    Raises:
        ConfigError: it is a packed store that is damaged, or that a later version wrote.
    """
    archive = find_archive(results_dir)
    return Store(results_dir) if archive is None else PackedStore(results_dir, archive)


@dataclass(frozen=True)
class Places:
    """Where the rows of runs are in the tables: `start` and `count` by table, in the order of `run_ids`."""

    run_ids: tuple[str, ...]
    start: Mapping[str, np.ndarray]
    count: Mapping[str, np.ndarray]

    @cached_property
    def of(self) -> dict[str, int]:
        return {run_id: place for place, run_id in enumerate(self.run_ids)}


@dataclass(frozen=True)
class PackedStore(Store):
    """The runs of a packed store. Each file is checked and each text is parsed once."""

    archive: Archive
    _cache: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)
    _identities: Identities = field(default_factory=Identities, repr=False, compare=False)

    @property
    def is_thin(self) -> bool:
        return self.archive.is_thin

    def is_finished(self, run_id: str) -> bool:
        return run_id in self.places.of

    def finished(self) -> list[str]:
        return sorted(self.places.run_ids)

    def begun(self) -> list[str]:
        return self.finished()

    def run_ids(self) -> list[str]:
        return self.finished()

    def has_begun(self, run_id: str) -> bool:
        return self.is_finished(run_id)

    def begin(self, run_id: str, spec: Mapping[str, Any]) -> RunPaths:  # noqa: ARG002
        raise read_only(self.results_dir)

    def finish(self, *_: Any) -> None:
        raise read_only(self.results_dir)

    def summary(self, run_id: str) -> dict[str, Any]:
        return self._parse(
            run_id, "summary", lambda text: with_present_outcome(check_summary(json.loads(text), run_id))
        )

    def config(self, run_id: str) -> dict[str, Any]:
        check = partial(check_identity, run_id=run_id, id_of=self._identities.run_id_of)
        return self._parse(run_id, "config", lambda text: check(parse_spec(text)))

    def table(self, run_id: str, name: str) -> pa.Table:
        return self.tables([run_id], name)[0].combine_chunks()

    def outcome(self, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        spec, summary = self.config(run_id), self.summary(run_id)
        try:
            check_agreement(summary, spec)
        except WrongContent as error:
            raise self._unusable(run_id, "summary", error) from None
        return spec, summary

    def check(self, run_id: str) -> dict[str, Any]:
        _, summary = self.outcome(run_id)
        for name in SCHEMAS:
            self._file(name)
        return summary

    def text(self, run_id: str, name: str) -> str:
        """The exact text of a run's `config` or `summary`."""
        return str(self._texts[name][self._place(run_id)].as_py())

    def tables(self, run_ids: Iterable[str], name: str) -> tuple[pa.Table, np.ndarray]:
        """The rows of `metrics` or `timing` of these runs, one run after the other, and how many each has."""
        file, places = self._file(name), [self._place(run_id) for run_id in run_ids]
        starts, counts = self.places.start[name][places], self.places.count[name][places]
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum([0, *sizes])
        first, last = (np.searchsorted(ends, at, "right") - 1 for at in (starts, starts + counts - 1))
        groups = sorted({group for a, b in zip(first, last, strict=True) for group in range(a, b + 1)})
        begins = np.zeros(len(sizes), int)
        begins[groups] = np.cumsum([0, *(sizes[group] for group in groups)])[:-1]
        schema = SCHEMAS[name]
        try:
            table = file.read_row_groups(groups, columns=schema.names)
            if not table.schema.equals(schema):
                table = table.select(schema.names).cast(schema)
            table.validate(full=True)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise self.archive.damaged(f"{name}.parquet", str(error).partition("\n")[0]) from None
        if table.num_rows != sum(sizes[group] for group in groups) or _lacks_values(table):
            raise self.archive.damaged(f"{name}.parquet", "it lacks values")
        own = starts - ends[first] + begins[first]
        rows = np.arange(counts.sum()) + np.repeat(own - counts.cumsum() + counts, counts)
        if len(rows) != table.num_rows or not np.array_equal(rows, np.arange(len(rows))):
            table = table.unify_dictionaries().combine_chunks().take(pa.array(rows))
        return pa.table([_in_order_of_rows(column) for column in table.columns], table.schema), counts

    @cached_property
    def places(self) -> Places:
        """Raises ConfigError if the runs are not those of the tables."""
        table = self._read_runs(["run_id", *SCHEMAS])
        ids = tuple(table["run_id"].to_pylist())
        wrong = [run_id for run_id in ids if not RUN_ID.fullmatch(run_id)]
        if wrong or len({*ids}) < len(ids) or len(ids) != self.archive.runs:
            reason = f"run_id={show(wrong[0])} is not allowed" if wrong else "its runs are not those of packed.json"
            raise self.archive.damaged("runs.parquet", reason)
        count = {name: table[name].to_numpy() for name in SCHEMAS}
        for name, rows in count.items():
            total = self._file(name).metadata.num_rows
            if (rows < 1).any() or (rows > total).any() or rows.sum() != total:
                raise self.archive.damaged("runs.parquet", f"its rows are not those of {name}.parquet")
        return Places(ids, {name: rows.cumsum() - rows for name, rows in count.items()}, count)

    @cached_property
    def _texts(self) -> dict[str, pa.ChunkedArray]:
        table = self._read_runs(["config", "summary"]).combine_chunks()
        return {name: table[name] for name in table.column_names}

    def _read_runs(self, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([RUNS_SCHEMA.field(name) for name in columns])
        try:
            table = self._file("runs").read(list(columns)).select(columns).cast(schema)
            table.validate(full=True)
        except (pa.ArrowException, OSError, KeyError):
            raise self.archive.damaged("runs.parquet", "its columns cannot be read") from None
        if _lacks_values(table):
            raise self.archive.damaged("runs.parquet", "it lacks values")
        return table

    def _file(self, name: str) -> pq.ParquetFile:
        if ("", name) not in self._cache:
            self._cache["", name] = self.archive.open(f"{name}.parquet")
        return self._cache["", name]

    def _place(self, run_id: str) -> int:
        try:
            return self.places.of[run_id]
        except KeyError:
            raise DamagedRun(f"Run {run_id} is not in the packed store {self.results_dir}.") from None

    def _parse(self, run_id: str, name: str, parse: Callable[[str], Any]) -> Any:
        if (run_id, name) not in self._cache:
            text = self.text(run_id, name)
            try:
                self._cache[run_id, name] = parse(text)
            except MemoryError:
                raise
            except Exception as error:
                raise self._unusable(run_id, name, error) from error
        return self._cache[run_id, name]

    def _unusable(self, run_id: str, name: str, error: Exception) -> DamagedRun:
        reason = str(error) if isinstance(error, WrongContent) else "it cannot be read"
        return DamagedRun(
            f"Run {run_id} in {self.results_dir / 'runs.parquet'} cannot be used ({name}: {reason}): get the folder "
            "again from where it came, or pack it again with bnstudy pack."
        )


def _lacks_values(table: pa.Table) -> bool:
    return any(column.null_count for column in table.columns)


def _in_order_of_rows(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts with those that it has, in the order of the rows, as if the runs had been read one by one."""
    if not pa.types.is_dictionary(column.type):
        return column
    array = column.unify_dictionaries().combine_chunks()
    order = array.indices.unique()
    present = np.zeros(len(array.dictionary), np.int32)
    present[order.to_numpy()] = np.arange(len(order))
    indices = pa.array(present[array.indices.to_numpy()])
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, array.dictionary.take(order))])


def open_packed(folder: Path) -> PackedStore:
    """Raises ConfigError if the folder is no packed store, or is damaged."""
    return PackedStore(folder, open_archive(folder))
