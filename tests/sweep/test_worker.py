"""One worker in this process, compared with the serial engine and with itself undisturbed."""

from __future__ import annotations

import gc
import json
import math
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnstudy.data.base import DataSpec
from bnstudy.data.dataset import Dataset
from bnstudy.inits import InitSpec
from bnstudy.models.base import ModelSpec
from bnstudy.norms.base import NormSpec
from bnstudy.probes.base import ProbeSpec
from bnstudy.run import RunSpec
from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
from bnstudy.sweep.cost import Method
from bnstudy.sweep.messages import Beat, RunDone, Waiting
from bnstudy.sweep.plan import Datasets, Stack
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, StopFlag
from bnstudy.sweep.worker import Worker
from bnstudy.train import checkpoint
from bnstudy.train.loop import Training, start_serial
from bnstudy.train.program import NotRecorded, Program
from bnstudy.train.serial import SerialEngine
from bnstudy.train.stacked import StackedEngine
from tests.conftest import CPU, spec_of

STEPS = 30


@dataclass
class Messages:
    """The messages of a worker, and a function to call at each one."""

    all: list[Any] = field(default_factory=list)
    on_message: Callable[[Any], None] = lambda _: None

    def __call__(self, message: Any) -> None:
        self.all.append(message)
        self.on_message(message)

    @property
    def texts(self) -> str:
        return "\n".join(message for message in self.all if isinstance(message, str))

    @property
    def done(self) -> set[str]:
        return {message.run_id for message in self.all if isinstance(message, RunDone)}


