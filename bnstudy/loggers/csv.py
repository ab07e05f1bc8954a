"""Metrics as CSV files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from bnstudy.loggers.base import BaseLogger, LoggedRun


@dataclass(frozen=True)
class CSV(BaseLogger):
    """A file `<run_id>.csv` a run, with the columns of metrics.parquet.

    dir: null for `<results_dir>/csv`.
    """

    dir: str | None = None

    def begin(self, run: LoggedRun) -> Path:
        path = self.folder(run, self.dir, "csv") / f"{run.run_id}.csv"
        path.unlink(missing_ok=True)  # it may be a link
        path.write_text("step,epoch,split,metric,layer,value\n")
        return path

    def log(self, sink: Path, rows: pa.Table) -> None:
        text = [pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in rows.schema]
        with sink.open("ab") as file:
            pc.write_csv(
                rows.cast(pa.schema(text)), file, pc.WriteOptions(include_header=False, quoting_style="needed")
            )
