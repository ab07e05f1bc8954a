"""One worker in this process, against the serial engine and against itself undisturbed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from bnstudy.sweep import worker as worker_module
from bnstudy.sweep.cost import Shape
from bnstudy.sweep.plan import Datasets, Stack
from bnstudy.sweep.progress import Beat
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, StopFlag
from bnstudy.sweep.worker import Left, Worker, see_to_the_rest
from bnstudy.train.loop import Engine
from bnstudy.train.serial import SerialRun
from bnstudy.train.stacked import StackedRun
from tests.conftest import CPU, spec_of

STEPS = 30


@dataclass
class Told:
    """What a worker told, and something to do when it tells."""

    all: list[Any] = field(default_factory=list)
    on_beat: Callable[[Beat], None] = lambda _: None

    def __call__(self, told: Any) -> None:
        self.all.append(told)
        if isinstance(told, Beat):
            self.on_beat(told)

    @property
    def texts(self) -> str:
        return "\n".join(told for told in self.all if isinstance(told, str))

    @property
    def left(self) -> int:
        return sum(isinstance(told, Left) for told in self.all)


class InMemory(Datasets):
    """The digits of the session, not read again."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.device = dataset, CPU

    def get(self, spec: DataSpec) -> Dataset:  # noqa: ARG002
        return self.dataset


@pytest.fixture
def at_work(digits):
    """`with at_work(folder, ...) as (worker, told)` has a worker on the store in a folder."""

    @contextmanager
    def worker(results: Path, **settings: Any) -> Iterator[tuple[Worker, Told]]:
        told = Told()
        with Leases(Store(results)) as leases:
            yield (
                Worker(
                    Settings(results_dir=str(results), **settings),
                    Store(results),
                    InMemory(digits),
                    leases,
                    StopFlag(""),
                    told,
                ),
                told,
            )

    return worker


def spec(seed: int, *overrides: str) -> RunSpec:
    return spec_of(f"seed={seed}", f"steps={STEPS}", "model.width=16", "norm=batch", "optim=adam", *overrides)


def stack_of(specs: Sequence[RunSpec], engine: str = "stacked", **shape: Any) -> Stack:
    planned = tuple(PlannedRun(run, f"seed={run.seed}", "") for run in specs)
    rows = 1 if engine == "serial" else len(specs)
    return Stack(planned, Shape(engine, **{"rows": rows, "compiled": False, "free": False, **shape}), STEPS)


def metrics(results: Path, specs: Sequence[RunSpec]) -> list[bytes]:
    return [Store(results).run(run.run_id).metrics.read_bytes() for run in specs]


def finished(worker: Worker, specs: Sequence[RunSpec]) -> list[int]:
    """The seeds of those that are stored."""
    return [run.seed for run in specs if worker.store.is_finished(run.run_id)]


SPECS = [spec(seed, f"lr={lr}") for seed, lr in enumerate([0.001, 0.003, 0.01, 0.03, 0.1])]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits) -> list[bytes]:
    """The tables of SPECS as one stack."""
    results = tmp_path_factory.mktemp("undisturbed")
    with Leases(Store(results)) as leases:
        Worker(Settings(), Store(results), InMemory(digits), leases, StopFlag(""), Told()).do(stack_of(SPECS))
    return metrics(results, SPECS)


# ------------------------------------------------------------------------------------------------ what is stored


def test_a_stack_is_stored_as_runs_of_the_serial_engine_are(tmp_path, at_work):
    specs = [spec(seed, "optim=sgd", f"lr={lr}") for seed, lr in enumerate([0.01, 0.03, 0.1])]
    for engine in ("serial", "stacked"):
        with at_work(tmp_path / engine) as (worker, told):
            worker.do(stack_of(specs, engine))
            assert told.left == len(specs)
    for run in specs:
        serial, stacked = (Store(tmp_path / engine) for engine in ("serial", "stacked"))
        tables = [store.table(run.run_id, "metrics").to_pandas() for store in (serial, stacked)]
        columns = ["step", "epoch", "split", "metric", "layer"]
        assert tables[0][columns].equals(tables[1][columns])
        torch.testing.assert_close(*(torch.tensor(t.value) for t in tables), rtol=2e-3, atol=1e-4)
        one, other = serial.summary(run.run_id), stacked.summary(run.run_id)
        assert one.keys() == other.keys()
        assert (one["status"], one["engine"]) == (other["status"], "serial")
        assert (other["engine"], other["stack_size"], other["compiled"]) == ("stacked", len(specs), False)
        files = [sorted(p.name for p in store.run(run.run_id).folder.iterdir()) for store in (serial, stacked)]
        assert files == [["config.yaml", "metrics.parquet", "summary.json", "timing.parquet"]] * 2