class InMemory(Datasets):
    """The digits of the session, read once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.device = dataset, CPU

    def get(self, spec: DataSpec) -> Dataset:  # noqa: ARG002
        return self.dataset


@pytest.fixture(scope="module")
def at_work(digits):
    """`with at_work(folder, ...) as (worker, messages)` makes a worker on the store in a folder."""

    @contextmanager
    def worker(results: Path, command: str = "mine", **settings: Any) -> Iterator[tuple[Worker, Messages]]:
        messages, own = Messages(), Settings(results_dir=str(results), **settings)
        with Leases(Store(results), command=command) as leases:
            yield Worker(own, Store(results), InMemory(digits), leases, StopFlag(""), messages), messages

    return worker


def spec(seed: int, *overrides: str) -> RunSpec:
    return spec_of(f"seed={seed}", f"steps={STEPS}", "model.width=16", "norm=batch", "optim=adam", *overrides)


def stack_of(specs: Sequence[RunSpec], engine: str = "stacked", **method: Any) -> Stack:
    planned = tuple(PlannedRun(run, f"seed={run.seed}", "") for run in specs)
    rows = 1 if engine == "serial" else len(specs)
    return Stack(planned, Method(engine, **{"rows": rows, "compiled": False, "norms_vary": False, **method}), STEPS)


def metrics(results: Path, specs: Sequence[RunSpec]) -> list[tuple[bytes, str]]:
    """The table of each run and its correct test images, as stored."""
    store = Store(results)
    return [(store.run(r.run_id).metrics.read_bytes(), store.summary(r.run_id)["test_correct"]) for r in specs]


def finished(worker: Worker, specs: Sequence[RunSpec]) -> list[int]:
    """The seeds of the stored runs."""
    return [run.seed for run in specs if worker.store.is_finished(run.run_id)]


SPECS = [spec(seed, f"lr={lr}") for seed, lr in enumerate([0.001, 0.003, 0.01, 0.03, 0.1])]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, at_work) -> list[tuple[bytes, str]]:
    """The tables of SPECS as one stack."""
    results = tmp_path_factory.mktemp("undisturbed")
    with at_work(results) as (worker, _):
        worker.train(stack_of(SPECS))
    return metrics(results, SPECS)


def test_a_stack_is_stored_like_runs_of_the_serial_engine(tmp_path, at_work):
    specs = [spec(seed, "optim=sgd", f"lr={lr}") for seed, lr in enumerate([0.01, 0.03, 0.1])]
    for engine in ("serial", "stacked"):
        with at_work(tmp_path / engine) as (worker, messages):
            worker.train(stack_of(specs, engine))
            assert messages.done == {run.run_id for run in specs}
    for run in specs:
        serial, stacked = (Store(tmp_path / engine) for engine in ("serial", "stacked"))
        tables = [store.table(run.run_id, "metrics").to_pandas() for store in (serial, stacked)]
        columns = ["step", "epoch", "split", "metric", "layer"]
        assert tables[0][columns].equals(tables[1][columns])
        torch.testing.assert_close(*(torch.tensor(t.value) for t in tables), rtol=2e-3, atol=1e-4)
        one, other = serial.summary(run.run_id), stacked.summary(run.run_id)
        assert one.keys() == other.keys()
        assert one["test_correct"]
        assert one["test_correct"] == other["test_correct"]
        assert (one["status"], one["engine"]) == (other["status"], "serial")
        assert (other["engine"], other["stack_size"], other["compiled"]) == ("stacked", len(specs), False)
        files = [sorted(p.name for p in store.run(run.run_id).folder.iterdir()) for store in (serial, stacked)]
        assert files == [["config.yaml", "metrics.parquet", "summary.json", "timing.parquet"]] * 2


def test_a_diverged_run_leaves_its_stack_and_the_others_go_on(tmp_path, at_work):
    specs = [*SPECS[:2], spec(2, "lr=1e6"), spec(3, "lr=0.01")]
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(specs))
    status = [worker.store.summary(run.run_id)["status"] for run in specs]
    assert status[2] == "diverged"
    assert "diverged" not in (status[0], status[3])
    assert len(messages.done) == 4


def test_finished_runs_are_not_trained_again(tmp_path, at_work):
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS[:2]))
        summaries = [worker.store.run(run.run_id).summary for run in SPECS[:2]]
        written = [path.stat().st_mtime_ns for path in summaries]
        worker.train(stack_of(SPECS[:3]))
        assert [path.stat().st_mtime_ns for path in summaries] == written
        assert finished(worker, SPECS) == [0, 1, 2]
        assert len(messages.done) == 3


@dataclass(frozen=True)
class Refusing(InitSpec):
    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:  # noqa: ARG002
        raise ValueError("no such weights\nin this world")


@pytest.mark.parametrize("engine", ["auto", "serial", "stacked"])
def test_a_failing_run_fails_alone(tmp_path, at_work, engine):
    specs = [SPECS[0], replace(SPECS[1], init=Refusing()), SPECS[2]]
    with at_work(tmp_path, engine=engine) as (worker, messages):
        worker.train(stack_of(specs, "serial" if engine == "serial" else "stacked"))
        assert finished(worker, specs) == [0, 2]
        (failure,) = worker.failures
        assert failure.run_id == specs[1].run_id
        assert failure.error.startswith("ValueError: no such weights")
        assert "\n" not in failure.error
        assert "seed=1 failed: ValueError: no such weights" in messages.texts
        assert "in this world" in worker.store.run(specs[1].run_id).error.read_text()
        assert not list(tmp_path.glob("runs/*/lease.*"))
    assert not list(tmp_path.glob("workers/*"))


@dataclass(frozen=True)
class Picky(ProbeSpec):
    """A probe that depends on values and refuses large ones."""

    def measure(self, snapshot):
        norm = sum(float(p.square().sum()) for p in snapshot.params.values())
        if norm > 1e3:
            raise ArithmeticError("too large")
        return {"picky": {"": torch.tensor(norm)}}


def test_a_run_whose_probe_fails_fails_alone(tmp_path, at_work):
    specs = [replace(run, probe={"picky": Picky()}) for run in SPECS[:3]]
    specs[1] = replace(specs[1], init=replace(specs[1].init, gain=100.0))
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(specs))
        assert finished(worker, specs) == [0, 2]
        assert [failure.error for failure in worker.failures] == ["ArithmeticError: too large"]
        assert "cannot be stacked" in messages.texts


@dataclass(frozen=True)
class Branching(ModelSpec):
    """A network that cannot be stacked: it branches on values."""

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:  # noqa: ARG002
        class Net(nn.Sequential):
            def forward(self, x: Tensor) -> Tensor:
                logits = super().forward(x)
                return logits / 2 if logits.abs().max().item() > 100 else logits

        return Net(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def test_a_network_that_cannot_be_stacked_is_trained_one_by_one_unless_the_engine_is_given(tmp_path, at_work):
    specs = [replace(run, model=Branching()) for run in SPECS[:2]]
    with at_work(tmp_path, engine="stacked") as (worker, _):
        worker.train(stack_of(specs))
        assert len(worker.failures) == 2
        for failure in worker.failures:
            assert failure.error.startswith("RuntimeError: vmap: It looks like you're calling .item()")
            assert failure.error.endswith("; engine=auto trains one by one what cannot be stacked")
    with at_work(tmp_path, command="another") as (worker, messages):
        worker.train(stack_of(specs))
        assert {worker.store.summary(run.run_id)["engine"] for run in specs} == {"serial"}
        assert messages.texts.count("seed=0 and 1 more cannot be stacked (RuntimeError: vmap: ") == 1
        assert "going on one by one" in messages.texts


def test_a_stack_that_does_not_fit_into_memory_is_halved(tmp_path, at_work, monkeypatch, undisturbed):
    make_step, tried = StackedEngine._make_step, []

    def greedy(self, t, **which):
        if not tried or tried[-1] != self.runs:
            tried.append(self.runs)
        if self.runs > 2:
            torch.empty(2**60)
        return make_step(self, t, **which)

    monkeypatch.setattr(StackedEngine, "_make_step", greedy)
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS))
        assert not worker.failures
    assert tried == [5, 3, 2, 1, 2]
    assert "5 runs do not fit into memory at once: going on in halves." in messages.texts
    assert metrics(tmp_path, SPECS) == undisturbed


def test_a_stack_whose_step_cannot_be_recorded_is_trained_uncompiled(tmp_path, at_work, monkeypatch, undisturbed):
    def refuse(*_: Any) -> None:
        raise NotRecorded("its Python code reads a number")

    monkeypatch.setattr("bnstudy.train.stacked.Program", refuse)
    with at_work(tmp_path / "auto") as (worker, messages):
        worker.train(stack_of(SPECS, compiled=True))
        assert not worker.failures
        assert "cannot be compiled (its Python code reads a number): going on without." in messages.texts
        assert not worker.store.summary(SPECS[0].run_id)["compiled"]
    assert metrics(tmp_path / "auto", SPECS) == undisturbed
    with at_work(tmp_path / "true", compile=True, engine="stacked") as (worker, _):
        worker.train(stack_of(SPECS, compiled=True))
        assert len(worker.failures) == len(SPECS)


@pytest.mark.parametrize("compiled", ["auto", True])
def test_a_compiled_stack_with_a_failing_run_is_trained_one_by_one_at_once(tmp_path, at_work, compiled):
    specs = [SPECS[0], replace(SPECS[1], init=Refusing()), SPECS[2]]
    with at_work(tmp_path, compile=compiled) as (worker, messages):
        worker.train(stack_of(specs, compiled=True))
        assert "cannot be compiled" not in messages.texts
        assert finished(worker, specs) == [0, 2]
        summaries = [worker.store.summary(specs[i].run_id) for i in (0, 2)]
    assert {(summary["engine"], summary["compiled"]) for summary in summaries} == {("serial", False)}


def test_a_run_whose_folder_cannot_be_written_fails_alone(tmp_path, at_work):
    with at_work(tmp_path) as (worker, _):
        folder = worker.store.run(SPECS[1].run_id).folder
        folder.parent.mkdir()
        folder.touch()
        worker.train(stack_of(SPECS[:3]))
        assert finished(worker, SPECS) == [0, 2]
        assert [failure.run_id for failure in worker.failures] == [SPECS[1].run_id]


@pytest.fixture
def beating_often(monkeypatch):
    monkeypatch.setattr(Training, "beat_seconds", 0)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have each write beyond this size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def interrupt(worker: Worker, messages: Messages, stack: Stack, step: int) -> None:
    """Send a signal at the given step."""

    def signal_at(message: Any) -> None:
        if isinstance(message, Beat) and message.step >= step:
            worker.stop.signum = 15

    messages.on_message = signal_at
    with pytest.raises(Interrupted):
        worker.train(stack)


@pytest.mark.usefixtures("beating_often")
@pytest.mark.parametrize("engine", ["stacked", "serial"])
def test_an_interrupted_stack_ends_with_the_metrics_of_an_undisturbed_one(tmp_path, at_work, undisturbed, engine):
    for step in (3, 17):
        with at_work(tmp_path) as (worker, messages):
            interrupt(worker, messages, stack_of(SPECS, engine), step)
            assert not list(tmp_path.glob("runs/*/lease.*"))
            assert not finished(worker, SPECS)
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS, engine))
    if engine == "stacked":
        assert "5 runs: going on from step" in messages.texts
        assert metrics(tmp_path, SPECS) == undisturbed
    else:
        with at_work(tmp_path / "in_peace") as (worker, _):
            worker.train(stack_of(SPECS, engine))
        assert metrics(tmp_path, SPECS) == metrics(tmp_path / "in_peace", SPECS)
    assert not list(tmp_path.glob("runs/*/checkpoint*"))


@pytest.mark.usefixtures("beating_often")
def test_runs_go_on_each_from_the_step_of_its_own_checkpoint(tmp_path, at_work, undisturbed):
    with at_work(tmp_path) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS[:2]), 20)
    with at_work(tmp_path) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS[2:3]), 7)
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS))
    assert [line.split(" of ")[0] for line in messages.texts.splitlines()] == [
        "2 runs: going on from step 20",
        "seed=2: going on from step 7",
    ]
    assert metrics(tmp_path, SPECS) == undisturbed


def truncate(path: Path, _: Dataset) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def change(path: Path, digits: Dataset, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a saved state."""
    run_id, checksum = path.parent.name, digits.checksum
    state = checkpoint.load(path, run_id, checksum, CPU)
    edit(state)
    checkpoint.save(path, run_id, checksum, state)


