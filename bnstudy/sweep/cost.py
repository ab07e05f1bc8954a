"""Choose how runs are trained: by which engine, how many at once, compiled or not.

The rules depend on the runs and the machine, never on timings: the same command makes the same choices, so that a sweep
that was killed ends with the same numbers. docs/speed.md gives the measurements behind them.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.run import RunSpec
from bnstudy.sweep.settings import Settings
from bnstudy.train.stacked import MIN_ROWS
from bnstudy.validation import machine_bytes

CACHE_BYTES = 16 * 2**20
"""Largest working set of a stack on a CPU core: larger ones do not stay in the cache."""

STACK_OPERATIONS = {False: 3e7, True: 5e8}
"""Floating-point operations of one step of a run beyond which a stack is no faster on a CPU, by `compiled`."""

SHARE_OF_MEMORY = 0.4
"""Share of the memory for all stacks that are trained at the same time."""

MAX_ROWS = {"cpu": 32, "cuda": 1024}

UNKNOWN_GPU_BYTES = 8 * 2**30
"""Free memory of a GPU that is in another machine."""

COMPILE_SECONDS = 30.0
"""Training time of one kind of runs, for up to two workers, from which on compiling, 15 seconds, is worth it."""


@dataclass(frozen=True)
class NetworkCost:
    """The size of a network and of its computation.

    params: number of parameters.
    units: number of outputs of all layers for one image.
    products: multiplications in the weight layers for one image.
    convolves: whether it has convolutions.
    """

    params: int
    units: int
    products: int
    convolves: bool


def measure_network(model: nn.Module, images: Tensor) -> NetworkCost:
    """Measure a network in a forward pass, which may be on the meta device."""
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
    return network_cost(model, sum(units), sum(products))


def network_cost(model: nn.Module, units: int = 0, products: int = 0) -> NetworkCost:
    convolves = any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in model.modules())
    return NetworkCost(sum(p.numel() for p in model.parameters()), units, products, convolves)


@dataclass(frozen=True)
class Method:
    """How the runs of a kind are trained.

    rows: maximum number of runs at once.
    compiled: whether the step is compiled, for exactly this number of rows.
    norms_vary: whether eps and momentum of the norms differ among the runs.
    reason: why the runs are not stacked, if they would be.
    """

    engine: str
    rows: int
    compiled: bool
    norms_vary: bool
    reason: str = ""


def choose_method(
    specs: list[RunSpec], steps: int, network: NetworkCost, settings: Settings, device: str, workers: int, sharing: int
) -> Method:
    """The method for runs with equal `stack_key` and this many steps.

    sharing: number of workers that share a machine's memory.
    """
    compiled = settings.compile
    if compiled == "auto":
        seconds = len(specs) * steps * eager_seconds(specs[0], network)
        worth = seconds > COMPILE_SECONDS * max(1.0, workers / 2)  # several of many workers compile a kind
        compiled = device == "cpu" and not network.convolves and worth and has_compiler()
    fastest = choose_engine(specs, network, device, bool(compiled))
    engine = fastest if settings.engine == "auto" else settings.engine
    norms_vary = len({spec.norm for spec in specs}) > 1
    if engine == "serial":
        return Method("serial", 1, settings.compile is True, norms_vary)
    rows = rows_per_stack(len(specs), max_rows(specs[0], network, device, sharing), workers)
    return Method("stacked", rows, compiled, norms_vary)


def choose_engine(specs: list[RunSpec], network: NetworkCost, device: str, compiled: bool) -> str:
    """Serial where one run's convolutions or large matrices keep a CPU core busy, so that a stack is no faster."""
    fills_a_core = network.convolves or step_operations(specs[0], network) > STACK_OPERATIONS[compiled]
    return "serial" if len(specs) == 1 or (device == "cpu" and fills_a_core) else "stacked"


def rows_per_stack(runs: int, limit: int, workers: int) -> int:
    """Stacks of nearly equal size, at most `limit`, as many for each worker, and no single run."""
    stacks = -(-runs // limit)
    return max(MIN_ROWS, -(-runs // (-(-stacks // workers) * workers)))


def has_compiler() -> bool:
    """Whether the C++ compiler that torch would call exists."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None


def max_rows(spec: RunSpec, network: NetworkCost, device: str, sharing: int) -> int:
    """The number of runs that fit into a CPU's cache or a GPU's memory."""
    slots = len(spec.optim.slots())
    training = 4 * (network.params * (2 + slots) + 3 * spec.batch_size * network.units)
    copies = max((probe.copies for probe in spec.probe.values()), default=0)
    total = 4 * (
        network.params * (4 + slots + copies)
        + 8 * max(256, spec.batch_size, spec.evaluation.batch_size or 0) * network.units
    )
    in_memory = int(SHARE_OF_MEMORY * memory_bytes(device) / sharing / total)
    in_cache = CACHE_BYTES // training if device == "cpu" else in_memory
    return max(2, min(in_memory, in_cache, MAX_ROWS[device]))


def memory_bytes(device: str) -> int:
    """The memory of the GPU, or of the machine or container."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else UNKNOWN_GPU_BYTES
    return machine_bytes()


def step_operations(spec: RunSpec, network: NetworkCost) -> float:
    """Floating-point operations of one step of a run: forward, and twice that backward."""
    return 6.0 * spec.batch_size * network.products


def eager_seconds(spec: RunSpec, network: NetworkCost) -> float:
    """Approximate time of an uncompiled step of one run in a stack, on one CPU core."""
    return 1e-4 + step_operations(spec, network) * 2.5e-11
