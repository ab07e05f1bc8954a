"""Metrics as CSV files."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from bnstudy.loggers.base import BaseLogger, LoggedRun
from bnstudy.store.runs import METRICS_SCHEMA


@dataclass(frozen=True)
class CSV(BaseLogger):
    """A file `<run_id>.csv` a run, with the columns of metrics.parquet.

    dir: null for `<results_dir>/csv`.
    """

    dir: str | None = None

    def begin(self, run: LoggedRun) -> Path:
        path = self.folder(run, self.dir, "csv") / f"{run.run_id}.csv"
        path.unlink(missing_ok=True)  # it may be a link
        path.write_text(",".join(METRICS_SCHEMA.names) + "\n")
        return path

    def log(self, sink: Path, rows: pa.Table) -> None:
        with sink.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                zip(*(column.to_pylist() for column in rows.columns), strict=True)
            )
