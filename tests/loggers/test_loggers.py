"""What each logger holds, read back by its own tools, is what the store holds."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pytest

from bnstudy import load_metrics
from bnstudy.loggers.base import BaseLogger, LoggedRun, each_row
from bnstudy.loggers.csv import CSV
from bnstudy.loggers.mlflow import MLflow
from bnstudy.loggers.mlflow import allowed as allowed_by_mlflow
from bnstudy.loggers.tensorboard import TensorBoard
from bnstudy.loggers.wandb import WandB
from bnstudy.run import RunSpec
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import Beat
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, StopFlag
from bnstudy.sweep.worker import work
from bnstudy.train.loop import Training
from bnstudy.validation import ConfigError
from tests.sweep.test_worker import InMemory, Messages, spec, stack_of

SPECS = [spec(0, "lr=0.01"), spec(1, "lr=0.1"), spec(2, "lr=1e30")]
"""The last diverges."""

Values = dict[tuple[int, str], float]


@pytest.fixture(autouse=True)
def beating_often(monkeypatch):
    monkeypatch.setattr(Training, "beat_seconds", 0.0)


@dataclass(frozen=True)
class Remembering(BaseLogger):
    """Keeps all that it is told. fails_at: the number of the call of `log` that raises an error."""

    told: ClassVar[list[tuple[str, ...]]] = []
    fails_at: int | None = None

    def begin(self, run: LoggedRun) -> str:
        self.told.append(("begin", run.run_id, run.name))
        return run.run_id

    def log(self, sink: str, rows: pa.Table) -> None:
        self.told.append(("log", sink, rows))
        if self.fails_at == sum(call[0] == "log" for call in self.told):
            raise RuntimeError("the network is down")

    def finish(self, sink: str, status: str, summary: Any) -> None:  # noqa: ARG002
        self.told.append(("finish", sink, status))


@pytest.fixture
def told():
    Remembering.told.clear()
    return Remembering.told


def train(
    results: Path, digits, logger: BaseLogger, specs: Sequence[RunSpec] = SPECS, stop_at: int = 10**9
) -> Messages:
    """Train the runs as one stack; a signal comes at a step."""
    stop = StopFlag("")

    def send(message: Any) -> None:
        if isinstance(message, Beat) and message.step >= stop_at:
            stop.signum = 15

    messages = Messages(on_message=send)
    settings = Settings(results_dir=str(results), logger=logger)
    work(settings, [stack_of(specs)], messages, stop, "mine", datasets=InMemory(digits))
    return messages


def stored(results: Path, run_id: str) -> Values:
    """The metrics in the store, by step and tag."""
    return values_of([Store(results).table(run_id, "metrics")])


TOLERANCES = {"tensorboard": 1e-7}
"""Its numbers are of 32 bits."""


def expected(results: Path, run: RunSpec, name: str) -> Values:
    """The metrics in the store, by step and the tag that a logger gives them."""
    values = stored(results, run.run_id)
    return {(step, allowed_by_mlflow(tag)): v for (step, tag), v in values.items()} if name == "mlflow" else values


def values_of(tables: Sequence[pa.Table]) -> Values:
    rows = [row for table in tables for row in each_row(table)]
    found = {(row.step, row.tag): row.value for row in rows}
    assert len(found) == len(rows)  # no row twice
    return found


def same(found: Values, other: Values, tolerance: float = 0.0) -> bool:
    assert found.keys() == other.keys()
    return all(
        (math.isnan(value) and math.isnan(other[key])) or value == pytest.approx(other[key], rel=tolerance, abs=0.0)
        for key, value in found.items()
    )


def read_csv(results: Path, run_id: str) -> Values:
    frame = pd.read_csv(results / "csv" / f"{run_id}.csv", keep_default_na=False)
    assert list(frame) == ["step", "epoch", "split", "metric", "layer", "value"]
    frame["value"] = frame["value"].astype(float)
    return values_of([pa.table({name: frame[name].tolist() for name in frame})])


def read_tensorboard(results: Path, run_id: str) -> Values:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(results / "tensorboard" / run_id), size_guidance={"scalars": 0})
    events.Reload()
    return {(event.step, tag): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


def read_mlflow(results: Path, run_id: str) -> Values:
    from mlflow import MlflowClient

    client = MlflowClient((results / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("bnstudy").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`bnstudy.run_id` = '{run_id}'")
    histories = [client.get_metric_history(run.info.run_id, key) for key in run.data.metrics]
    metrics = [metric for history in histories for metric in history]
    assert run.data.params["norm"] == "BatchNorm"
    assert run.info.status == "FINISHED"
    found = {(metric.step, metric.key): metric.value for metric in metrics}
    assert len(found) == len(metrics)
    return found


def log_records(content: bytes) -> list[bytes]:
    """The records of a file in LevelDB's log format, behind 7 bytes of W&B's: blocks of 32 KiB of pieces, each with a
    checksum, its length and whether it is a whole record, or the first, a middle or the last piece of one."""
    records, start, at = [], b"", 7
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        start += content[at + 7 : at + 7 + length]
        if kind in (1, 4):
            records.append(start)
            start = b""
        at += 7 + length
    return records


def read_wandb(results: Path, run_id: str) -> Values:
    """The history in the file of a run that was offline."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: Values = {}
    for path in sorted((results / "wandb").glob(f"offline-run-*-{run_id}/*.wandb")):
        for data in log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            values = {key: float(json.loads(value)) for key, value in items.items()}
            found |= {(int(values["_step"]), key): value for key, value in values.items() if key[0] != "_"}
    return found