def drop_params(path: Path, digits: Dataset) -> None:
    change(path, digits, lambda state: state.pop("params"))


def shorten_params(path: Path, digits: Dataset) -> None:
    change(path, digits, lambda state: state.update(params=state["params"][:-1]))


def make_record_a_list(path: Path, digits: Dataset) -> None:
    change(path, digits, lambda state: state.update(record=[]))


def make_buffers_a_number(path: Path, digits: Dataset) -> None:
    change(path, digits, lambda state: state.update(buffers=5))


FOUR_GO_ON = f"4 runs: going on from step 12 of {STEPS}."


@pytest.mark.usefixtures("beating_often")
@pytest.mark.parametrize(
    ("damage", "damaged", "why", "restored"),
    [
        (truncate, [3], "", FOUR_GO_ON),
        (drop_params, range(5), "it does not fit", ""),
        (drop_params, [1], "it does not fit this version: KeyError: 'params'", FOUR_GO_ON),
        (shorten_params, [0], "it does not fit", FOUR_GO_ON),
        (make_record_a_list, [4], "it does not fit", FOUR_GO_ON),
        (make_buffers_a_number, [2], "it does not fit", FOUR_GO_ON),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_set_aside_and_its_run_restarts(
    tmp_path, at_work, digits, undisturbed, caplog, damage, damaged, why, restored
):
    with at_work(tmp_path) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS), 12)
        for i in damaged:
            damage(worker.store.run(SPECS[i].run_id).checkpoint, digits)
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS))
    assert messages.texts == restored
    assert caplog.text.count("set aside as checkpoint.bad.pt") == len(damaged)
    assert why in caplog.text
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.usefixtures("beating_often")
def test_a_disk_that_goes_away_is_not_blamed_on_stacking(tmp_path, at_work, digits, monkeypatch):
    def away(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with at_work(tmp_path) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS[:1]), 12)
        drop_params(worker.store.run(SPECS[0].run_id).checkpoint, digits)
    monkeypatch.setattr(checkpoint, "set_aside", away)
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS[:1]))
        assert [failure.error for failure in worker.failures] == ["OSError: [Errno 5] Input/output error"]
        assert "stacked" not in messages.texts


