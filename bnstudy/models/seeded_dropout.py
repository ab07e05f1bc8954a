"""Dropout of any network from the run's own stream: modules, functions, and dropout of attention weights.

Torch draws dropout from its global generator: the numbers would depend on what else ran, and vmap refuses to draw.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bnstudy.models.attention import explicit_attention
from bnstudy.models.trial import trial
from bnstudy.rng import uniform
from bnstudy.validation import ConfigError


class SeededDropout(nn.Module):
    """Put before the class of a network: all of its dropout draws from one stream, and its attention is explicit.

    It has no effect in evaluation, not even where the network calls `F.dropout(x)` there.
    """

    dropout_key: Tensor
    dropout_count: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with Replace(self):
            return super().forward(*args, **kwargs)

    def draw_dropout(self, shape: torch.Size) -> Tensor:
        """The next noise, uniform in [0, 1)."""
        noise = uniform(self.dropout_key, self.dropout_count, shape)
        self.dropout_count.add_(1)
        return noise

    @torch.no_grad()
    def seed_(self, generator: torch.Generator) -> None:
        """Draw the key and reset the count, as `bnstudy.rng.Noise` does."""
        self.dropout_key.copy_(torch.randint(2**63 - 1, (), generator=generator))
        self.dropout_count.zero_()


class Replace(TorchFunctionMode):
    """Replaces torch's dropout and attention, and counts the calls for which a network needs it.

    network: whose noise is drawn.
    """

    def __init__(self, network: SeededDropout) -> None:
        super().__init__()
        self._network = network
        self.calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.calls += 1
            with self:  # its dropout, too
                return explicit_attention(*args, **kwargs)
        return self._drop(func, *args, **kwargs) if func in DROPOUTS else func(*args, **kwargs)

    def _drop(
        self, func: Callable[..., Any], input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not (p > 0 and training and self._network.training):
            return input
        self.calls += 1
        drops_channels = func not in (F.dropout, F.alpha_dropout, torch.dropout)
        if drops_channels and input.ndim < 3:
            raise ConfigError(f"{func.__name__} needs inputs of three or more dimensions: use F.dropout.")
        shape = (*input.shape[:2], *[1] * (input.ndim - 2)) if drops_channels else input.shape
        keep = (self._network.draw_dropout(torch.Size(shape)) >= p).to(input.dtype)
        scale, shift = alpha_scale_and_shift(keep, p) if func in ALPHA_DROPOUTS else (keep / (1 - p or 1), None)
        out = input.mul_(scale) if inplace else input * scale
        if shift is None:
            return out
        return out.add_(shift) if inplace else out + shift


ALPHA_DROPOUTS = {F.alpha_dropout, F.feature_alpha_dropout}
DROPOUTS = {F.dropout, torch.dropout, F.dropout1d, F.dropout2d, F.dropout3d, *ALPHA_DROPOUTS}


def alpha_scale_and_shift(keep: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Klambauer et al. 2017: dropped values become the lower bound of SELU; the mean and the variance stay."""
    bound = -1.7580993408473766
    a = ((1 - p) * (1 + p * bound**2)) ** -0.5 if p < 1 else 0.0
    return a * keep, a * bound * (1 - keep) - a * p * bound


def seed_dropout(model: nn.Module, shape: tuple[int, int, int], name: str) -> None:
    """Make a network whose training pass uses dropout or attention a `SeededDropout`; leave others as they are.

    name: of the network, for messages.

    Raises:
        ConfigError: the pass draws random numbers in another way.
    """
    plain = type(model)
    seeded: Any = model
    seeded.__class__ = seeded_class(plain)  # type: ignore[arg-type]  # mypy takes __hash__ of a class for that of its objects
    for buffer in ("dropout_key", "dropout_count"):
        model.register_buffer(buffer, torch.zeros((), dtype=torch.int64))
    before = global_states()
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with trial(model), Replace(seeded) as replaced:
        plain.forward(model, images)
    if global_states() != before:
        raise ConfigError(
            f"{name} is not allowed: its forward pass in training draws random numbers that the run's seed does not "
            "decide, such as those of stochastic depth, nn.RReLU or nn.GRU(dropout=...). Dropout between layers, "
            "nn.Dropout or F.dropout, is allowed."
        )
    if not replaced.calls:
        model.__class__ = plain
        del model.dropout_key, model.dropout_count


@cache
def seeded_class(plain: type[nn.Module]) -> type[nn.Module]:
    return type(plain.__name__, (SeededDropout, plain), {"__module__": plain.__module__})


def global_states() -> tuple[object, ...]:
    """Those of the generators of torch, `random` and numpy, to be compared."""
    of_numpy: Any = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), of_numpy[1].tolist(), of_numpy[2]
