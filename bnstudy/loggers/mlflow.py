"""Metrics to MLflow."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from bnstudy.loggers.base import BaseLogger, LoggedRun, each_row
from bnstudy.store.links import refuse_links

T = TypeVar("T")

TAG = "bnstudy.run_id"
MOST_METRICS, MOST_PARAMETERS = 1000, 100
"""In one request."""
LONGEST = 500
"""Characters of a parameter."""
STATUSES = {"finished": "FINISHED", "diverged": "FINISHED", "stopped": "KILLED"}


@dataclass(frozen=True)
class MLflow(BaseLogger):
    """A run of MLflow a run, with the run_id as the tag `bnstudy.run_id`.

    uri: of the server or the store; null for MLFLOW_TRACKING_URI, or else the files in `<results_dir>/mlruns`.
    """

    package = "mlflow"
    extra = "mlflow"

    uri: str | None = None
    experiment: str = "bnstudy"
    seconds: float = 10.0

    def begin(self, run: LoggedRun) -> Sink:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # others need a database
            uri = self.folder(run, None, "mlruns").absolute().as_uri()
        with alone(run.results):
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(self.experiment)
            experiment = found.experiment_id if found else client.create_experiment(self.experiment)
            former = client.search_runs([experiment], f"tags.`{TAG}` = '{run.run_id}'", max_results=1)
            if former:
                client.update_run(former[0].info.run_id, status="RUNNING")
                return Sink(client, former[0].info.run_id, last_steps(client, former[0]))
            own = client.create_run(experiment, run_name=run.name, tags={TAG: run.run_id}).info.run_id
        parameters = [Param(allowed(key), str(value)[:LONGEST]) for key, value in run.parameters.items()]
        for some in parts(parameters, MOST_PARAMETERS):
            client.log_batch(own, params=some)
        return Sink(client, own, {})

    def log(self, sink: Sink, rows: pa.Table) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(allowed(row.tag), row.value, now, row.step) for row in each_row(rows)]
        new = [metric for metric in metrics if metric.step > sink.last_steps.get(metric.key, -1)]
        for some in parts(new, MOST_METRICS):
            sink.client.log_batch(sink.run_id, metrics=some)

    def finish(self, sink: Sink, status: str, summary: Mapping[str, Any]) -> None:  # noqa: ARG002
        sink.client.set_tag(sink.run_id, "bnstudy.status", status)
        sink.client.set_terminated(sink.run_id, STATUSES[status])


@dataclass(frozen=True)
class Sink:
    """A run of MLflow. last_steps: of the metrics that it has already, which come again."""

    client: Any
    run_id: str
    last_steps: Mapping[str, int]


def last_steps(client: Any, run: Any) -> dict[str, int]:
    """The last step of each metric of a run of MLflow."""
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: max(metric.step for metric in history) for key, history in histories.items()}


def allowed(name: str) -> str:
    """A name that MLflow takes. A slash would make a folder, and `grad_norm` is a metric beside `grad_norm/hidden1`."""
    return re.sub(r"[^\w.\- ]", "_", name.replace("/", "."))


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))


@contextmanager
def alone(results: Path) -> Iterator[None]:
    """One worker at a time: MLflow's files would get the same experiment twice.

    Raises:
        ConfigError: the lock is a symbolic link.
    """
    path = results / ".mlflow.lock"
    refuse_links(results, [path])
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
