"""The runs that a worker trains, as streams of metrics to a logger."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bnstudy.loggers.base import BaseLogger, LoggedRun
from bnstudy.sweep.messages import LoggerFailed, Send
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.stackable import one_line
from bnstudy.train.loop import Training
from bnstudy.validation import to_dict


@dataclass
class Streams:
    """Passes on what the record of a training has on the host, never within a step.

    logger: None for no streams. After its first error this worker logs nothing more.
    _sinks: by run_id. _steps, _rows: the training losses and other rows that were sent, the same for all runs.
    """

    logger: BaseLogger | None
    results: Path
    send: Send
    _sinks: dict[str, Any] = field(default_factory=dict)
    _steps: int = 0
    _rows: int = 0
    _sent_at: float = 0.0

    def begin(self, runs: Sequence[PlannedRun]) -> None:
        """Begin the runs of a training, from their first row, also where they go on from a checkpoint."""
        self._steps, self._rows, self._sent_at = 0, 0, time.monotonic()
        for run in runs if self.logger else ():
            run_id = run.spec.run_id
            logged = LoggedRun(run_id, run.name or run_id, to_dict(run.spec), self.results)
            sink = self._call("begin", logged)
            if self.logger is not None:
                self._sinks[run_id] = sink

    def feed(self, training: Training) -> None:
        """Send what was recorded since the last time, if that is long enough ago."""
        if self.logger is None or time.monotonic() - self._sent_at < self.logger.seconds:
            return
        record = training.record
        record.flush()
        tables = record.part(range(self._steps, training.step), range(self._rows, len(record.rows)))
        self._steps, self._rows = training.step, len(record.rows)
        for spec, table in zip(training.specs, tables, strict=True):
            self._log(spec.run_id, table)
        self._sent_at = time.monotonic()

    def finish(self, run_id: str, metrics: pa.Table, summary: Mapping[str, Any]) -> None:
        """Send the rest of a run that is stored."""
        if self.logger is None or run_id not in self._sinks:
            return
        is_loss = pc.and_(pc.equal(metrics["split"], "train"), pc.equal(metrics["metric"], "loss"))
        losses = pc.sum(is_loss).as_py()
        rest = [metrics.slice(self._steps, max(0, losses - self._steps)), metrics.slice(losses + self._rows)]
        self._log(run_id, pa.concat_tables(rest))
        self._call("finish", self._sinks.pop(run_id, None), summary["status"], summary)

    def stop(self, but: Collection[str] = ()) -> None:
        """End the streams of runs that are not trained any more, except those that another worker goes on with."""
        for run_id, sink in list(self._sinks.items()):
            del self._sinks[run_id]
            if run_id not in but:
                self._call("finish", sink, "stopped", {})

    def _log(self, run_id: str, table: pa.Table) -> None:
        if table.num_rows and run_id in self._sinks:
            self._call("log", self._sinks[run_id], table)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the logger. Its first error is reported, and is its last: it gets nothing more."""
        if self.logger is None:
            return None
        try:
            return getattr(self.logger, method)(*arguments)
        except Exception as error:  # of any library, or of the user's code
            name = self.logger.extra or self.logger.label
            self.logger = None
            self._sinks.clear()
            self.send(
                LoggerFailed(f"logger={name} failed and gets nothing more ({one_line(error)}): training goes on.")
            )
        return None
