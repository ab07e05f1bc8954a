"""The store as data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bnstudy.store.runs import Store
from bnstudy.store.tables import METRICS_SCHEMA, TIMING_SCHEMA

Place = str | Path | Store
"""Where runs are: a results_dir, or the store in it."""


def load_runs(results_dir: Place = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished runs, one a row, sorted by run_id.

    Columns: `run_id`; the spec, with `model`, `norm`, `init`, `data`, ... holding class names (for images from a
    folder, its name) and their fields dotted (`norm.eps`, `norm._target_`, `data.train_size`); `lr`, `batch_size`,
    `seed`, `epochs`, `steps`; then the summary, likewise dotted: `status`, `diverged_step`, `final.test_accuracy`,
    `seconds.total`, ...
    A field that a run's own classes lack is missing (None or NaN) in its row. Asked-for runs that are not finished
    are left out.

    Raises:
        ConfigError: a run's files are damaged; the sentence names it.
    """
    store = _store(results_dir)
    wanted = store.finished() if run_ids is None else sorted({r for r in run_ids if store.is_finished(r)})
    rows = [{"run_id": r, **_spec_columns(store.config(r)), **_flat(store.summary(r))} for r in wanted]
    return pd.DataFrame(rows) if rows else pd.DataFrame({"run_id": pd.Series(dtype=str)})


def load_specs(results_dir: Place = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The begun runs, finished or not, sorted by run_id: `run_id` and the spec's columns as in `load_runs`."""
    store = _store(results_dir)
    begun = sorted(p.parent.name for p in (store.results_dir / "runs").glob("*/config.yaml"))
    wanted = begun if run_ids is None else sorted({*begun} & {*run_ids})
    rows = [{"run_id": r, **_spec_columns(store.config(r))} for r in wanted]
    return pd.DataFrame(rows) if rows else pd.DataFrame({"run_id": pd.Series(dtype=str)})


def load_metrics(results_dir: Place = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished runs' metrics, tidy: `run_id` `step` `epoch` `split` `metric` `layer` `value`.

    `step` is the number of updates done when the value was measured; accuracies are shares in 0..1, losses nats.
    `run_id`, `split`, `metric` and `layer` are categorical. A single run's layers stand in order of depth.
    """
    return _load_tables(results_dir, run_ids, "metrics", METRICS_SCHEMA)


def load_timing(results_dir: Place = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished runs' wall time: `run_id` `step` `seconds` `step_seconds`.

    `seconds` is the training time up to `step`, without evaluation and probes; `step_seconds` the mean per update
    since the row before.
    """
    return _load_tables(results_dir, run_ids, "timing", TIMING_SCHEMA)


def _store(place: Place) -> Store:
    return place if isinstance(place, Store) else Store(Path(place))


def _load_tables(results_dir: Place, run_ids: Iterable[str] | None, name: str, schema: pa.Schema) -> pd.DataFrame:
    store = _store(results_dir)
    wanted = store.finished() if run_ids is None else sorted({r for r in run_ids if store.is_finished(r)})
    tables = [store.table(r, name) for r in wanted]
    joined = pa.concat_tables(tables) if tables else schema.empty_table()
    codes = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    del tables
    frame = joined.unify_dictionaries().to_pandas()
    frame.insert(0, "run_id", pd.Categorical.from_codes(codes, categories=wanted))
    return frame


def _spec_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as columns: the class name under the group's own key, its fields below it."""
    columns: dict[str, Any] = {}
    for key, node in config.items():
        if isinstance(node, Mapping) and "_target_" in node:
            columns[key] = (key == "data" and node.get("name")) or node["_target_"].rsplit(".", 1)[-1]
            columns.update(_flat(node, f"{key}."))
        elif isinstance(node, Mapping):
            columns[key] = "+".join(node) or "none"
        else:
            columns[key] = node
    return columns


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat
