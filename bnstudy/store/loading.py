"""The store as data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bnstudy.store.bits import unpack_bits
from bnstudy.store.runs import METRICS_SCHEMA, TIMING_SCHEMA, Store, damaged

StoreLike = str | Path | Store  # a results_dir, or the store in it


def load_runs(results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished runs, one a row, sorted by run_id; with `run_ids` those of them that are finished.

    Columns: `run_id`; the spec, with class names in `model`, `norm`, `data`, ... (the dataset's name for images from a
    folder) and fields below them (`norm.eps`, `norm._target_`); then the summary in the same way: `status`,
    `final.test_accuracy`, ... A field that a run's classes lack is missing (None or NaN) in its row.
    `load_test_correct` loads what the summary has of single images.

    Raises:
        ConfigError: a run's files are damaged; the message names the run.
    """
    store = _as_store(results_dir)
    ids = _finished(store, run_ids)
    return _frame([{"run_id": i, **_spec_columns(store.config(i)), **_summary_columns(store.summary(i))} for i in ids])


def load_specs(results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The runs in the store, finished or not, sorted by run_id: `run_id` and the spec's columns as in `load_runs`."""
    store = _as_store(results_dir)
    present = {path.parent.name for path in (store.results_dir / "runs").glob("*/config.yaml")}
    ids = present if run_ids is None else present & {*run_ids}
    return _frame([{"run_id": i, **_spec_columns(store.config(i))} for i in sorted(ids)])


def load_metrics(results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The metrics of the finished runs, tidy: `run_id` `step` `epoch` `split` `metric` `layer` `value`.

    `step` is the number of steps done at the measurement. Accuracies are in 0..1, losses in nats. `run_id`, `split`,
    `metric` and `layer` are categorical. The layers of a single run are in order of depth.
    """
    return _load_tables(results_dir, run_ids, "metrics", METRICS_SCHEMA)


def load_timing(results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The wall time of the finished runs: `run_id` `step` `seconds` `step_seconds`, without evaluation and probes.

    `seconds` is the time up to `step`; `step_seconds` is the mean per step since the previous row.
    """
    return _load_tables(results_dir, run_ids, "timing", TIMING_SCHEMA)


def load_test_correct(
    results_dir: StoreLike = "results", run_ids: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Which test images each finished run classifies correctly after its last step: bool [m] by run_id.

    All runs on a dataset have the images in the same order. Diverged runs, runs without labels and runs of earlier
    versions recorded nothing and are left out.

    Raises:
        ConfigError: a run's files are damaged; the message names the run.
    """
    store, found = _as_store(results_dir), {}
    for run_id in _finished(store, run_ids):
        summary = store.summary(run_id)
        if summary.get("test_correct") is not None:
            try:
                found[run_id] = unpack_bits(summary["test_correct"], summary["dataset"]["test"])
            except (KeyError, TypeError, ValueError) as error:
                raise damaged(store.run(run_id).summary, error) from error
    return found


def _as_store(store: StoreLike) -> Store:
    return store if isinstance(store, Store) else Store(Path(store))


def _finished(store: Store, run_ids: Iterable[str] | None) -> list[str]:
    """The ids of all finished runs, or of those among `run_ids`, sorted."""
    return store.finished() if run_ids is None else sorted({r for r in run_ids if store.is_finished(r)})


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows) if rows else pd.DataFrame({"run_id": pd.Series(dtype=str)})


def _load_tables(results_dir: StoreLike, run_ids: Iterable[str] | None, name: str, schema: pa.Schema) -> pd.DataFrame:
    store = _as_store(results_dir)
    ids = _finished(store, run_ids)
    tables = [store.table(run_id, name) for run_id in ids]
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    codes = np.repeat(np.arange(len(tables)), [run.num_rows for run in tables])
    del tables  # frees them before the copy to pandas
    frame = table.unify_dictionaries().to_pandas()
    frame.insert(0, "run_id", pd.Categorical.from_codes(codes, categories=ids))
    return frame


def _spec_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as columns: the class name under the group's key, its fields below it."""
    columns: dict[str, Any] = {}
    for key, node in config.items():
        if isinstance(node, Mapping) and "_target_" in node:
            columns[key] = (key == "data" and node.get("name")) or node["_target_"].rsplit(".", 1)[-1]
            columns.update(_flatten(node, f"{key}."))
        elif isinstance(node, Mapping):
            columns[key] = "+".join(node) or "none"
        else:
            columns[key] = node
    return columns


def _summary_columns(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as columns, without the long text of `test_correct`."""
    return _flatten({key: value for key, value in summary.items() if key != "test_correct"})


def _flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat
