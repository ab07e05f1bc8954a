"""The base class of loggers. Does not import torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from bnstudy.store.flat import spec_columns
from bnstudy.store.links import refuse_links
from bnstudy.validation import ConfigError, Spec


@dataclass(frozen=True)
class LoggedRun:
    """A run as a logger gets to know it.

    name: the overrides in which it differs from the others of its sweep, or its id.
    config: the content of its config.yaml.
    results: the results_dir.
    """

    run_id: str
    name: str
    config: Mapping[str, Any]
    results: Path

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The configuration as columns, as of `load_runs`."""
        return spec_columns(self.config)


class Row(NamedTuple):
    """A measurement. tag: its name for loggers that have one name for it, such as `val/accuracy`."""

    step: int
    tag: str
    value: float


@dataclass(frozen=True)
class BaseLogger(Spec):
    """Sends the metrics of runs somewhere while they train.

    Each run is begun, gets its rows in parts, in the order of the steps, and is finished. One that goes on from a
    checkpoint is begun again, and gets all its rows again: a logger starts anew, or leaves out the rows that it has,
    which are the same. What `begin` returns, such as an open file, is passed to the other methods.

    An error ends the logging, not the training.

    seconds: between two parts, at least.
    """

    group: ClassVar[str] = "logger"
    package: ClassVar[str] = ""
    """The package that it needs; `extra` is the optional extra of bnstudy that installs it."""
    extra: ClassVar[str] = ""

    seconds: float = 2.0

    def check(self) -> None:
        self.require(self.seconds >= 0, "seconds", "a number of seconds, at least 0")
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ConfigError(
                f"logger={self.extra or self.label} is not allowed here: the package {self.package} is not installed. "
                f"To install it: pip install 'bnstudy[{self.extra}]'"
            )

    @property
    def module(self) -> str:
        """The last name of the class's module, for the loggers of bnstudy also their option: `csv`."""
        return type(self).__module__.rpartition(".")[2]

    def begin(self, run: LoggedRun) -> Any:
        """Begin a run, anew if it was begun before."""

    def log(self, sink: Any, rows: pa.Table) -> None:
        """Send rows, with the columns of metrics.parquet. `each_row` gives them one by one."""
        raise NotImplementedError

    def finish(self, sink: Any, status: str, summary: Mapping[str, Any]) -> None:
        """End a run. status: finished, diverged, or stopped, when it may go on later and `summary` is empty."""

    def folder(self, run: LoggedRun, given: str | None, name: str) -> Path:
        """The folder to write to, made if it is not there: the given one, or one of this name in the results_dir.

        Raises:
            ConfigError: it is in the store, and a symbolic link.
        """
        folder = Path(given).expanduser() if given else run.results / name
        if not given:
            refuse_links(run.results, [folder])
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def each_row(rows: pa.Table) -> Iterator[Row]:
    """The rows with their tags: split, metric and layer, those that are not empty, with slashes between them."""
    columns = (rows[name].to_pylist() for name in ("step", "split", "metric", "layer", "value"))
    for step, split, metric, layer, value in zip(*columns, strict=True):
        yield Row(step, "/".join(part for part in (split, metric, layer) if part), value)
