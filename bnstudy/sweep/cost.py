"""How runs are trained: by which engine, how many at once, compiled or not.

The rules are fixed numbers of what a run is and of the machine, never timings: the same command makes the same
choices, so that a sweep that was killed ends with the numbers of one that was not. `scripts/benchmark.py sweep`
measures what they bring; the figures behind them are in docs/speed.md.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.run import RunSpec
from bnstudy.sweep.settings import Settings
from bnstudy.train.stacked import SMALLEST

CACHE_BYTES = 16 * 2**20
"""Working set of a stack on a CPU core. Beyond it the pieces of a stack push one another out of the cache."""

STACK_OPERATIONS = {False: 3e7, True: 5e8}
"""Floating-point operations of one run's update on a CPU beyond which a stack, compiled or not, brings nothing."""

SHARE_OF_MEMORY = 0.4
"""Of the memory, for all stacks that are trained side by side."""

MOST_ROWS = {"cpu": 32, "cuda": 1024}

UNKNOWN_GPU_BYTES = 8 * 2**30
"""Free memory of a GPU that is in another machine."""

COMPILE_SECONDS = 30.0
"""Of training of one kind of runs, for up to two workers. Compiling takes up to 15 of them the first time, and
divides the rest by 1.2 to 9."""


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs.

    params: number of parameters.
    units: values that its layers put out for one image.
    products: multiplications of its weight layers for one image.
    convolves: whether it has convolutions.
    """

    params: int
    units: int
    products: int
    convolves: bool


def measured(model: nn.Module, images: Tensor) -> NetworkCost:
    """What a network costs, from a forward pass, which may be on the meta device."""
    units, products = [0], [0]

    def note(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            units.append(out[0].numel())
            weight = getattr(module, "weight", None)
            per_unit = weight[0].numel() if isinstance(weight, Tensor) and weight.ndim > 1 else 0
            products.append(out[0].numel() * per_unit)

    handles = [m.register_forward_hook(note) for m in model.modules() if not any(m.children())]
    model(images)
    for handle in handles:
        handle.remove()
    return sized(model, sum(units), sum(products))


def sized(model: nn.Module, units: int = 0, products: int = 0) -> NetworkCost:
    convolves = any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in model.modules())
    return NetworkCost(sum(p.numel() for p in model.parameters()), units, products, convolves)


@dataclass(frozen=True)
class Shape:
    """How the runs of a kind are trained.

    rows: at most so many at once.
    compiled: whether the step is compiled, for exactly this number of rows.
    free: whether eps and momentum of the norms differ among the runs.
    """

    engine: str
    rows: int
    compiled: bool
    free: bool


def choose(
    specs: list[RunSpec], steps: int, network: NetworkCost, settings: Settings, device: str, workers: int, beside: int
) -> Shape:
    """The shape for runs with equal `stack_key` of this many steps, shared out among workers.

    beside: how many of the workers share a machine's memory.
    """
    compiled = settings.compile
    if compiled == "auto":
        seconds = len(specs) * steps * eager_seconds(specs[0], network)
        worth = seconds > COMPILE_SECONDS * max(1.0, workers / 2)  # a kind is compiled by several of many workers
        compiled = device == "cpu" and not network.convolves and worth and has_compiler()
    by_rule = best_engine(specs, network, device, bool(compiled))
    engine = by_rule if settings.engine == "auto" else settings.engine
    free = len({spec.norm for spec in specs}) > 1
    if engine == "serial":
        return Shape("serial", 1, settings.compile is True, free)
    rows = rows_of_stacks(len(specs), most_rows(specs[0], network, device, beside), workers)
    return Shape("stacked", rows, compiled, free)


def best_engine(specs: list[RunSpec], network: NetworkCost, device: str, compiled: bool) -> str:
    """Convolutions and large matrices fill a CPU core by themselves; a batch of them is no faster than one after
    another."""
    fills_a_core = network.convolves or operations(specs[0], network) > STACK_OPERATIONS[compiled]
    return "serial" if len(specs) == 1 or (device == "cpu" and fills_a_core) else "stacked"


def rows_of_stacks(runs: int, most: int, workers: int) -> int:
    """How many runs to a stack: at most `most`, nearly as many in each, as many stacks for each worker, no lone run."""
    stacks = -(-runs // most)
    return max(SMALLEST, -(-runs // (-(-stacks // workers) * workers)))


def has_compiler() -> bool:
    """Whether there is the C++ compiler that torch would call."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None


def most_rows(spec: RunSpec, network: NetworkCost, device: str, beside: int) -> int:
    """How many runs fit into the cache on a CPU, into the memory on a GPU."""
    slots = len(spec.optim.slots())
    training = 4 * (network.params * (2 + slots) + 3 * spec.batch_size * network.units)
    held = max((probe.copies for probe in spec.probe.values()), default=0)
    whole = 4 * (network.params * (4 + slots + held) + 8 * max(256, spec.batch_size) * network.units)
    in_memory = int(SHARE_OF_MEMORY * memory_of(device) / beside / whole)
    in_cache = CACHE_BYTES // training if device == "cpu" else in_memory
    return max(2, min(in_memory, in_cache, MOST_ROWS[device]))


def memory_of(device: str) -> int:
    """Bytes that a GPU has; on a CPU what the machine, or the container, has."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else UNKNOWN_GPU_BYTES
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else ""
    return min(there, int(text)) if text.isdigit() else there


def operations(spec: RunSpec, network: NetworkCost) -> float:
    """Floating-point operations of one run's update: forward, and twice that backward."""
    return 6.0 * spec.batch_size * network.products


def eager_seconds(spec: RunSpec, network: NetworkCost) -> float:
    """About what an uncompiled update of one run in a stack takes on one CPU core."""
    return 1e-4 + operations(spec, network) * 2.5e-11
