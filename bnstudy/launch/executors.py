"""Doing a plan: train what is to do, store it, and say how it went."""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import bnstudy
from bnstudy.data import Dataset
from bnstudy.files import write_text
from bnstudy.launch.plan import Datasets, Plan
from bnstudy.launch.progress import Progress, RunResult, say
from bnstudy.launch.request import PlannedRun, Settings
from bnstudy.spec import ConfigError, to_dict
from bnstudy.store import Store
from bnstudy.train import checkpoint
from bnstudy.train.serial import SerialRun
from bnstudy.train.state import Outcome


class Interrupted(Exception):  # noqa: N818
    """A signal asked to stop; the run in training is saved. The exit status is the shells' for that signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(signum).name}; the same command goes on where this one stopped.")
        self.exit_status = 128 + signum


class StopFlag:
    """Set by SIGINT or SIGTERM. A second signal stops at once, without saving."""

    signum: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {s: signal.signal(s, self._set) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, handler in old.items():
                signal.signal(s, handler)

    def _set(self, signum: int, frame: Any) -> None:  # noqa: ARG002
        if self.signum is not None:
            raise SystemExit(128 + signum)
        self.signum = signum
        say("Stopping: saving the run in training (once more to stop at once).")


def resolve_device(settings: Settings) -> torch.device:
    """Raises ConfigError for CUDA where there is none."""
    count = torch.cuda.device_count()
    if settings.device == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(settings.device)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = "no CUDA device is found" if count == 0 else f"only {count} CUDA device(s) are found"
        raise ConfigError(f"device={settings.device} is not allowed: {there}; use device=auto or device=cpu.")
    return device


def prepare(settings: Settings, device: torch.device) -> None:
    """Set torch up so that the same command gives the same numbers."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def execute(plan: Plan, datasets: Datasets, progress: Progress) -> list[RunResult]:
    """Train the plan's open runs one after another. A run that fails does not stop the others.

    Raises:
        Interrupted: a signal came; the run in training is saved, those before it are stored.
    """
    stop, results = StopFlag(), []
    worker = Worker(plan.settings, plan.store, datasets.device, stop, progress)
    with stop.listening():
        for run in plan.todo:
            results.append(worker.run(run, datasets))
            if stop.signum is not None:
                raise Interrupted(stop.signum)
    return results


@dataclass
class Worker:
    """Trains one run after another and stores them."""

    settings: Settings
    store: Store
    device: torch.device
    stop: StopFlag
    progress: Progress

    def run(self, planned: PlannedRun, datasets: Datasets) -> RunResult:
        run_id = planned.spec.run_id
        paths = self.store.run(run_id)
        if self.store.is_finished(run_id):  # by another process, since the plan was made
            self.progress.skip()
            return stored_result(planned, self.store)
        try:
            self.store.begin(run_id, to_dict(planned.spec))
            self._train(planned, datasets.get(planned.spec.data))
        except Interrupted:
            raise
        except Exception as failure:  # one failing run must not take the sweep with it: it is kept and named
            with suppress(OSError):  # a full disk may be why it failed
                write_text(paths.error, traceback.format_exc())
            error = f"{type(failure).__name__}: {failure}"
            self.progress.note(f"{planned.name or run_id} failed: {error}")
            return RunResult(run_id, planned.name, planned.arm, "failed", math.nan, math.nan, paths.folder, error)
        return stored_result(planned, self.store)

    def _train(self, planned: PlannedRun, dataset: Dataset) -> None:
        run_id = planned.spec.run_id
        run = self._begin(planned, dataset)
        self.progress.start(planned.name, run.step, run.total)
        outcome = run.train(self._beat(run_id))
        self.store.finish(run_id, outcome.metrics, outcome.timing, self._summary(run, outcome))
        self.progress.finish(run.total, outcome.final["train_loss"], outcome.final["val_accuracy"])

    def _begin(self, planned: PlannedRun, dataset: Dataset) -> SerialRun:
        """The run at its start, or where its checkpoint left it."""
        path = self.store.run(planned.spec.run_id).checkpoint
        run = SerialRun(planned.spec, dataset, self.device, self.settings.compile)
        saved = checkpoint.load(path, planned.spec.run_id, self.device)
        if saved is None:
            return run
        try:
            run.load(saved)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            checkpoint.set_aside(path, f"it does not fit this version: {error}")
            return SerialRun(planned.spec, dataset, self.device, self.settings.compile)
        self.progress.note(f"{planned.name or planned.spec.run_id}: going on from step {run.step} of {run.total}.")
        return run

    def _beat(self, run_id: str) -> Any:
        path = self.store.run(run_id).checkpoint
        saved_at = time.monotonic()

        def beat(run: SerialRun) -> None:
            nonlocal saved_at
            loss = float(run.record.losses[run.step - 1]) if run.step else math.nan
            self.progress.beat(run.step, run.total, loss, run.record.latest("val", "accuracy", run.total))
            if self.stop.signum is not None or time.monotonic() - saved_at > self.settings.checkpoint_seconds:
                checkpoint.save(path, run_id, run.state())
                saved_at = time.monotonic()
            if self.stop.signum is not None:
                raise Interrupted(self.stop.signum)

        return beat

    def _summary(self, run: SerialRun, outcome: Outcome) -> dict[str, Any]:
        data = run.dataset
        sizes = {split: len(getattr(data, split).y) for split in ("train", "val", "test")}
        return {
            "run_id": run.spec.run_id,
            "status": outcome.status,
            "diverged_step": outcome.diverged_step,
            "diverged_because": outcome.diverged_because,
            "steps": run.total,
            "final": finite(outcome.final),
            "best": finite(outcome.best),
            "engine": "serial",
            "stack_size": 1,
            "compiled": self.settings.compile,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "seconds": outcome.seconds,
            "versions": {
                "bnstudy": bnstudy.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
            "git_commit": git_commit(),
            "dataset": {"name": data.name, "checksum": data.checksum, "classes": data.classes, **sizes},
        }


def stored_result(run: PlannedRun, store: Store) -> RunResult:
    """What the store says of a finished run; a diverged one counts as guessing."""
    summary = store.summary(run.spec.run_id)
    diverged = summary["status"] == "diverged"
    accuracy = 1 / summary["dataset"]["classes"] if diverged else summary["final"]["test_accuracy"]
    folder = store.run(run.spec.run_id).folder
    seconds = summary["seconds"]["total"]
    return RunResult(run.spec.run_id, run.name, run.arm, summary["status"], accuracy, seconds, folder)


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: what is not a finite number is null."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@cache
def git_commit() -> str | None:
    """The commit of the checkout that the package runs from, with "+" if it has changes; None when installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes.stdout.strip() else "")