LOGGERS = {
    "csv": (CSV(seconds=0), read_csv),
    "tensorboard": (TensorBoard(seconds=0), read_tensorboard),
    "mlflow": (MLflow(seconds=0), read_mlflow),
    "wandb": (WandB(seconds=0, mode="offline"), read_wandb),
}
every = pytest.mark.parametrize("name", LOGGERS)


@pytest.fixture(autouse=True)
def on_this_machine(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@every
def test_a_logger_holds_each_run_of_a_stack_as_the_store_does(tmp_path, digits, name):
    logger, read = LOGGERS[name]
    messages = train(tmp_path, digits, logger)
    assert "failed" not in messages.texts
    for run in SPECS:
        assert same(read(tmp_path, run.run_id), expected(tmp_path, run, name), TOLERANCES.get(name, 0))


@every
def test_a_run_that_goes_on_has_no_row_twice_and_lacks_none(tmp_path, digits, name):
    logger, read = LOGGERS[name]
    with pytest.raises(Interrupted):
        train(tmp_path, digits, logger, SPECS[:1], stop_at=17)
    train(tmp_path, digits, logger, SPECS[:1])
    assert same(read(tmp_path, SPECS[0].run_id), expected(tmp_path, SPECS[0], name), TOLERANCES.get(name, 0))


def test_offline_runs_of_wandb_that_begin_within_a_second_get_a_folder_each(tmp_path):
    logger, _ = LOGGERS["wandb"]
    for _ in range(2):
        logger.finish(logger.begin(LoggedRun("0123456789ab", "seed=0", {}, tmp_path)), "stopped", {})
    assert len(list((tmp_path / "wandb").glob("offline-run-*-0123456789ab"))) == 2


def test_rows_arrive_while_a_run_trains(tmp_path, digits, told):
    train(tmp_path, digits, Remembering(seconds=0))
    for run in SPECS[:2]:
        own = [call for call in told if call[1] == run.run_id]
        assert [call[0] for call in own[:1] + own[-1:]] == ["begin", "finish"]
        assert own[0][2] == f"seed={run.seed}"
        assert len(own) > 10
        steps = [row.step for call in own if call[0] == "log" for row in each_row(call[2])]
        last = [max(row.step for row in each_row(call[2])) for call in own if call[0] == "log"]
        assert last == sorted(last)
        assert steps[0] == 0
    assert {call[1:] for call in told if call[0] == "finish"} == {
        (run.run_id, status) for run, status in zip(SPECS, ["finished", "finished", "diverged"], strict=True)
    }


def test_a_run_that_stops_early_is_logged_as_it_is_stored(tmp_path, digits, told):
    run = spec(3, "lr=0.5", "early_stopping.patience=1")
    train(tmp_path, digits, Remembering(seconds=0), [run])
    assert values_of([call[2] for call in told if call[0] == "log"]) == stored(tmp_path, run.run_id)


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_logger_that_fails_ends_no_run_and_is_reported_once(tmp_path, digits, told, seconds):
    messages = train(tmp_path, digits, Remembering(seconds=seconds, fails_at=2))
    assert messages.done == {run.run_id for run in SPECS}
    assert sum(call[0] == "log" for call in told) == 2
    said = [text for text in messages.texts.splitlines() if "logger" in text]
    sentence = "logger=Remembering failed and gets nothing more (RuntimeError: the network is down): training goes on."
    assert said == [sentence]


def test_a_stopped_run_is_finished_as_stopped(tmp_path, digits, told):
    with pytest.raises(Interrupted):
        train(tmp_path, digits, Remembering(), stop_at=17)
    assert [call[2] for call in told if call[0] == "finish"] == ["diverged", "stopped", "stopped"]


def test_a_missing_package_is_named_with_what_to_type(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logger=mlflow is not allowed here: .* pip install 'bnstudy\[mlflow\]'"):
        MLflow()


@pytest.mark.parametrize(("logger", "name"), [(TensorBoard(), "tensorboard/0a"), (MLflow(), ".mlflow.lock")])
def test_no_logger_writes_through_a_link_in_the_store(tmp_path, logger, name):
    link = tmp_path / "results" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="symbolic link"):
        logger.begin(LoggedRun("0a", "seed=0", {}, tmp_path / "results"))
    assert not (tmp_path / "outside").exists()


def test_the_logger_is_no_part_of_a_run(tmp_path, digits):
    train(tmp_path, digits, CSV(), SPECS[:1])
    assert Store(tmp_path).finished() == [SPECS[0].run_id]
    assert set(load_metrics(tmp_path)["run_id"]) == {SPECS[0].run_id}


@pytest.mark.slow
def test_a_logger_of_ones_own_fails_in_several_processes_with_one_warning(command, tmp_path):
    (tmp_path / "failing.py").write_text(
        "from dataclasses import dataclass\n"
        "from bnstudy import BaseLogger\n\n"
        "@dataclass(frozen=True)\n"
        "class Failing(BaseLogger):\n"
        "    def begin(self, run):\n"
        "        raise OSError('no network')\n"
    )
    folder = tmp_path / "my_conf" / "logger"
    folder.mkdir(parents=True)
    (folder / "failing.yaml").write_text("_target_: failing.Failing\nseconds: 0\n")
    words = ("norm=none,batch", "seed=range(0,2)", "steps=10", "hydra.launcher.executor=processes")
    status, _, err = command("-m", "--config-dir", "my_conf", "logger=failing", *words)
    assert status == 0
    assert err.count("logger=Failing failed and gets nothing more (OSError: no network): training goes on.") == 1
