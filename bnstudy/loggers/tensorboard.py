"""Metrics as event files of TensorBoard, written by its own record writer: no thread and no open file a run."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bnstudy.loggers.base import BaseLogger, LoggedRun, each_row
from bnstudy.store.links import refuse_links

VERSION = "brain.Event:2"
"""Of the format; the first event of a file."""


@dataclass(frozen=True)
class TensorBoard(BaseLogger):
    """A folder `<run_id>` a run. See them by `tensorboard --logdir <results_dir>/tensorboard`.

    dir: null for `<results_dir>/tensorboard`.
    """

    package = "tensorboard"
    extra = "tensorboard"

    dir: str | None = None

    def begin(self, run: LoggedRun) -> Path:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder = self.folder(run, self.dir, "tensorboard") / run.run_id
        refuse_links(folder.parent, [folder])
        folder.mkdir(exist_ok=True)
        for former in folder.glob("events.out.tfevents.*"):
            former.unlink()
        path = folder / f"events.out.tfevents.{time.time_ns() // 10**9}.{socket.gethostname()}.bnstudy"
        # The start of a session has a running TensorBoard forget what it read of the former files.
        start = Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START))
        header = Event(wall_time=time.time(), file_version=VERSION)
        write(path, [header, start, Event(wall_time=time.time(), step=0, summary=text("config", table(run)))])
        return path

    def log(self, sink: Path, rows: pa.Table) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        now = time.time()
        values = ((row.step, Summary.Value(tag=row.tag, simple_value=row.value)) for row in each_row(rows))
        write(sink, (Event(wall_time=now, step=step, summary=Summary(value=[value])) for step, value in values))

    def finish(self, sink: Path, status: str, summary: Mapping[str, Any]) -> None:  # noqa: ARG002
        from tensorboard.compat.proto.event_pb2 import Event

        write(sink, [Event(wall_time=time.time(), summary=text("status", status))])


def write(path: Path, events: Iterable[Any]) -> None:
    """Append events to a file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()


def text(tag: str, content: str) -> Any:
    """A summary for TensorBoard's tab of texts."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[content.encode()])
    return Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=plugin, tensor=tensor)])


def table(run: LoggedRun) -> str:
    """The run's name and configuration in Markdown."""
    rows = "\n".join(f"| {key} | `{value}` |" for key, value in run.parameters.items())
    return f"{run.name}\n\n| key | value |\n|---|---|\n{rows}"