@pytest.mark.usefixtures("beating_often")
def test_a_checkpoint_that_cannot_be_read_is_kept_and_its_run_fails(tmp_path, at_work, monkeypatch, undisturbed):
    read = Path.read_bytes

    def bad_sector(path: Path) -> bytes:
        if path.parent.name == SPECS[3].run_id and path.name == "checkpoint.pt":
            raise OSError(5, "Input/output error")
        return read(path)

    with at_work(tmp_path) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS), 12)
    with monkeypatch.context() as broken, at_work(tmp_path) as (worker, _):
        broken.setattr(Path, "read_bytes", bad_sector)
        worker.train(stack_of(SPECS))
        assert [failure.run_id for failure in worker.failures] == [SPECS[3].run_id]
    with at_work(tmp_path, command="another") as (worker, messages):
        worker.train(stack_of(SPECS))
    assert f"going on from step 12 of {STEPS}." in messages.texts
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.usefixtures("beating_often")
@pytest.mark.parametrize("engine", ["stacked", "serial"])
def test_a_disk_without_room_for_checkpoints_fails_no_run(tmp_path, at_work, undisturbed, engine):
    with at_work(tmp_path, checkpoint_seconds=1e-9) as (worker, messages):
        with largest_file(10_000):
            worker.train(stack_of(SPECS, engine))
        assert worker.failures == []
    assert finished(worker, SPECS) == [0, 1, 2, 3, 4]
    (line,) = messages.texts.splitlines()
    assert line.startswith("Checkpoints cannot be written (")
    assert line.endswith("): training goes on.")
    assert engine == "serial" or metrics(tmp_path, SPECS) == undisturbed
    assert not list(tmp_path.glob("runs/*/.*"))


