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

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bnstudy.store.files import write_atomic, write_json, write_text
from bnstudy.store.renames import with_present_names
from bnstudy.store.tables import METRICS_SCHEMA, TIMING_SCHEMA
from bnstudy.validation import ConfigError

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


def abandoned(folder: Path) -> list[Path]:
    """Temporary files of writers that were killed; those under an hour old may belong to one at work."""
    found = []
    for path in folder.glob(".*.*"):
        with suppress(FileNotFoundError):  # its writer has just put it in place
            found += [path] if path.stat().st_mtime < time.time() - 3600 else []
    return found


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
        write_atomic(paths.metrics, lambda p: pq.write_table(metrics.cast(METRICS_SCHEMA), p, compression="zstd"))
        write_atomic(paths.timing, lambda p: pq.write_table(timing.cast(TIMING_SCHEMA), p, compression="zstd"))
        write_json(paths.summary, summary)
        for path in (paths.checkpoint, paths.error, *abandoned(paths.folder)):
            path.unlink(missing_ok=True)

    def summary(self, run_id: str) -> dict[str, Any]:
        """Raises ConfigError where the file is damaged."""
        return self._read(self.run(run_id).summary, lambda p: _with_key(json.loads(p.read_text("utf-8")), "status"))

    def config(self, run_id: str) -> dict[str, Any]:
        """Raises ConfigError where the file is damaged or missing."""
        return self._read(self.run(run_id).config, lambda p: _with_key(spec_in(p.read_text("utf-8")), "model"))

    def table(self, run_id: str, name: str) -> pa.Table:
        """`metrics` or `timing` of a finished run. Raises ConfigError where the file is damaged or missing."""
        path = self.run(run_id).folder / f"{name}.parquet"
        return self._read(path, _small_table)

    def _read(self, path: Path, read: Callable[[Path], Any]) -> Any:
        try:
            return read(path)
        except Exception as error:  # a damaged file fails in as many ways as there are formats
            raise ConfigError(
                f"Run {path.parent.name} in {path.parent} is damaged ({path.name}: {type(error).__name__}): delete the "
                "folder, and the same command trains it again."
            ) from error

    # Studies: what a sweep with a purpose asked for, so that a report can tell what is missing. A command line has a
    # file of its own, so that several processes can plan at once.

    def add_to_plan(self, study: Mapping[str, Any], scale: str, command: str, run_ids: Iterable[str]) -> None:
        """Note the runs that a command line asks for; what others asked for stays, as does what the same one did at
        later looks."""
        name = hashlib.sha256(command.encode()).hexdigest()[:12]
        path, wanted = self.results_dir / "studies" / study["name"] / scale / f"{name}.json", {*run_ids}
        if "looks" in study and path.exists():
            wanted |= {*json.loads(path.read_text(encoding="utf-8"))["run_ids"]}
        write_json(path, {**study, "scale": scale, "command": command, "run_ids": sorted(wanted)})

    def plans(self, study: str) -> list[dict[str, Any]]:
        """The study's plans, one a scale, the one planned last first: all commands, and all runs they ask for."""
        folders = sorted((self.results_dir / "studies" / study).glob("*/"))
        files = [sorted(f.glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)) for f in folders]
        plans = [_merged(of_scale) for of_scale in files if of_scale]
        return [plan for _, plan in sorted(plans, key=lambda dated: -dated[0])]

    def studies(self) -> list[str]:
        """The names of the studies that were planned here, sorted."""
        return sorted({p.parents[1].name for p in (self.results_dir / "studies").glob("*/*/*.json")})


@dataclass(frozen=True)
class SharedStore(Store):
    """A store that is read for one purpose after another: what a later one wants too is read once, and let go with the
    last.

    awaited: by run_id, for how many purposes it is still wanted, the one at hand included.
    """

    awaited: Counter[str] = field(default_factory=Counter)
    _kept: dict[Path, Any] = field(default_factory=dict)

    def done(self, run_ids: Iterable[str]) -> None:
        """One of the purposes is served, for which these runs were wanted."""
        self.awaited.subtract(run_ids)
        for path in [path for path in self._kept if self.awaited[path.parent.name] < 1]:
            del self._kept[path]

    def _read(self, path: Path, read: Callable[[Path], Any]) -> Any:
        if path in self._kept:
            return self._kept[path]
        found = super()._read(path, read)
        if self.awaited[path.parent.name] > 1:
            self._kept[path] = found
        return found


OWN = re.compile(r"^(\w+): (-?\.?\w[\w.+-]*)$", re.MULTILINE)
"""The lines of a spec that hold a number or a word and nothing else: `seed: 3`."""


def spec_in(text: str) -> dict[str, Any]:
    """What a `config.yaml` holds.

    Runs of a sweep differ in a line or two: what they share is parsed once, and is the same object in all of them.
    """
    own = dict(OWN.findall(text))
    shared = _parsed(OWN.sub(r"\1: 0", text))
    if not isinstance(shared, dict) or any(type(shared.get(key)) is not int or shared[key] for key in own):
        return with_present_names(yaml.load(text, Loader))
    return {**shared, **{key: _parsed(value) for key, value in own.items()}}


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    return with_present_names(yaml.load(text, Loader))


def _small_table(path: Path) -> pa.Table:
    """One thread without read-ahead: for a few thousand rows, preparing more would take longer than reading."""
    with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
        return file.read(use_threads=False)


def _with_key(node: dict[str, Any], key: str) -> dict[str, Any]:
    node[key]
    return node


def _merged(files: Sequence[Path]) -> tuple[int, dict[str, Any]]:
    """When the last of the files was written, and what they say together; `looks` that once were repeated stay so."""
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    looks = next(({"looks": entry["looks"]} for entry in entries if "looks" in entry), {})
    about = {key: value for key, value in entries[-1].items() if key not in ("command", "run_ids")} | looks
    commands = [entry["command"] for entry in entries]
    run_ids = sorted({run_id for entry in entries for run_id in entry["run_ids"]})
    return files[-1].stat().st_mtime_ns, {**about, "commands": commands, "run_ids": run_ids}
