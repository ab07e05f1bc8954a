"""Packing a store into a few files. `archive.py` says what the files are, `unpacking.py` is the way back."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bnstudy import __version__
from bnstudy.store.archive import FORMAT, NAMES, ORIGINALS_SCHEMA, PACKED, PLANS_SCHEMA, hash_of
from bnstudy.store.files import remove_abandoned, sync, to_json, write_bytes
from bnstudy.store.integrity import DamagedRun
from bnstudy.store.links import FOLDERS
from bnstudy.store.packed import RUNS_SCHEMA
from bnstudy.store.runs import SCHEMAS, Store
from bnstudy.store.thin import thin_metrics, thin_timing
from bnstudy.validation import ConfigError

_ID = pa.field("run_id", pa.dictionary(pa.int32(), pa.string()))
_TABLES = {name: pa.schema([_ID, *schema]) for name, schema in SCHEMAS.items()}

GROUP = 200_000
"""Rows of metrics in a row group, about: a reader of few runs reads the groups that have them."""
LEVEL = 11
"""Of brotli: a packed store is written once. Against zstd at level 19 it takes 30 s longer for a million rows of
metrics, which are 5% smaller, and 2 s longer for 1,000 summaries, which are 11% smaller."""

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
    remove_abandoned(folder)
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
    schema = {"runs": RUNS_SCHEMA, "plans": PLANS_SCHEMA, "originals": ORIGINALS_SCHEMA, **_TABLES}[Path(name).stem]
    split = [n for n in ("value", "seconds", "step_seconds") if n in schema.names]
    single = {"config", "summary", "text", "path", "time", "metrics", "timing"}
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd" if name == NAMES[-1] else "brotli",
        compression_level=3 if name == NAMES[-1] else LEVEL,  # the originals are compressed already
        use_dictionary=[n for n in schema.names if n not in {*split, *single} and schema != ORIGINALS_SCHEMA],
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
        if thin:
            run = _thin(run)
        yield replace(run, metrics=thin_metrics(run.metrics)) if thin and run_id not in whole else run


def _thin(run: _Run) -> _Run:
    summary = json.loads(run.summary)
    summary.pop("integrity", None)  # the hashes are of files that a thin store does not have
    timing = run.timing
    if summary.get("engine") == "stacked":
        timing = thin_timing(timing)
        for name in {"seconds", "probe_seconds"} & {*summary}:
            summary[name] = {part: float(f"{value:.3g}") for part, value in summary[name].items()}
    return replace(run, summary=to_json(summary).decode(), timing=timing)


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
        files["originals.parquet"].write_table(pa.table([ids, metrics, timing], ORIGINALS_SCHEMA))


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
