"""Networks whose constructors draw their initial values under the run's seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bnstudy.rng import stream

DRAWS = {name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")} | {
    *("uniform_", "normal_", "bernoulli_", "random_", "exponential_", "log_normal_", "cauchy_", "geometric_"),
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli"),
    *("multinomial", "poisson"),
}
"""Names of torch's functions that draw numbers."""


@contextmanager
def construct_under(seed: int) -> Iterator[None]:
    """Make every number that torch, numpy or `random` draws inside a function of the seed.

    The global generators are afterwards as they were. Tensors of different shapes have different streams, so that
    networks that differ in a few tensors, such as biases that a norm makes redundant, share all others.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    start = stream(seed, "init", "network").initial_seed()
    try:
        with torch.random.fork_rng(devices=[]), DrawByShape(seed):
            torch.default_generator.manual_seed(start)
            random.seed(start)
            np.random.seed(start % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


class DrawByShape(TorchFunctionMode):
    """Gives each drawn tensor a stream, named by its shape and the number of draws of this shape before it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._draws: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in DRAWS:
            tensor = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
            if tensor is None or not tensor.is_meta:
                shape = str(args if tensor is None else tuple(tensor.shape))
                index = f"network/{shape}/{self._draws[shape]}"
                self._draws[shape] += 1
                torch.default_generator.manual_seed(stream(self._seed, "init", index).initial_seed())
        return func(*args, **kwargs)


def materialize(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Give lazy modules their sizes, by a forward pass on images of zeros."""
    if any(nn.parameter.is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        was_training = model.training
        with torch.no_grad():
            model.eval()(torch.zeros(2, *shape))
        model.train(was_training)