@pytest.mark.usefixtures("beating_often")
def test_checkpoints_are_tried_again_and_those_that_a_signal_needs_are_missed_aloud(tmp_path, at_work, monkeypatch):
    """Checkpoints 1 and 2 of the five runs fail, later ones succeed; the last, at the signal, fails again."""
    save, calls = checkpoint.save, []

    def full_at_times(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) <= 10 or worker.stop.signum is not None:
            raise OSError(28, "No space left on device")
        save(*arguments)

    monkeypatch.setattr(checkpoint, "save", full_at_times)
    with at_work(tmp_path, checkpoint_seconds=1e-9) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS), 12)
    assert messages.texts.splitlines() == [
        "Checkpoints cannot be written (No space left on device): training goes on.",
        "Checkpoints cannot be written (No space left on device): steps since the last one will be made again.",
    ]
    path, checksum = worker.store.run(SPECS[0].run_id).checkpoint, worker.datasets.get(SPECS[0].data).checksum
    saved = checkpoint.load(path, SPECS[0].run_id, checksum, CPU)
    assert 3 <= saved["step"] < 12


def store_badly(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], int]) -> list[str]:
    """Have results fail to be stored with the error number of `fails`, if it is not 0. Returns the attempts' runs."""
    finish, attempts = Store.finish, []

    def bad_finish(store: Store, run_id: str, *results: Any) -> None:
        attempts.append(run_id)
        if number := fails(run_id):
            raise OSError(number, os.strerror(number))
        finish(store, run_id, *results)

    monkeypatch.setattr(Store, "finish", bad_finish)
    return attempts


def test_results_wait_for_room_on_the_disk(tmp_path, at_work, monkeypatch, undisturbed):
    monkeypatch.setattr("bnstudy.sweep.disk.time.sleep", lambda _: None)
    attempts = store_badly(monkeypatch, lambda run_id: 28 if attempts.count(run_id) < 4 else 0)
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS))
        assert worker.failures == []
    assert "The results of seed=0 cannot be written (No space left on device): trying again" in messages.texts
    assert metrics(tmp_path, SPECS) == undisturbed


def test_results_wait_again_after_the_disk_has_taken_others(tmp_path, at_work, monkeypatch):
    monkeypatch.setattr("bnstudy.sweep.disk.time.sleep", lambda _: None)
    specs = [*SPECS[:2], spec(2, "lr=1e6")]
    with at_work(tmp_path) as (worker, _):

        def fails(run_id: str) -> int:
            if run_id == specs[2].run_id:  # an earlier run has waited in vain
                worker._disk.is_lost = True
                return 0
            return 28 if attempts.count(run_id) < 4 else 0

        attempts = store_badly(monkeypatch, fails)
        worker.train(stack_of(specs))
        assert worker.failures == []
    assert finished(worker, specs) == [0, 1, 2]


def interrupt_results(worker: Worker, monkeypatch: pytest.MonkeyPatch, run: RunSpec) -> None:
    """Send a signal while the results of a run wait for room on the disk."""

    def fails(run_id: str) -> int:
        if run_id == run.run_id:
            worker.stop.signum = 15
            return 28
        return 0

    store_badly(monkeypatch, fails)


