"""Choose the number of CPU threads, which changes how sums are rounded.

It follows from the runs and the machine, never from timings. docs/concepts/speed.md gives the measurements behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bnstudy.run import RunSpec
from bnstudy.sweep.cost import Method, NetworkCost, step_operations

OPERATIONS = {"serial": 1e8, "stacked": 3e8}
"""Floating-point operations of a step for each thread beyond the first, by engine: with fewer, a step waits longer for
the other threads than they save."""


def useful_threads(spec: RunSpec, network: NetworkCost, method: Method) -> int:
    """The most threads with which a step is no slower than with one."""
    operations = method.rows * step_operations(spec, network) / network.repeats
    return 1 + int(operations / OPERATIONS[method.engine])


@contextmanager
def keep_settings() -> Iterator[None]:
    """Restore torch's number of threads afterwards, and the settings of GPUs."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    benchmark, allow_tf32 = cudnn.benchmark, cudnn.allow_tf32
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(is_deterministic, warn_only=warns_only)
        cudnn.benchmark, cudnn.allow_tf32 = benchmark, allow_tf32
