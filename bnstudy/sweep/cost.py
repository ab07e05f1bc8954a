"""Choose how runs are trained: by which engine, and how many at once.

The rules depend on the runs and the machine, never on timings: the same command makes the same choices, so that a sweep
that was killed ends with the same numbers. docs/concepts/speed.md gives the measurements behind them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bnstudy.models.tracing import check_output
from bnstudy.run import RunSpec
from bnstudy.sweep.settings import Settings
from bnstudy.train.stacked import MIN_ROWS
from bnstudy.validation import machine_bytes

aten = torch.ops.aten

CACHE_BYTES = 16 * 2**20
"""Largest working set of a stack on a CPU core: larger ones do not stay in the cache."""

STACK_OPERATIONS = 3e8
"""Floating-point operations of one step of a run beyond which a stack is no faster on a CPU."""

CONVOLUTION_OPERATIONS = 1.5e7
"""The same for the average convolution of a convolutional network."""

CONVOLUTION_ROWS = 8
"""Rows from which on a stack of small convolutions is worth it, even if it leaves the cache."""

SHARE_OF_MEMORY = 0.4
"""Share of the memory for all stacks that are trained at the same time."""

MAX_ROWS = {"cpu": 32, "cuda": 1024}

UNKNOWN_GPU_BYTES = 8 * 2**30
"""Free memory of a GPU that is in another machine."""


@dataclass(frozen=True)
class NetworkCost:
    """The size of a network and of its computation.

    params: number of parameters.
    units: number of outputs of all layers for one image.
    products: multiplications in matrix products and convolutions for one image.
    convolves: whether it has convolutions.
    repeats: matrix products for each weight: 1, or in an unrolled recurrent network the number of its steps.
    matrices: number of weights that are matrices or kernels of convolutions.
    """

    params: int
    units: int
    products: int
    convolves: bool
    repeats: float = 1.0
    matrices: int = 1


class Counter(TorchDispatchMode):
    """Counts what torch executes: matrix products and convolutions with their multiplications and outputs.

    Each use of a weight counts, also by a function or in a recurrent cell. torch.utils.flop_counter does the same, but
    takes seconds to load.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matrix_products = self.multiplications = self.outputs = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: otherwise torch imports its compiler here, more than a second, to keep it away from this class."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        per_output = multiplications_per_output(func.overloadpacket, args)
        if per_output:
            self.matrix_products += 1
            self.multiplications += out.numel() * per_output
            self.outputs += out.numel()
        elif func.overloadpacket is aten.mkldnn_rnn_layer:  # a layer of an LSTM on a CPU
            steps, weights = args[0].shape[0], args[1:3]
            self.matrix_products += 2 * steps
            self.multiplications += steps * args[0].shape[1] * sum(weight.numel() for weight in weights)
            self.outputs += steps * args[0].shape[1] * sum(len(weight) for weight in weights)
        return out


def multiplications_per_output(operation: Any, args: Any) -> int:
    """0 for an operation that is no matrix product or convolution."""
    if operation in (aten.mm, aten.bmm):
        return int(args[0].shape[-1])
    if operation in (aten.addmm, aten.baddbmm):
        return int(args[1].shape[-1])
    return math.prod(args[1].shape[1:]) if operation is aten.convolution else 0


