"""The store as data frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from bnstudy.store.bits import unpack_bits
from bnstudy.store.checksums import describe_versions, find_versions
from bnstudy.store.flat import SpecColumns, summary_columns
from bnstudy.store.integrity import DamagedRun, WrongContent, damaged
from bnstudy.store.packed import PackedStore, open_store
from bnstudy.store.runs import SCHEMAS, Store
from bnstudy.validation import ConfigError

StoreLike = str | Path | Store  # a results_dir, or the store in it
T = TypeVar("T")

# Each loader leaves out a run of which a file that it reads is damaged, and warns of it. With `damages`, a mapping, it
# adds the sentence about the run there instead, by run_id. A folder that does not exist is a ConfigError.


def load_runs(
    results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None, damages: dict[str, str] | None = None
) -> pd.DataFrame:
    """The finished runs, one a row, sorted by run_id; with `run_ids` those of them that are finished.

    Columns: `run_id`; the spec, with class names in `model`, `norm`, `data`, ... (the dataset's name for images from a
    folder) and fields below them (`norm.eps`, `norm._target_`); then the summary in the same way: `status`,
    `final.test_accuracy`, ... A field that a run's classes lack is missing (None or NaN) in its row.
    `load_test_correct` loads what the summary has of single images.

    A warning names runs that were trained on different images of one name: their `dataset.checksum` differs. There is
    none with `damages`.

    Raises:
        ConfigError: there is no such folder. A store without runs has an empty frame.
    """
    store = _as_store(results_dir)
    rows = _read_each(_finished(store, run_ids), partial(_run_columns, store, SpecColumns()), damages)
    runs = _frame([{"run_id": run_id, **columns} for run_id, columns in rows.items()])
    for sentence in describe_images(runs) if damages is None else ():
        warnings.warn(sentence, stacklevel=2)
    return runs


def describe_images(runs: pd.DataFrame) -> list[str]:
    """A sentence for each dataset of which there are several versions among the runs."""
    labels = dict(zip(runs["run_id"], runs.get("data", ()), strict=False))
    versions = find_versions(images_of(runs))
    return [describe_versions(labels[next(iter(by_checksum.values()))[0]], by_checksum) for by_checksum in versions]


def images_of(runs: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """The run_id of each run, the settings of its dataset and its checksum."""
    if "dataset.checksum" in runs:
        settings = runs.filter(regex=r"^data\.").to_dict("records")
        yield from zip(runs["run_id"], settings, runs["dataset.checksum"], strict=True)


def load_specs(
    results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None, damages: dict[str, str] | None = None
) -> pd.DataFrame:
    """The runs in the store, finished or not, sorted by run_id: `run_id` and the spec's columns as in `load_runs`."""
    store = _as_store(results_dir)
    ids = store.begun() if run_ids is None else sorted({r for r in run_ids if store.has_begun(r)})
    columns_of = SpecColumns()
    rows = _read_each(ids, lambda run_id: columns_of(store.config(run_id)), damages)
    return _frame([{"run_id": run_id, **columns} for run_id, columns in rows.items()])


def load_metrics(
    results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None, damages: dict[str, str] | None = None
) -> pd.DataFrame:
    """The metrics of the finished runs, tidy: `run_id` `step` `epoch` `split` `metric` `layer` `value`.

    `step` is the number of steps done at the measurement. Accuracies are in 0..1, losses in nats. `run_id`, `split`,
    `metric` and `layer` are categorical. The layers of a single run are in order of depth.
    """
    store = _as_store(results_dir)
    return _measurements(store, _finished(store, run_ids), "metrics", damages)


def load_timing(
    results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None, damages: dict[str, str] | None = None
) -> pd.DataFrame:
    """The wall time of the finished runs: `run_id` `step` `seconds` `step_seconds`, without evaluation and probes.

    `seconds` is the time up to `step`; `step_seconds` is the mean per step since the previous row.
    """
    store = _as_store(results_dir)
    return _measurements(store, _finished(store, run_ids), "timing", damages)


def load_test_correct(
    results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None, damages: dict[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Which test images each finished run classifies correctly after its last step: bool [m] by run_id.

    All runs on a dataset have the images in the same order. Diverged runs, runs without labels and runs of earlier
    versions recorded nothing and are left out.
    """
    store = _as_store(results_dir)

    def read(run_id: str) -> np.ndarray | None:
        summary = store.summary(run_id)
        if summary.get("test_correct") is None:
            return None
        try:
            return unpack_bits(summary["test_correct"], summary["dataset"]["test"])
        except (KeyError, TypeError, ValueError):
            wrong = WrongContent("test_correct does not hold one bit for each test image")
            raise damaged(store.run(run_id).summary, wrong) from None

    found = _read_each(_finished(store, run_ids), read, damages)
    return {run_id: bits for run_id, bits in found.items() if bits is not None}


def _read_each(
    ids: Iterable[str], read: Callable[[str], T], damages: dict[str, str] | None, stacklevel: int = 3
) -> dict[str, T]:
    """What `read` returns, by run_id, without the damaged runs. A warning is of the line `stacklevel` calls up."""
    found = {}
    for run_id in ids:
        try:
            found[run_id] = read(run_id)
        except DamagedRun as damage:
            if damages is None:
                warnings.warn(f"{damage} It is left out.", stacklevel=stacklevel)
            else:
                damages[run_id] = str(damage)
    return found


def _as_store(store: StoreLike) -> Store:
    """Raises ConfigError if the store is given by its folder, and there is no such folder."""
    if not isinstance(store, Store) and not Path(store).is_dir():
        raise ConfigError(f"results_dir={store} is not allowed: there is no such folder.")
    return store if isinstance(store, Store) else open_store(Path(store))


def _finished(store: Store, run_ids: Iterable[str] | None) -> list[str]:
    """The ids of all finished runs, or of those among `run_ids`, sorted."""
    return store.finished() if run_ids is None else sorted({r for r in run_ids if store.is_finished(r)})


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows) if rows else pd.DataFrame({"run_id": pd.Series(dtype=str)})


def _measurements(store: Store, ids: list[str], name: str, damages: dict[str, str] | None) -> pd.DataFrame:
    """The tables of runs as one frame."""
    if isinstance(store, PackedStore):
        return _frame_of(*store.tables(ids, name), ids)
    tables = _read_each(ids, partial(store.table, name=name), damages, stacklevel=4)
    found, lengths = [*tables], np.array([run.num_rows for run in tables.values()], int)
    table = pa.concat_tables([SCHEMAS[name].empty_table(), *tables.values()])
    tables.clear()  # frees them before the copy to pandas
    return _frame_of(table, lengths, found)


def _frame_of(table: pa.Table, lengths: np.ndarray, ids: list[str]) -> pd.DataFrame:
    frame = table.unify_dictionaries().to_pandas()
    frame.insert(0, "run_id", pd.Categorical.from_codes(np.repeat(np.arange(len(ids)), lengths), categories=ids))
    return frame


def _run_columns(store: Store, columns_of: SpecColumns, run_id: str) -> dict[str, Any]:
    spec, summary = store.outcome(run_id)
    return {**columns_of(spec), **summary_columns(summary)}
