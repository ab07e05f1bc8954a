"""The way back from a packed store to the folders of runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from bnstudy.store.archive import ORIGINALS_SCHEMA, PlanText, plan_texts
from bnstudy.store.files import write_bytes, write_together
from bnstudy.store.links import refuse_links
from bnstudy.store.packed import PackedStore
from bnstudy.store.runs import SCHEMAS, Store
from bnstudy.validation import ConfigError

T = TypeVar("T")

UNPACKED_TOGETHER = 64
RESTORED_TOGETHER = 512
"""Reading their rows reads whole groups of them."""


@dataclass
class Unpacked:
    """What was written. present: runs that the target had finished already."""

    runs: int = 0
    present: int = 0


def unpack(packed: PackedStore, target: Path, progress: Callable[[int], object]) -> Unpacked:
    """Write all files of a packed store as they were, but for runs that the target has finished.

    Everything is checked before the first file is written.

    Raises:
        ConfigError: the packed store is thin or damaged, or a folder of the target is a link.
        OSError: the target cannot be written.
    """
    store, done = Store(target), Unpacked()
    if packed.is_thin:
        raise ConfigError(
            f"{packed.results_dir} is thin: it lacks most training losses, so that its runs cannot be restored. "
            f"Reports read it as it is: bnstudy-report results_dir={packed.results_dir}"
        )
    plans = _plans_in(packed, target)
    refuse_links(target, [*(store.run(run_id).folder for run_id in packed.finished()), *(p.parent for p in plans)])
    for run_id, tables in _originals(packed):
        _check_run(packed, run_id, tables)

    def write(run: tuple[str, dict[str, bytes]]) -> None:
        run_id, tables = run
        paths = store.run(run_id)
        texts = {name: packed.text(run_id, name).encode() for name in ("config", "summary")}
        write_bytes(paths.config, texts["config"])
        for name, content in tables.items():
            write_bytes(paths.folder / f"{name}.parquet", content)
        write_bytes(paths.summary, texts["summary"])  # it makes the run finished
        progress(1)

    for batch in _in_batches(_originals(packed), UNPACKED_TOGETHER):
        todo = [run for run in batch if not store.is_finished(run[0])]
        if failed := write_together(write, todo) if todo else []:
            raise failed[0][1]
        done.runs += len(todo)
        done.present += len(batch) - len(todo)
    _write_plans(plans)
    return done


def restore_thin(packed: PackedStore, target: Path, progress: Callable[[int], object]) -> None:
    """Write the runs and plans of a thin store as folders, for whoever adds runs and packs the store again, thin.

    Such runs look like any finished run and lack most losses, so `bnstudy unpack` refuses thin stores.

    Raises:
        ConfigError: the packed store is damaged.
        DamagedRun: one of its runs is.
        OSError: the target cannot be written.
    """
    store = Store(target)

    def write(run: tuple[str, list[pa.Table]]) -> None:
        run_id, (metrics, timing) = run
        spec, summary = packed.outcome(run_id)
        store.begin(run_id, spec)
        store.finish(run_id, metrics, timing, summary)
        progress(1)

    for run_ids in _in_batches(packed.places.run_ids, RESTORED_TOGETHER):
        by_name = [_split(*packed.tables(run_ids, name)) for name in SCHEMAS]
        if failed := write_together(write, [(run_id, [*own]) for run_id, *own in zip(run_ids, *by_name, strict=True)]):
            raise failed[0][1]
    _write_plans(_plans_in(packed, target))


def _split(table: pa.Table, counts: np.ndarray) -> list[pa.Table]:
    """The rows of each run."""
    return [table.slice(end - count, count) for end, count in zip(counts.cumsum(), counts, strict=True)]


def _plans_in(packed: PackedStore, target: Path) -> dict[Path, PlanText]:
    return {target / text.path.relative_to(packed.results_dir): text for text in plan_texts(packed.archive)}


def _write_plans(plans: Mapping[Path, PlanText]) -> None:
    for path, text in plans.items():
        if not path.exists():
            write_bytes(path, text.text.encode())
            os.utime(path, ns=(text.time, text.time))


def _originals(packed: PackedStore) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The id of each run, and the files of its tables by `metrics` and `timing`."""
    name, known = "originals.parquet", iter(packed.places.run_ids)
    with packed.archive.open(name) as file:
        if not file.schema_arrow.equals(ORIGINALS_SCHEMA) or file.metadata.num_rows != len(packed.places.run_ids):
            raise packed.archive.damaged(name, "its runs or columns are not those of runs.parquet")
        try:
            for batch in file.iter_batches(UNPACKED_TOGETHER):
                batch.validate(full=True)
                for row in batch.to_pylist():
                    if row["run_id"] != next(known) or None in row.values():
                        raise packed.archive.damaged(name, "its runs are not those of runs.parquet")
                    yield row["run_id"], {key: row[key] for key in SCHEMAS}
        except (pa.ArrowException, OSError):
            raise packed.archive.damaged(name, "its columns cannot be read") from None


def _check_run(packed: PackedStore, run_id: str, tables: Mapping[str, bytes]) -> None:
    """Raises DamagedRun or ConfigError if the run would be damaged in a store."""
    _, summary = packed.outcome(run_id)
    hashes = summary.get("integrity", {}).get("files", {})
    for name, content in tables.items():
        own = hashlib.sha256(content).hexdigest()
        if hashes.get(f"{name}.parquet", own) != own:
            reason = f"{name} of run {run_id} is not the file that was stored with its summary"
            raise packed.archive.damaged("originals.parquet", reason)


def _in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
