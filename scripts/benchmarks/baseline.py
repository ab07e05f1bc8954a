"""Plain training loops, one run after another, as in a script without bnstudy, and without recording."""

from __future__ import annotations

import math
import multiprocessing
import time
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.runs import CPU, spec_of

WARM_UP = 20


@dataclass(frozen=True)
class Task:
    """What to train.

    overrides: the network, the data and the batch size, as for bnstudy; `norms` are its two kinds.
    timed: runs of each kind to time in each process.
    """

    overrides: tuple[str, ...]
    norms: tuple[str, ...]
    steps: int
    timed: int
    cache: Path


def seconds_for(runs: int, processes: int, task: Task) -> float:
    """The seconds that `runs` runs, half of each kind, take in `processes` processes at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(task, barrier, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    per_run = [results.get(timeout=3600) for _ in workers]
    for worker in workers:
        worker.join()
    return max(per_run) * runs / processes


def work(task: Task, barrier: Barrier, results: Queue[float]) -> None:
    """Time the loops and put the mean seconds per run into `results`."""
    torch.set_num_threads(1)
    spec = spec_of(*task.overrides, f"steps={task.steps}")
    data = spec.data.load(task.cache, CPU)
    sizes = [math.prod(data.shape), *[spec.model.width] * spec.model.depth, data.classes]  # type: ignore[attr-defined]
    for norm in task.norms:
        train(plain_mlp(sizes, norm), data.train.x, data.train.y, spec.batch_size, WARM_UP)
    barrier.wait()
    begin = time.perf_counter()
    for _ in range(task.timed):
        for norm in task.norms:
            train(plain_mlp(sizes, norm), data.train.x, data.train.y, spec.batch_size, task.steps)
    results.put((time.perf_counter() - begin) / (task.timed * len(task.norms)))


def plain_mlp(sizes: list[int], norm: str) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(sizes[:-1]):
        if norm == "batch":
            layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU()]
        else:
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


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