def test_a_diverged_run_leaves_its_stack_and_the_others_go_on(tmp_path, at_work):
    specs = [*SPECS[:2], spec(2, "lr=1e6"), spec(3, "lr=0.01")]
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(specs))
    status = [worker.store.summary(run.run_id)["status"] for run in specs]
    assert status[2] == "diverged"
    assert "diverged" not in (status[0], status[3])
    assert told.left == 4


def test_what_is_finished_is_not_trained_again(tmp_path, at_work):
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS[:2]))
        written = [worker.store.run(run.run_id).summary.stat().st_mtime_ns for run in SPECS[:2]]
        worker.do(stack_of(SPECS[:3]))
        assert [worker.store.run(run.run_id).summary.stat().st_mtime_ns for run in SPECS[:2]] == written
        assert finished(worker, SPECS) == [0, 1, 2]
        assert told.left == 2 + 3


# ------------------------------------------------------------------------------------------------ what fails


@dataclass(frozen=True)
class Refusing(InitSpec):
    def weight_(self, weight: Tensor, generator: torch.Generator) -> None:  # noqa: ARG002
        raise ValueError("no such weights\nin this world")


@pytest.mark.parametrize("engine", ["auto", "serial", "stacked"])
def test_a_failing_run_does_not_take_the_others_of_its_stack(tmp_path, at_work, engine):
    specs = [SPECS[0], replace(SPECS[1], init=Refusing()), SPECS[2]]
    with at_work(tmp_path, engine=engine) as (worker, told):
        worker.do(stack_of(specs, "serial" if engine == "serial" else "stacked"))
        assert finished(worker, specs) == [0, 2]
        (failure,) = worker.failures
        assert failure.run_id == specs[1].run_id
        assert failure.error.startswith("ValueError: no such weights")
        assert "\n" not in failure.error
        assert "seed=1 failed: ValueError: no such weights" in told.texts
        assert "in this world" in worker.store.run(specs[1].run_id).error.read_text()
        assert not list(tmp_path.glob("runs/*/lease.*"))
    assert not list(tmp_path.glob("workers/*"))


@dataclass(frozen=True)
class Picky(ProbeSpec):
    """A probe that looks at values, and does not like large ones."""

    def measure(self, snapshot):
        norm = sum(float(p.square().sum()) for p in snapshot.params.values())
        if norm > 1e3:
            raise ArithmeticError("too large")
        return {"picky": {"": torch.tensor(norm)}}


def test_a_run_whose_probe_fails_does_not_take_the_others(tmp_path, at_work):
    specs = [replace(run, probe={"picky": Picky()}) for run in SPECS[:3]]
    specs[1] = replace(specs[1], init=replace(specs[1].init, gain=100.0))
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(specs))
        assert finished(worker, specs) == [0, 2]
        assert [failure.error for failure in worker.failures] == ["ArithmeticError: too large"]
        assert "cannot be stacked" in told.texts


@dataclass(frozen=True)
class Branching(ModelSpec):
    """A branch that depends on values cannot be taken by many runs at once."""

    def build(self, norm: NormSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:  # noqa: ARG002
        class Net(nn.Sequential):
            def forward(self, x: Tensor) -> Tensor:
                logits = super().forward(x)
                return logits / 2 if logits.abs().max().item() > 100 else logits

        return Net(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def test_a_network_that_cannot_be_stacked_is_trained_one_by_one(tmp_path, at_work):
    specs = [replace(run, model=Branching()) for run in SPECS]
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(specs))
        assert finished(worker, specs) == [0, 1, 2, 3, 4]
        assert {worker.store.summary(run.run_id)["engine"] for run in specs} == {"serial"}
        assert told.texts.count("seed=0 and 4 more cannot be stacked (RuntimeError: vmap: ") == 1
        assert "going on one by one" in told.texts


def test_a_network_that_cannot_be_stacked_fails_where_it_must_be(tmp_path, at_work):
    specs = [replace(run, model=Branching()) for run in SPECS[:2]]
    with at_work(tmp_path, engine="stacked") as (worker, _):
        worker.do(stack_of(specs))
        assert len(worker.failures) == 2
        for failure in worker.failures:
            assert failure.error.startswith("RuntimeError: vmap: It looks like you're calling .item()")
            assert failure.error.endswith("; engine=auto trains one by one what cannot be stacked")


def test_what_does_not_fit_into_memory_goes_on_in_halves(tmp_path, at_work, monkeypatch, undisturbed):
    update, tried = StackedRun._update, []

    def greedy(self, **how):
        if not tried or tried[-1] != len(self.specs):
            tried.append(len(self.specs))
        if len(self.specs) > 2:
            torch.empty(2**60)
        return update(self, **how)

    monkeypatch.setattr(StackedRun, "_update", greedy)
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS))
        assert not worker.failures
    assert tried == [5, 3, 2, 1, 2]
    assert "5 runs do not fit into memory at once: going on in halves." in told.texts
    assert metrics(tmp_path, SPECS) == undisturbed