def test_a_signal_while_the_results_of_a_diverged_run_wait_for_room_saves_the_others(tmp_path, at_work, monkeypatch):
    specs = [*SPECS[:2], spec(2, "lr=1e6"), spec(3, "lr=1e6")]
    stack = stack_of(specs)
    with at_work(tmp_path / "undisturbed") as (worker, _):
        worker.train(stack)
    with monkeypatch.context() as full, at_work(tmp_path) as (worker, _):
        interrupt_results(worker, full, specs[3])
        with pytest.raises(Interrupted):
            worker.train(stack)
    assert finished(worker, specs) == [2]
    assert [worker.store.run(run.run_id).checkpoint.exists() for run in specs] == [True, True, False, True]
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack)
    assert "3 runs: going on from step" in messages.texts
    assert metrics(tmp_path, specs) == metrics(tmp_path / "undisturbed", specs)


def test_a_signal_while_the_last_results_wait_for_room_says_what_is_made_again(
    tmp_path, at_work, monkeypatch, undisturbed
):
    with monkeypatch.context() as full, at_work(tmp_path) as (worker, messages):
        interrupt_results(worker, full, SPECS[1])
        with pytest.raises(Interrupted):
            worker.train(stack_of(SPECS))
    assert finished(worker, SPECS) == [0, 2, 3, 4]
    assert "Runs that are not stored make the steps since their last checkpoint again." in messages.texts
    assert not list(tmp_path.glob("runs/*/checkpoint*"))
    with at_work(tmp_path) as (worker, _):
        worker.train(stack_of(SPECS))
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.parametrize("engine", ["auto", "stacked"])
def test_a_run_whose_folder_takes_no_results_fails_alone(tmp_path, at_work, monkeypatch, engine):
    attempts = store_badly(monkeypatch, lambda run_id: 1 if run_id == SPECS[2].run_id else 0)
    with at_work(tmp_path, engine=engine) as (worker, messages):
        worker.work([stack_of(SPECS)])
        assert [(failure.run_id, failure.error) for failure in worker.failures] == [
            (SPECS[2].run_id, "PermissionError: [Errno 1] Operation not permitted")
        ]
    assert finished(worker, SPECS) == [0, 1, 3, 4]
    assert Counter(attempts) == {run.run_id: 2 if run.seed == 2 else 1 for run in SPECS}
    assert messages.texts == "seed=2 failed: PermissionError: [Errno 1] Operation not permitted"
    monkeypatch.undo()
    with at_work(tmp_path, command="another") as (worker, _):
        worker.train(stack_of(SPECS))
    assert finished(worker, SPECS) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("obstacle", ["a file", "a loop of links"])
def test_a_run_whose_folder_cannot_be_made_fails_alone(tmp_path, at_work, obstacle):
    folder = Store(tmp_path).run(SPECS[0].run_id).folder
    folder.parent.mkdir()
    if obstacle == "a file":
        folder.touch()
    else:
        folder.symlink_to(folder)
    with at_work(tmp_path) as (worker, _):
        worker.work([stack_of(SPECS)])
        (failure,) = worker.failures
    assert failure.run_id == SPECS[0].run_id
    assert str(folder) in failure.error
    assert finished(worker, SPECS) == [1, 2, 3, 4]


def test_leases_wait_for_room_on_the_disk(tmp_path, at_work, monkeypatch):
    monkeypatch.setattr("bnstudy.sweep.disk.time.sleep", lambda _: None)
    acquire, attempts = Leases.acquire, []

    def full_at_first(leases: Leases, run_ids: Sequence[str]) -> list[str]:
        attempts.append(run_ids)
        if len(attempts) < 4:
            raise OSError(28, "No space left on device")
        return acquire(leases, run_ids)

    monkeypatch.setattr(Leases, "acquire", full_at_first)
    with at_work(tmp_path) as (worker, messages):
        worker.work([stack_of(SPECS)])
        assert worker.failures == []
    assert finished(worker, SPECS) == [0, 1, 2, 3, 4]
    assert "The lease of seed=0 and 4 more cannot be written (No space left on device)" in messages.texts


