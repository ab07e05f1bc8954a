"""Plain training loops, one run after another, as in a script without bnstudy, and without recording."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import plain_network
from benchmarks.runs import CPU, spec_of

WARM_UP = 20
_together: Barrier
"""Of the processes that train at the same time; set in each."""


@dataclass(frozen=True)
class Task:
    """What to train.

    overrides: the network, the data and the batch size, as for bnstudy; `norms` are its kinds.
    steps: of each run.
    timed: runs of each kind to time in each process.
    cache: folder for decoded images.
    """

    overrides: tuple[str, ...]
    norms: tuple[str, ...]
    steps: int
    timed: int
    cache: Path


@dataclass(frozen=True)
class Loops:
    """Processes that train plain loops, all at the same time. They are idle in between."""

    pool: ProcessPoolExecutor
    processes: int

    def seconds_per_step(self, task: Task) -> float:
        """Seconds for a step of one run: with two processes, each has twice as much time for it."""
        return max(self.pool.map(work, [task] * self.processes)) / self.processes


@contextmanager
def plain_loops(processes: int, threads: int = 1) -> Iterator[Loops]:
    """Start the processes, with these CPU threads each."""
    context = multiprocessing.get_context("spawn")
    start = (threads, context.Barrier(processes))
    with ProcessPoolExecutor(processes, context, prepare, start) as pool:
        yield Loops(pool, processes)


def prepare(threads: int, together: Barrier) -> None:
    global _together
    torch.set_num_threads(threads)
    _together = together


def work(task: Task) -> float:
    """Time the loops in this process; returns the mean seconds per step of one run."""
    spec = spec_of(*task.overrides, f"steps={task.steps}")
    data = spec.data.load(task.cache, CPU)
    x, y, size = data.train.x, data.train.y, spec.batch_size

    def train_each(runs: int, steps: int) -> None:
        for _ in range(runs):
            for norm in task.norms:
                train(plain_network(spec.model, norm, data.shape, data.classes), x, y, size, steps)

    train_each(1, min(WARM_UP, task.steps))
    _together.wait()
    begin = time.perf_counter()
    train_each(task.timed, task.steps)
    return (time.perf_counter() - begin) / (task.timed * len(task.norms) * task.steps)


def train(model: nn.Module, x: Tensor, y: Tensor, batch_size: int, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    per_epoch = len(x) // batch_size
    for step in range(steps):
        batch = step % per_epoch
        if batch == 0:
            order = torch.randperm(len(x))
        index = order[batch * batch_size : (batch + 1) * batch_size]
        optimizer.zero_grad()
        F.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