def measure_network(model: nn.Module, images: Tensor) -> NetworkCost:
    """Measure a network in a forward pass, which may be on the meta device. Raises ConfigError if its output is not
    [B, classes]."""
    units = [0]

    def note(_: nn.Module, __: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            units.append(out[0].numel())

    handles = [m.register_forward_hook(note) for m in model.modules() if not any(m.children())]
    with Counter() as count, torch.no_grad():
        check_output(model(images), len(images))
    for handle in handles:
        handle.remove()
    n, matrices = len(images), max(1, sum(p.ndim > 1 for p in model.parameters()))
    return replace(
        network_cost(model),
        units=max(sum(units), count.outputs // n),
        products=count.multiplications // n,
        repeats=max(1.0, count.matrix_products / matrices),
        matrices=matrices,
    )


def network_cost(model: nn.Module) -> NetworkCost:
    """The number of parameters, and whether it has convolutions; a forward pass shows the rest."""
    convolves = any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in model.modules())
    return NetworkCost(sum(p.numel() for p in model.parameters()), 0, 0, convolves)


@dataclass(frozen=True)
class Method:
    """How the runs of a kind are trained.

    rows: maximum number of runs at once.
    compiled: whether the steps of a stack are compiled to programs.
    norms_vary: whether eps and momentum of the norms differ among the runs.
    reason: why the runs are not stacked or not compiled, if they would be.
    """

    engine: str
    rows: int
    compiled: bool
    norms_vary: bool
    reason: str = ""


def choose_method(
    specs: list[RunSpec], network: NetworkCost, settings: Settings, device: str, workers: int, sharing: int
) -> Method:
    """The method for runs with equal `stack_key`.

    sharing: number of workers that share a machine's memory.
    """
    engine = choose_engine(specs, network, device) if settings.engine == "auto" else settings.engine
    norms_vary = len({spec.norm for spec in specs}) > 1
    if engine == "serial":
        return Method("serial", 1, False, norms_vary)
    rows = rows_per_stack(len(specs), max_rows(specs[0], network, device, sharing), workers)
    return Method("stacked", rows, settings.compile is not False, norms_vary)


def choose_engine(specs: list[RunSpec], network: NetworkCost, device: str) -> str:
    """Serial where one run's large convolutions or matrices keep a CPU core busy, so that a stack is no faster.

    Of a recurrent network one step counts: many small products are dominated by the time of a call.
    """
    operations = step_operations(specs[0], network) / network.repeats
    if network.convolves:
        fills_a_core = operations / network.matrices > CONVOLUTION_OPERATIONS
    else:
        fills_a_core = operations > STACK_OPERATIONS
    return "serial" if len(specs) == 1 or (device == "cpu" and fills_a_core) else "stacked"


def rows_per_stack(runs: int, limit: int, workers: int) -> int:
    """Stacks of nearly equal size, at most `limit`, as many for each worker, and no single run."""
    stacks = -(-runs // limit)
    return max(MIN_ROWS, -(-runs // (-(-stacks // workers) * workers)))


def max_rows(spec: RunSpec, network: NetworkCost, device: str, sharing: int) -> int:
    """The number of runs that fit into a CPU's cache or a GPU's memory."""
    slots = len(spec.optim.slots())
    units_at_once = network.units / network.repeats  # those of one step of a recurrent network
    training = 4 * (network.params * (2 + slots) + 3 * spec.batch_size * units_at_once)
    copies = max((probe.copies for probe in spec.probe.values()), default=0)
    total = 4 * (
        network.params * (4 + slots + copies)
        + 8 * max(256, spec.batch_size, spec.evaluation.batch_size or 0) * network.units
    )
    in_memory = int(SHARE_OF_MEMORY * memory_bytes(device) / sharing / total)
    in_cache = int(CACHE_BYTES / training) if device == "cpu" else in_memory
    if network.convolves:
        in_cache = max(in_cache, CONVOLUTION_ROWS)
    return max(2, min(in_memory, in_cache, MAX_ROWS[device]))


def memory_bytes(device: str) -> int:
    """The memory of the GPU, or of the machine or container."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else UNKNOWN_GPU_BYTES
    return machine_bytes()


def step_operations(spec: RunSpec, network: NetworkCost) -> float:
    """Floating-point operations of one step of a run: forward, and twice that backward."""
    return 6.0 * spec.batch_size * network.products


def step_seconds(spec: RunSpec, network: NetworkCost) -> float:
    """Approximate time of a step of one run in a stack, on one CPU core.

    Convolutions with few channels wait for memory: for each output of a layer.
    """
    outputs = spec.batch_size * network.units if network.convolves else 0
    return 2e-5 + step_operations(spec, network) * 1.3e-11 + outputs * SECONDS_PER_OUTPUT


CALL_SECONDS = {False: 2e-4, True: 1.25e-3}
"""Approximate time that the operations around a matrix product of a step take however small it is, once for all runs of
a stack; for a stack of convolutions more. Measured with the studies at scale=quick."""

SECONDS_PER_OUTPUT = 5e-9

STEPS_OF_EVALUATION = 60
"""Steps that take as long as the evaluations and probes of a short run."""


def run_seconds(spec: RunSpec, network: NetworkCost, steps: int, rows: int) -> float:
    """Approximate time of a run in a stack of `rows`, with its evaluation, on one CPU core: within a factor of 2."""
    calls = CALL_SECONDS[network.convolves and rows > 1] * network.matrices * network.repeats
    return (steps + STEPS_OF_EVALUATION) * (step_seconds(spec, network) + calls / rows)