@pytest.mark.parametrize("finishes", [True, False], ids=["the other finishes them", "the other gives them up"])
def test_a_worker_waits_for_the_runs_that_another_holds(tmp_path, at_work, undisturbed, finishes):
    ids = [run.run_id for run in SPECS]
    with at_work(tmp_path) as (other, _), at_work(tmp_path) as (worker, messages):
        assert other.leases.acquire(ids[1:3]) == ids[1:3]

        def end_wait(message: Any) -> None:
            if isinstance(message, Waiting):
                assert finished(worker, SPECS) == [0, 3, 4]
                assert str(message) == f"Waiting for 2 runs that process {os.getpid()} on {other.leases.me.host} has."
                if finishes:
                    other.train(stack_of(SPECS[1:3]))
                other.leases.release(ids)

        messages.on_message = end_wait
        worker.work([stack_of(SPECS)])
        assert messages.done == {*ids}
    assert metrics(tmp_path, SPECS) == undisturbed


def test_a_worker_does_not_divide_a_stack_and_waits_as_long_as_its_patience(tmp_path, at_work):
    with at_work(tmp_path) as (other, _), at_work(tmp_path) as (worker, _):
        other.leases.acquire([SPECS[0].run_id])
        stack = stack_of(SPECS[:2])
        assert worker.train(stack, whole=True) == stack
        assert finished(worker, SPECS) == []
        worker.work([stack], patience=0.2)
        assert finished(worker, SPECS) == [1]


def test_a_failed_run_is_not_tried_by_another_worker_of_the_command(tmp_path, at_work):
    stack = stack_of([SPECS[0], replace(SPECS[1], init=Refusing())])
    with at_work(tmp_path) as (first, _), at_work(tmp_path) as (second, messages):
        first.work([stack])
        second.work([stack])
        assert len(first.failures) == 1
        assert second.failures == []
        assert "failed" not in messages.texts
    with at_work(tmp_path, command="another") as (later, _):
        later.work([stack])
        assert len(later.failures) == 1


def died_with(results: Path, specs: Sequence[RunSpec], deaths: int, command: str = "mine") -> None:
    """Leave leases of a process of this machine that is gone."""
    with Leases(Store(results), command=command) as leases:
        leases.me = replace(leases.me, started=1)
        for run in specs:
            lease = Store(results).run(run.run_id).folder / "lease.1"
            lease.parent.mkdir(parents=True)
            lease.write_text(json.dumps(asdict(replace(leases.me, deaths=deaths))))


def test_runs_of_a_dead_worker_are_tried_once_more_in_two_parts(tmp_path, at_work, undisturbed):
    with at_work(tmp_path) as (worker, messages):
        died_with(tmp_path, SPECS[:4], deaths=0)
        worker.work([stack_of(SPECS)])
        assert "4 runs of a process that died: trying once more, in parts." in messages.texts
        assert [worker.store.summary(run.run_id)["stack_size"] for run in SPECS] == [2, 2, 2, 2, 1]
        assert worker.failures == []
    assert metrics(tmp_path, SPECS) == undisturbed
    assert not list(tmp_path.glob("runs/*/lease.*"))


def test_runs_that_two_workers_died_with_have_failed(tmp_path, at_work):
    with at_work(tmp_path) as (worker, _):
        died_with(tmp_path, SPECS[:2], deaths=1)
        worker.work([stack_of(SPECS)])
        assert finished(worker, SPECS) == [2, 3, 4]
        assert {(failure.run_id, failure.pid) for failure in worker.failures} == {
            (run.run_id, os.getpid()) for run in SPECS[:2]
        }
        assert "died while it trained the run, as had one before" in worker.failures[0].error
    assert not list(tmp_path.glob("runs/*/lease.*"))


def test_deaths_in_another_command_do_not_count(tmp_path, at_work):
    with at_work(tmp_path) as (worker, messages):
        died_with(tmp_path, SPECS, deaths=5, command="another")
        worker.work([stack_of(SPECS)])
        assert finished(worker, SPECS) == [0, 1, 2, 3, 4]
        assert messages.texts == ""


