"""The store: `<results_dir>/runs/<run_id>/`, one folder a run, and the plans of the studies beside them.

| file              | what                                                                          |
|-------------------|-------------------------------------------------------------------------------|
| `config.yaml`     | the resolved spec, as `spec.to_dict` gives it                                  |
| `metrics.parquet` | `step` `epoch` `split` `metric` `layer` `value`: the same bytes every time    |
| `timing.parquet`  | `step` `seconds` `step_seconds`: wall time, which no two runs share           |
| `summary.json`    | status, final and best metrics, how and where it ran; its presence is "done"  |
| `checkpoint.pt`   | only while unfinished                                                         |
| `error.txt`       | only after a failure: the traceback                                           |

Every file appears whole, by an atomic rename. Reading a store runs nothing of what is in it. This module does not
import torch, so that reports are drawn without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bnstudy.files import METRICS, TIMING, write_atomic, write_json, write_text

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class RunPaths:
    """All paths of one run."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.parquet"

    @property
    def timing(self) -> Path:
        return self.folder / "timing.parquet"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def error(self) -> Path:
        return self.folder / "error.txt"


@dataclass(frozen=True)
class Store:
    """The runs and study plans under one results_dir."""

    results_dir: Path

    def run(self, run_id: str) -> RunPaths:
        return RunPaths(self.results_dir / "runs" / run_id)

    def is_finished(self, run_id: str) -> bool:
        return self.run(run_id).summary.exists()

    def finished(self) -> list[str]:
        """The ids of the finished runs, sorted."""
        return sorted(p.parent.name for p in (self.results_dir / "runs").glob("*/summary.json"))

    def begin(self, run_id: str, spec: Mapping[str, Any]) -> RunPaths:
        """Make the run's folder and say in it what the run is."""
        paths = self.run(run_id)
        if not paths.config.exists():
            write_text(paths.config, yaml.dump(dict(spec), Dumper=Dumper, sort_keys=False))
        return paths

    def finish(self, run_id: str, metrics: pa.Table, timing: pa.Table, summary: Mapping[str, Any]) -> None:
        """Store what a run yielded. `summary.json` comes last: only with it does the run count as there."""
        paths = self.run(run_id)
        write_atomic(paths.metrics, lambda p: pq.write_table(metrics.cast(METRICS), p, compression="zstd"))
        write_atomic(paths.timing, lambda p: pq.write_table(timing.cast(TIMING), p, compression="zstd"))
        write_json(paths.summary, summary)
        paths.checkpoint.unlink(missing_ok=True)
        paths.error.unlink(missing_ok=True)

    def summary(self, run_id: str) -> dict[str, Any]:
        return json.loads(self.run(run_id).summary.read_text(encoding="utf-8"))

    def config(self, run_id: str) -> dict[str, Any]:
        return yaml.load(self.run(run_id).config.read_text(encoding="utf-8"), Loader=Loader)

    # Studies: what a sweep with a purpose asked for, so that a report can tell what is missing.

    def plan_path(self, study: str, scale: str) -> Path:
        return self.results_dir / "studies" / study / f"{scale}.json"

    def add_to_plan(self, study: Mapping[str, Any], scale: str, command: str, run_ids: Iterable[str]) -> None:
        """Add the runs that a command line asks for to the study's plan; what was planned before stays."""
        path = self.plan_path(study["name"], scale)
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"run_ids": [], "commands": []}
        plan = {
            **study,
            "scale": scale,
            "commands": [c for c in old["commands"] if c != command] + [command],
            "run_ids": sorted({*old["run_ids"], *run_ids}),
        }
        write_json(path, plan)

    def plans(self, study: str) -> list[dict[str, Any]]:
        """The study's plans, one a scale, the one planned last first."""
        found = (self.results_dir / "studies" / study).glob("*.json")
        latest_first = sorted(found, key=lambda p: (-p.stat().st_mtime_ns, p.name))
        return [json.loads(p.read_text(encoding="utf-8")) for p in latest_first]

    def studies(self) -> list[str]:
        """The names of the studies that were planned here, sorted."""
        return sorted(p.parent.name for p in (self.results_dir / "studies").glob("*/*.json"))


def load_runs(results_dir: str | Path = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished runs, one a row, sorted by run_id.

    Columns: `run_id`; the spec, with `model`, `norm`, `init`, `data`, ... holding class names (for pictures from a
    folder, its name) and their fields dotted (`norm.eps`, `data.train_size`); `lr`, `batch_size`, `seed`, `epochs`,
    `steps`; then the summary, likewise dotted: `status`, `diverged_step`, `final.test_accuracy`, `seconds.total`, ...
    A field that a run's own classes lack is missing (None or NaN) in its row. Asked-for runs that are not finished
    are left out.
    """
    store = Store(Path(results_dir))
    wanted = store.finished() if run_ids is None else sorted({r for r in run_ids if store.is_finished(r)})
    rows = [{"run_id": r, **_spec_columns(store.config(r)), **_flat(store.summary(r))} for r in wanted]
    return pd.DataFrame(rows) if rows else pd.DataFrame({"run_id": pd.Series(dtype=str)})


def load_specs(results_dir: str | Path = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The begun runs, finished or not, sorted by run_id: `run_id` and the spec's columns as in `load_runs`."""
    store = Store(Path(results_dir))
    begun = sorted(p.parent.name for p in (store.results_dir / "runs").glob("*/config.yaml"))
    wanted = begun if run_ids is None else sorted({*begun} & {*run_ids})
    rows = [{"run_id": r, **_spec_columns(store.config(r))} for r in wanted]
    return pd.DataFrame(rows) if rows else pd.DataFrame({"run_id": pd.Series(dtype=str)})


def load_metrics(results_dir: str | Path = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished runs' metrics, tidy: `run_id` `step` `epoch` `split` `metric` `layer` `value`.

    `step` is the number of updates done when the value was measured; accuracies are shares in 0..1, losses nats.
    `run_id`, `split`, `metric` and `layer` are categorical. A single run's layers stand in order of depth.
    """
    return _load_tables(results_dir, run_ids, "metrics", METRICS)


def load_timing(results_dir: str | Path = "results", run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished runs' wall time: `run_id` `step` `seconds` `step_seconds`.

    `seconds` is the training time up to `step`, without evaluation and probes; `step_seconds` the mean per update
    since the row before.
    """
    return _load_tables(results_dir, run_ids, "timing", TIMING)


def _load_tables(results_dir: str | Path, run_ids: Iterable[str] | None, name: str, schema: pa.Schema) -> pd.DataFrame:
    store = Store(Path(results_dir))
    wanted = store.finished() if run_ids is None else sorted({r for r in run_ids if store.is_finished(r)})
    tables = [pq.ParquetFile(store.run(r).folder / f"{name}.parquet").read() for r in wanted]
    joined = pa.concat_tables(tables) if tables else schema.empty_table()
    codes = [i for i, table in enumerate(tables) for _ in range(table.num_rows)]
    frame = joined.unify_dictionaries().to_pandas()
    frame.insert(0, "run_id", pd.Categorical.from_codes(codes, categories=wanted))
    return frame


def _spec_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as columns: the class name under the group's own key, its fields below it."""
    columns: dict[str, Any] = {}
    for key, node in config.items():
        if isinstance(node, Mapping) and "_target_" in node:
            columns[key] = node.get("name") or node["_target_"].rsplit(".", 1)[-1]
            columns.update(_flat({k: v for k, v in node.items() if k != "_target_"}, f"{key}."))
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
