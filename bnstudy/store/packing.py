"""Packing a store into a few files, and the way back. `archive.py` says what the files are."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bnstudy import __version__
from bnstudy.store.archive import FORMAT, NAMES, PACKED, PLANS_SCHEMA, hash_of, plan_texts
from bnstudy.store.files import sync, to_json, write_bytes, write_together
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.links import FOLDERS, refuse_links
from bnstudy.store.packed import RUNS_SCHEMA, PackedStore
from bnstudy.store.runs import SCHEMAS, Store
from bnstudy.store.thin import thin_metrics
from bnstudy.validation import ConfigError

T = TypeVar("T")

_ID = pa.field("run_id", pa.dictionary(pa.int32(), pa.string()))
_TABLES = {name: pa.schema([_ID, *schema]) for name, schema in SCHEMAS.items()}
_ORIGINALS = pa.schema({"run_id": pa.string(), "metrics": pa.binary(), "timing": pa.binary()})

GROUP = 200_000
"""Rows of metrics in a row group, about: a reader of few runs reads the groups that have them."""
LEVEL = 15
"""Of zstd: 19 takes twice the time and saves 2%."""

Progress = Callable[[int], object]


@dataclass
class Packed:
    """What was packed. damages: a sentence for each damaged run, which was left out."""

    runs: int = 0
    rows: int = 0
    damages: dict[str, str] = field(default_factory=dict)


def pack(
    store: Store,
    run_ids: Iterable[str],
    plans: Sequence[Path],
    folder: Path,
    thin: bool,
    progress: Progress,
    whole: Collection[str] = (),
) -> Packed:
    """Write finished runs, in this order, and files of plans and marks into a folder. Its other files stay.

    The files get their names when all are on the disk, `packed.json` last. A crash between the renames leaves files
    that do not agree with the old `packed.json`, which readers notice.

    Args:
        whole: runs that keep all of their training losses in a thin pack.

    Raises:
        ConfigError: the folder is another store.
        OSError: it cannot be written.
    """
    _refuse_stores(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = Packed()
    with _new_files(folder, NAMES[:-1] if thin else NAMES) as paths:
        with ExitStack() as stack:
            files = {name: stack.enter_context(_writer(path, name)) for name, path in paths.items()}
            runs = _read_runs(store, run_ids, thin, {*whole}, done.damages, progress)
            for batch in _batches(runs):
                _write_batch(files, batch)
                done.runs += len(batch)
                done.rows += sum(run.metrics.num_rows for run in batch)
            files["plans.parquet"].write_table(_plans(store.results_dir, plans))
        if not done.runs:
            raise ConfigError(" ".join(["No run can be packed.", *done.damages.values()]))
        for path in paths.values():
            sync(path)
        content = {
            "schema": FORMAT, "thin": thin, "runs": done.runs, "files": {n: hash_of(p) for n, p in paths.items()},
            "versions": {"bnstudy": __version__, "pyarrow": pa.__version__},
        }  # fmt: skip
        for name, path in paths.items():
            path.replace(folder / name)
        write_bytes(folder / PACKED, to_json(content))
    for name in {*NAMES} - {*paths}:
        (folder / name).unlink(missing_ok=True)
    return done


def _refuse_stores(folder: Path) -> None:
    if own := [name for name in FOLDERS if name != "reports" and (folder / name).exists()]:
        raise ConfigError(
            f"{folder} is not allowed: it is a store with runs of its own (it has {own[0]}/). Name another folder."
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not allowed: it is a file. Name a folder.")


@contextmanager
def _new_files(folder: Path, names: Iterable[str]) -> Iterator[dict[str, Path]]:
    """Temporary files, by the names that they will get; they are deleted if they did not get them."""
    paths = {name: folder / f".{name}.{secrets.token_hex(8)}" for name in names}
    try:
        yield paths
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)


def _writer(path: Path, name: str) -> pq.ParquetWriter:
    """The encodings fit the columns: texts, steps and epochs repeat, other numbers share their high bytes."""
    schema = {"runs": RUNS_SCHEMA, "plans": PLANS_SCHEMA, "originals": _ORIGINALS, **_TABLES}[Path(name).stem]
    split = [n for n in ("value", "seconds", "step_seconds") if n in schema.names]
    single = {"config", "summary", "text", "path", "time", "metrics", "timing"}
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3 if name == NAMES[-1] else LEVEL,  # the originals are compressed already
        use_dictionary=[n for n in schema.names if n not in {*split, *single} and schema != _ORIGINALS],
        column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        data_page_size=2**24,
        write_statistics=False,
    )


@dataclass(frozen=True)
class _Run:
    run_id: str
    config: str
    summary: str
    metrics: pa.Table
    timing: pa.Table
    originals: tuple[bytes, bytes]


def _read_runs(
    store: Store,
    run_ids: Iterable[str],
    thin: bool,
    whole: Collection[str],
    damages: dict[str, str],
    progress: Progress,
) -> Iterator[_Run]:
    """The intact runs. Sentences about damaged ones are added to `damages`."""
    for run_id in run_ids:
        progress(1)
        try:
            run = _read(store, run_id, with_originals=not thin)
        except DamagedRun as damage:
            damages[run_id] = str(damage)
            continue
        yield replace(run, metrics=thin_metrics(run.metrics)) if thin and run_id not in whole else run


def _batches(runs: Iterable[_Run]) -> Iterator[list[_Run]]:
    """The runs in parts of about `GROUP` rows of metrics."""
    batch, rows = list[_Run](), 0
    for run in runs:
        batch.append(run)
        rows += run.metrics.num_rows
        if rows >= GROUP:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def _read(store: Store, run_id: str, with_originals: bool) -> _Run:
    """Raises DamagedRun if a file of the run cannot be used."""
    store.outcome(run_id)
    metrics, timing = (store.table(run_id, name) for name in SCHEMAS)
    paths = store.run(run_id)
    config, summary = paths.config.read_bytes().decode(), paths.summary.read_bytes().decode()
    originals = (paths.metrics.read_bytes(), paths.timing.read_bytes()) if with_originals else (b"", b"")
    return _Run(run_id, config, summary, metrics, timing, originals)


def _write_batch(files: Mapping[str, pq.ParquetWriter], batch: Sequence[_Run]) -> None:
    ids = [run.run_id for run in batch]
    counts = {name: [getattr(run, name).num_rows for run in batch] for name in SCHEMAS}
    texts = {"config": [run.config for run in batch], "summary": [run.summary for run in batch]}
    files["runs.parquet"].write_table(pa.table({"run_id": ids, **counts, **texts}, RUNS_SCHEMA))
    for name, schema in _TABLES.items():
        table = pa.concat_tables(getattr(run, name) for run in batch).unify_dictionaries().combine_chunks()
        places = pa.array(np.repeat(np.arange(len(ids), dtype=np.int32), counts[name]))
        own = pa.DictionaryArray.from_arrays(places, pa.array(ids))
        columns = [own, *(column.combine_chunks() for column in table.columns)]
        files[f"{name}.parquet"].write_table(pa.Table.from_arrays(columns, schema=schema))
    if "originals.parquet" in files:
        metrics, timing = zip(*(run.originals for run in batch), strict=True)
        files["originals.parquet"].write_table(pa.table([ids, metrics, timing], _ORIGINALS))


def _plans(results_dir: Path, plans: Sequence[Path]) -> pa.Table:
    rows = [
        {
            "path": path.relative_to(results_dir).as_posix(),
            "time": path.lstat().st_mtime_ns,
            "text": path.read_bytes().decode(),
        }
        for path in sorted(plans)
    ]
    return pa.Table.from_pylist(rows, PLANS_SCHEMA)


@dataclass
class Unpacked:
    """What was written. present: runs that the target had finished already."""

    runs: int = 0
    present: int = 0


def unpack(packed: PackedStore, target: Path, progress: Progress) -> Unpacked:
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
    plans = {target / text.path.relative_to(packed.results_dir): text for text in plan_texts(packed.archive)}
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
    for path, text in plans.items():
        if not path.exists():
            write_bytes(path, text.text.encode())
            os.utime(path, ns=(text.time, text.time))
    return done


UNPACKED_TOGETHER = 64


def _originals(packed: PackedStore) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The id of each run, and the files of its tables by `metrics` and `timing`."""
    name, known = "originals.parquet", iter(packed.places.run_ids)
    with packed.archive.open(name) as file:
        if not file.schema_arrow.equals(_ORIGINALS) or file.metadata.num_rows != len(packed.places.run_ids):
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