@pytest.mark.usefixtures("beating_often")
def test_a_run_that_another_machine_took_over_is_left_to_it(tmp_path, at_work, monkeypatch, undisturbed):
    with at_work(tmp_path, checkpoint_seconds=1e-3) as (worker, _):
        monkeypatch.setattr(worker.leases, "lost", lambda: {SPECS[1].run_id, SPECS[2].run_id})
        rest = worker.train(stack_of(SPECS))
        assert finished(worker, SPECS) == [0, 3, 4]
        assert rest.run_ids == [SPECS[1].run_id, SPECS[2].run_id]
        monkeypatch.undo()
        worker.work([rest])
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.usefixtures("beating_often")
def test_a_run_that_another_machine_took_over_since_the_last_checkpoint_is_not_stored(tmp_path, at_work, monkeypatch):
    with at_work(tmp_path) as (other, _), at_work(tmp_path) as (worker, messages):
        lease = worker.store.run(SPECS[1].run_id).folder / "lease.2"

        def take_over(message: Any) -> None:
            if isinstance(message, Beat) and message.step > 5 and not lease.exists():
                lease.write_text(json.dumps(asdict(other.leases.me)))

        messages.on_message = take_over
        stored = store_badly(monkeypatch, lambda _: 0)
        rest = worker.train(stack_of(SPECS[:3]))
        assert stored == [SPECS[0].run_id, SPECS[2].run_id]
        assert rest.run_ids == [SPECS[1].run_id]
        assert (worker.failures, messages.texts) == ([], "")
        assert lease.exists()


@pytest.mark.usefixtures("beating_often")
def test_a_disk_that_does_not_show_the_leases_for_a_while_disturbs_no_stack(
    tmp_path, at_work, monkeypatch, undisturbed
):
    lost, asked = Leases.lost, []

    def away_at_first(leases: Leases) -> set[str]:
        asked.append(leases)
        if len(asked) < 3:
            raise OSError(5, "Input/output error")
        return lost(leases)

    monkeypatch.setattr(Leases, "lost", away_at_first)
    with at_work(tmp_path, checkpoint_seconds=1e-9) as (worker, messages):
        worker.train(stack_of(SPECS))
        assert (worker.failures, messages.texts) == ([], "")
    assert len(asked) > 3
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.usefixtures("beating_often")
def test_a_lone_interrupted_run_may_go_on_in_a_stack(tmp_path, at_work):
    """The engines share the format of a checkpoint."""
    with at_work(tmp_path) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS[:1], "serial"), 12)
    with at_work(tmp_path) as (worker, messages):
        worker.train(stack_of(SPECS[:2]))
        assert "seed=0: going on from step 12" in messages.texts
        assert worker.store.summary(SPECS[0].run_id)["engine"] == StackedEngine.name != SerialEngine.name


@pytest.mark.usefixtures("beating_often")
def test_no_tensors_of_a_stack_are_kept_while_its_runs_are_tried_alone(tmp_path, at_work, digits, monkeypatch):
    with at_work(tmp_path) as (worker, messages):
        interrupt(worker, messages, stack_of(SPECS), 12)
        drop_params(worker.store.run(SPECS[1].run_id).checkpoint, digits)
    alive = []

    def start(*arguments: Any) -> Training:
        gc.collect()
        alive.extend(o for o in map(type, gc.get_objects()) if o is StackedEngine)
        return start_serial(*arguments)

    monkeypatch.setattr("bnstudy.sweep.worker.start_serial", start)
    with at_work(tmp_path) as (worker, _):
        worker.train(stack_of(SPECS, compiled=True))
        assert finished(worker, SPECS) == [0, 1, 2, 3, 4]
    assert alive == []


def test_stacks_of_one_kind_share_their_programs(tmp_path, at_work, monkeypatch):
    record, recorded = Program.__init__, []
    monkeypatch.setattr(Program, "__init__", lambda *arguments: recorded.append(0) or record(*arguments))
    others = [spec(10 + seed, f"lr={run.lr}") for seed, run in enumerate(SPECS)]
    with at_work(tmp_path) as (worker, _):
        worker.train(stack_of(others, compiled=True))
        programs = len(recorded)
        worker.train(stack_of(SPECS, compiled=True))
    assert len(recorded) == programs > 0
    with at_work(tmp_path / "alone") as (worker, _):
        worker.train(stack_of(SPECS, compiled=True))
    assert len(recorded) == 2 * programs
    assert metrics(tmp_path, SPECS) == metrics(tmp_path / "alone", SPECS)