def test_what_cannot_be_compiled_is_trained_as_it_stands(tmp_path, at_work, monkeypatch, undisturbed):
    """As where there is no compiler."""

    def no_compiler(*_: Any) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr("bnstudy.train.compiled._compiled", no_compiler)
    with at_work(tmp_path / "auto") as (worker, told):
        worker.do(stack_of(SPECS, compiled=True))
        assert not worker.failures
        assert "cannot be trained compiled (RuntimeError: InvalidCxxCompiler" in told.texts
        assert not worker.store.summary(SPECS[0].run_id)["compiled"]
    assert metrics(tmp_path / "auto", SPECS) == undisturbed
    with at_work(tmp_path / "true", compile=True, engine="stacked") as (worker, _):
        worker.do(stack_of(SPECS, compiled=True))
        assert len(worker.failures) == len(SPECS)


def test_a_run_whose_folder_cannot_be_written_fails_alone(tmp_path, at_work):
    with at_work(tmp_path) as (worker, _):
        folder = worker.store.run(SPECS[1].run_id).folder
        folder.parent.mkdir()
        folder.touch()
        worker.do(stack_of(SPECS[:3]))
        assert finished(worker, SPECS) == [0, 2]
        assert [failure.run_id for failure in worker.failures] == [SPECS[1].run_id]


# ---------------------------------------------------------------------------------------- stopped and going on


@pytest.fixture
def beating_often(monkeypatch):
    monkeypatch.setattr(Engine, "beat_seconds", 0)


def interrupt(worker: Worker, told: Told, stack: Stack, step: int) -> None:
    """Have a signal come when so many updates are done."""

    def signal_at(beat: Beat) -> None:
        if beat.step >= step:
            worker.stop.signum = 15

    told.on_beat = signal_at
    with pytest.raises(Interrupted):
        worker.do(stack)


@pytest.mark.usefixtures("beating_often")
@pytest.mark.parametrize("engine", ["stacked", "serial"])
def test_an_interrupted_stack_ends_as_an_undisturbed_one(tmp_path, at_work, undisturbed, engine):
    for step in (3, 17):
        with at_work(tmp_path) as (worker, told):
            interrupt(worker, told, stack_of(SPECS, engine), step)
            assert not list(tmp_path.glob("runs/*/lease.*"))
            assert not finished(worker, SPECS)
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS, engine))
    if engine == "stacked":
        assert "5 runs: going on from step" in told.texts
        assert metrics(tmp_path, SPECS) == undisturbed
    else:
        with at_work(tmp_path / "in_peace") as (worker, _):
            worker.do(stack_of(SPECS, engine))
        assert metrics(tmp_path, SPECS) == metrics(tmp_path / "in_peace", SPECS)
    assert not list(tmp_path.glob("runs/*/checkpoint*"))


@pytest.mark.usefixtures("beating_often")
def test_runs_interrupted_at_unequal_steps_are_taken_up_each_from_its_own(tmp_path, at_work, undisturbed):
    with at_work(tmp_path) as (worker, told):
        interrupt(worker, told, stack_of(SPECS[:2]), 20)
    with at_work(tmp_path) as (worker, told):
        interrupt(worker, told, stack_of(SPECS[2:3]), 7)
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS))
    assert [line.split(" of ")[0] for line in told.texts.splitlines()] == [
        "2 runs: going on from step 20",
        "seed=2: going on from step 7",
    ]
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.usefixtures("beating_often")
def test_a_damaged_checkpoint_restarts_its_run_only(tmp_path, at_work, undisturbed, caplog):
    with at_work(tmp_path) as (worker, told):
        interrupt(worker, told, stack_of(SPECS), 12)
        damaged = worker.store.run(SPECS[3].run_id).checkpoint
        damaged.write_bytes(damaged.read_bytes()[:1000])
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS))
    assert told.texts == f"4 runs: going on from step 12 of {STEPS}."
    assert "set aside as checkpoint.bad.pt" in caplog.text
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.usefixtures("beating_often")
def test_a_checkpoint_that_cannot_be_read_now_is_kept_and_its_run_fails(tmp_path, at_work, monkeypatch, undisturbed):
    load = torch.load

    def short_of_memory(path: Any, **how: Any) -> Any:
        if SPECS[3].run_id in str(path):
            raise MemoryError("none left")
        return load(path, **how)

    with at_work(tmp_path) as (worker, told):
        interrupt(worker, told, stack_of(SPECS), 12)
    with monkeypatch.context() as short, at_work(tmp_path) as (worker, _):
        short.setattr(torch, "load", short_of_memory)
        worker.do(stack_of(SPECS))
        assert [failure.run_id for failure in worker.failures] == [SPECS[3].run_id]
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS))
    assert f"going on from step 12 of {STEPS}." in told.texts
    assert metrics(tmp_path, SPECS) == undisturbed


