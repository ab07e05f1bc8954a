"""Loss and accuracy of runs in training on a split."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from bnstudy.data.dataset import Split
from bnstudy.losses import LossSpec
from bnstudy.probes.network import in_parts
from bnstudy.train.engine import Engine


@torch.no_grad()
def evaluate(engine: Engine, split: Split, loss: LossSpec, images: int | None = None) -> dict[str, Tensor]:
    """Mean `loss` and, if there are labels, `accuracy` (a share) of each run in evaluation mode.

    Args:
        images: use the first images of the split only; None for all.
    """
    xs, ys = in_parts(split.x[:images]), in_parts(split.y[:images])
    params, buffers = engine.named(engine.params), engine.buffers()
    engine.model.eval()
    sums = [
        engine.map(
            lambda p, b, x=x, y=y: sum_scores(functional_call(engine.model, (p, b), (x,)), y, loss), params, buffers
        )
        for x, y in zip(xs, ys, strict=True)
    ]
    engine.model.train()
    return {name: torch.stack([part[name] for part in sums]).sum(0) / sum(map(len, ys)) for name in sums[0]}


def sum_scores(out: Tensor, y: Tensor, loss: LossSpec) -> dict[str, Tensor]:
    """Sums over the samples of the loss and, if there are labels, of the correct answers."""
    total = {"loss": loss.each(out, y).sum()}
    return total if y.is_floating_point() else {**total, "accuracy": (out.argmax(1) == y).sum()}
