"""How and where runs are trained, and which study they belong to. Does not import torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from bnstudy.loggers.base import BaseLogger
from bnstudy.validation import NAME, ConfigError, Spec, printable, show

Objective = Literal[
    "final.train_loss",
    "final.val_loss",
    "final.val_accuracy",
    "final.test_loss",
    "final.test_accuracy",
    "best.val_accuracy",
    "best.val_loss",
    "best.step",
    "best.test_accuracy",
    "best.test_loss",
    "seconds.starting",
    "seconds.training",
    "seconds.evaluation",
    "seconds.probes",
    "seconds.total",
]
"""The numbers of a run's summary."""


MAX_THREADS = 1024
"""Of a process; the operating system may refuse more."""

MAX_WORKERS = 16 * (os.cpu_count() or 1)
"""On this machine. More processes only wait for each other, and each takes memory."""

MAX_SEEDS = 10_000


@dataclass(frozen=True)
class Settings(Spec):
    """How and where runs are trained; not part of a run's identity.

    device: auto takes a GPU if there is one.
    engine: serial trains one run at a time, stacked many runs as one program; auto chooses by the network's size.
    compile: record the step of a stack once, and execute it without its Python code; true to refuse a network for which
        that is not possible.
    results_dir: the store.
    cache_dir: for decoded datasets; null for `<results_dir>/cache`.
    threads: CPU threads of a process; null for as many as its networks can use, at most its share of the cores.
    progress: false to print nothing.
    checkpoint_seconds: interval between checkpoints of an unfinished run.
    dry_run: print what would be trained, and train nothing.
    objective: the number of a run's summary that an optimizing sweeper receives.
    logger: where metrics go while a run trains, besides the store; null for nowhere.
    refine: a second pass trains finer learning rates around the best ones of a study.
    until: decided: add seeds to a study until its claims are decided.
    max_seeds: with `until`, the number of seeds in total.
    seeds_at_once: with `until`, the number of seeds added before each look at the claims.
    """

    device: str = "auto"
    engine: Literal["auto", "serial", "stacked"] = "auto"
    compile: Literal["auto", True, False] = "auto"
    threads: int | None = None
    progress: bool = True
    checkpoint_seconds: float = 30.0
    results_dir: str = "results"
    cache_dir: str | None = None
    dry_run: bool = False
    objective: Objective = "final.val_accuracy"
    refine: bool = True
    until: Literal["decided"] | None = None
    max_seeds: int = 40
    seeds_at_once: int = 5
    logger: BaseLogger | None = None

    def check(self) -> None:
        self.require(bool(self.results_dir), "results_dir", "the name of a folder")
        named = "the name of a folder, or null for <results_dir>/cache"
        self.require(self.cache_dir != "", "cache_dir", named)
        allowed = re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", self.device)
        self.require(bool(allowed), "device", "auto, cpu, cuda or cuda:N")
        threads = self.threads is None or 1 <= self.threads <= MAX_THREADS
        self.require(threads, "threads", f"from 1 to {MAX_THREADS}, or null to choose by the network's size")
        self.require(self.checkpoint_seconds > 0, "checkpoint_seconds", "a number of seconds above 0")
        for name in ("max_seeds", "seeds_at_once"):
            self.require(1 <= getattr(self, name) <= MAX_SEEDS, name, f"from 1 to {MAX_SEEDS}")

    @property
    def results(self) -> Path:
        return Path(self.results_dir).expanduser()

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir).expanduser() if self.cache_dir else self.results / "cache"


LAUNCHER = "hydra_plugins.bnstudy_launcher.BnstudyLauncher"


@dataclass(frozen=True)
class Launcher(Spec):
    """Where the runs of a command are trained: the keys of `hydra.launcher`.

    executor: inprocess, processes of this machine, or jobs of slurm. auto: inprocess or processes.
    workers: number of processes; null to choose it automatically.
    jobs: maximum number of tasks in the array job.
    partition: Slurm's partition; null for the cluster's default.
    account: Slurm's account; null for the cluster's default.
    time: minutes that Slurm grants a task at a time.
    mem: memory of each task; null for the cluster's default.
    cpus: CPUs of each task.
    gpus: GPUs of each task.
    extra: further options of sbatch, and of submitit.
    """

    group: ClassVar[str] = "hydra.launcher"
    executor: Literal["auto", "inprocess", "processes", "slurm"] = "auto"
    workers: int | None = None
    jobs: int = 32
    partition: str | None = None
    account: str | None = None
    time: int = 60
    mem: str | None = None
    cpus: int = 2
    gpus: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        workers = self.workers is None or 1 <= self.workers <= MAX_WORKERS
        self.require(workers, "workers", f"from 1 to {MAX_WORKERS}, or null to choose it automatically")
        self.require(self.jobs >= 1, "jobs", "at least 1")
        self.require(self.time >= 1, "time", "a whole number of minutes, at least 1")
        self.require(self.cpus >= 1, "cpus", "at least 1")
        self.require(self.gpus >= 0, "gpus", "0 or more")
        size = self.mem is None or re.fullmatch(r"\d+[KMGT]B?", self.mem)
        self.require(bool(size), "mem", "a size such as 8GB or 500MB, or null for the cluster's default")
        for name, value in {"partition": self.partition, "account": self.account, **self.extra}.items():
            text = f"{name}{value}"
            # A line break would begin another line of the batch script.
            if printable(text, keep="") != text:
                key = self.key(name if name in ("partition", "account") else f"extra.{name}")
                raise ConfigError(
                    f"{printable(key, keep='')}={show(str(value))} is not allowed: it contains control characters."
                )
        if self.executor != "slurm":
            self._refuse_job_keys()

    def _refuse_job_keys(self) -> None:
        """Without this, a forgotten executor=slurm would train everything on the login node."""
        for name in ("partition", "account", "mem", "extra"):
            if value := getattr(self, name):
                raise ConfigError(
                    f"{self.key(name)}={value} is not allowed with hydra.launcher.executor={self.executor}: it is for "
                    "jobs; add hydra.launcher.executor=slurm."
                )


@dataclass(frozen=True)
class StudySpec(Spec):
    """A sweep with a purpose.

    title: the question that it answers.
    claims: names of the claims that it tests.
    sweep: overrides, as on the command line.
    scales: by scale, overrides that replace those of `sweep`.
    grid: overrides below `sweep`, for keys that it does not set; they vary faster than its own.
    """

    group: ClassVar[str] = "study"
    name: str
    title: str
    claims: tuple[str, ...]
    sweep: dict[str, Any]
    scales: dict[str, Any]
    grid: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        letters = "letters, digits, - and _, as it names a folder"
        self.require(bool(NAME.fullmatch(self.name)), "name", f"of {letters}")
        self.require(all(NAME.fullmatch(str(scale)) for scale in self.scales), "scales", f"by names of {letters}")


@dataclass(frozen=True)
class StudiesSpec(Spec):
    """Several studies, each at the same scale.

    names: null for all.
    """

    group: ClassVar[str] = "study"
    name: str
    names: tuple[str, ...] | None = None