@pytest.mark.usefixtures("beating_often")
def test_what_a_full_disk_does_not_take_is_not_trained_in_another_way(tmp_path, at_work, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with at_work(tmp_path, checkpoint_seconds=1e-9) as (worker, told):
        monkeypatch.setattr("bnstudy.train.checkpoint.save", full)
        worker.do(stack_of(SPECS))
        assert {failure.run_id for failure in worker.failures} == {spec.run_id for spec in SPECS}
        assert "No space left on device" in worker.failures[0].error
    assert "one by one" not in told.texts


@pytest.mark.usefixtures("beating_often")
def test_checkpoints_that_do_not_fit_are_set_aside(tmp_path, at_work, undisturbed, caplog):
    """As those of another version may not."""
    with at_work(tmp_path) as (worker, told):
        interrupt(worker, told, stack_of(SPECS), 12)
        for run in SPECS:
            path = worker.store.run(run.run_id).checkpoint
            saved = torch.load(path)
            del saved["state"]["params"]
            torch.save(saved, path)
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS))
    assert caplog.text.count("it does not fit this version") == len(SPECS)
    assert metrics(tmp_path, SPECS) == undisturbed


# ---------------------------------------------------------------------------------------- several on one store


def test_what_another_has_at_hand_is_waited_for_and_trained_if_it_was_left(tmp_path, at_work, monkeypatch):
    monkeypatch.setattr(worker_module, "WAIT_SECONDS", 0.01)
    with Leases(Store(tmp_path)) as other, at_work(tmp_path) as (worker, told):
        ids = [run.run_id for run in SPECS]
        assert other.acquire(ids[1:3]) == ids[1:3]
        worker.do(stack_of(SPECS))
        assert finished(worker, SPECS) == [0, 3, 4]

        def tell(text: Any) -> None:
            told(text)
            if isinstance(text, str) and text.startswith("Waiting for 2 runs that process"):
                other.release(ids)

        worker.tell = tell
        see_to_the_rest(worker)
        assert finished(worker, SPECS) == [0, 1, 2, 3, 4]
        assert worker.elsewhere == []
        assert told.left == 5


@pytest.mark.usefixtures("beating_often")
def test_a_run_that_was_taken_away_is_left_to_the_other(tmp_path, at_work, monkeypatch, undisturbed):
    """As from a worker that was stopped for longer than others have patience."""
    with at_work(tmp_path, checkpoint_seconds=1e-3) as (worker, _):
        monkeypatch.setattr(worker.leases, "lost", lambda: {SPECS[1].run_id, SPECS[2].run_id})
        worker.do(stack_of(SPECS))
        assert finished(worker, SPECS) == [0, 3, 4]
        assert [stack.run_ids for stack in worker.elsewhere] == [[SPECS[1].run_id, SPECS[2].run_id]]
        monkeypatch.undo()
        see_to_the_rest(worker)
    assert metrics(tmp_path, SPECS) == undisturbed


def test_a_lone_interrupted_run_may_go_on_in_a_stack(tmp_path, at_work, monkeypatch):
    """The engines share the form of a checkpoint: with another engine the same runs go on."""
    monkeypatch.setattr(Engine, "beat_seconds", 0)
    with at_work(tmp_path) as (worker, told):
        interrupt(worker, told, stack_of(SPECS[:1], "serial"), 12)
    with at_work(tmp_path) as (worker, told):
        worker.do(stack_of(SPECS[:2]))
        assert "seed=0: going on from step 12" in told.texts
        assert worker.store.summary(SPECS[0].run_id)["engine"] == StackedRun.name != SerialRun.name
