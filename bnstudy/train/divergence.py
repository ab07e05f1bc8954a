"""When a run has diverged: its loss is not finite, or is out of bounds and does not come down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = tuple[int, str]
"""The first bad step and the reason."""

FACTOR = 10.0
"""A loss is out of bounds above so many times the larger of the loss of guessing and the initial loss. With large
weights the initial loss is far above that of guessing, and the network may still learn."""

ABOVE = "above 10 times the larger of the loss of guessing and the initial loss"

LASTING, LEAST_LASTING = 0.01, 10
"""A run diverges if its training loss is out of bounds for this share of the steps, at least for so many. Of 1,362 runs
at learning rates up to 100, those that then learned more than half of the images were for at most 4 steps."""


def find_diverged(losses: Tensor, guessing: float, total: int) -> dict[int, Divergence]:
    """The runs whose training loss was NaN or infinite, or out of bounds for so many consecutive steps that it lasts.

    The first of these steps counts. Later steps do not change what is found.

    Args:
        losses: [t, R], of the first t steps.
        guessing: the loss of guessing; not a positive number where there is none.
        total: the number of steps of the runs.
    """
    done, lasting = len(losses), max(LEAST_LASTING, round(LASTING * total))
    above, bad = _out_of_bounds(losses, guessing), ~torch.isfinite(losses)
    if not bool((above | bad).any()):
        return {}
    counts = F.pad(above.int().cumsum(0), (0, 0, 1, 0))
    if done >= lasting:
        bad[: done - lasting + 1] |= counts[lasting:] - counts[:-lasting] == lasting
    first = bad.int().argmax(0)
    values = losses.gather(0, first[None])[0]
    found = zip(bad.any(0).tolist(), first.tolist(), values.tolist(), strict=True)
    reason = f"training loss {ABOVE} for {lasting} steps"
    return {
        run: (step, reason if math.isfinite(value) else f"training loss {value}")
        for run, (is_bad, step, value) in enumerate(found)
        if is_bad
    }


def final_divergence(
    losses: Tensor, val_losses: Sequence[float], learned: bool | None, guessing: float
) -> Divergence | None:
    """Divergence that shows only at the end of training.

    A validation loss that grew slowly is that of a network that memorized its training images.

    Args:
        losses: [total], all training losses of a run.
        val_losses: at its evaluations, the last of them after the last step.
        learned: whether it ended above guessing, None where that is not known.
    """
    total = len(losses)
    before, last = [math.nan, math.nan, *val_losses][-2:]
    if val_losses and not math.isfinite(last):
        return total, f"validation loss {last} after the last step"
    if learned:
        return None
    above = _out_of_bounds(losses, guessing)
    if learned is False and bool(above.any()):
        return int(above.int().argmax()), f"training loss {ABOVE}, and the run did not recover"
    if last > float(_bound(losses[:1], guessing)) and not last <= FACTOR * before:
        return total, f"validation loss {ABOVE} after the last step"
    return None


def _out_of_bounds(losses: Tensor, guessing: float) -> Tensor:
    """Which losses [t, ...] of the first steps are finite and out of bounds."""
    return torch.isfinite(losses) & (losses > _bound(losses[:1], guessing))


def _bound(initial: Tensor, guessing: float) -> Tensor:
    """Infinite where it would not be positive."""
    bound = FACTOR * initial.clamp(min=guessing if math.isfinite(guessing) else 0.0)
    return bound.where(bound > 0, math.inf)
