"""Batch normalization of sequences that a network reads step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnstudy.norms.explicit import ExplicitNorm
from bnstudy.norms.weighted import WeightedStandardize, centre


class StepNorm(ExplicitNorm):
    """Batch normalization with statistics of each step: over the images that are present at it (Cooijmans et al. 2017).

    Scale and shift are shared by all steps. Running statistics [rows, C] are of the training batches:
    - with a row per step, each step has its own. A step that no training image reached is evaluated with those of the
      last step before it that has any, as in section 3 of the paper.
    - with a single row, all steps are evaluated with the average over the steps.

    A step at which fewer than two images are present does not update them.

    In training call the norm once for each step, from 0 on, or once for all steps; then call `update_`.
    """

    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, like: nn.BatchNorm1d | nn.BatchNorm2d, rows: int) -> None:
        super().__init__(like)
        for name in ("running_mean", "running_var"):
            of_one = getattr(self, name)
            setattr(self, name, None if of_one is None else of_one.repeat(rows, 1))
        if self.num_batches_tracked is not None:
            self.num_batches_tracked = self.num_batches_tracked.repeat(rows)
        self._moments: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, share: Tensor, step: int | None = None) -> Tensor:  # type: ignore[override]
        """x [B, C] of one step, or [B, T, C] of all steps if `step` is None.

        share: [B, 1] or [B, T, 1], the weight of each image in the means: 1 / n for each of the n images that are
            present, 0 for the others.
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.training or self.running_mean is None or self.running_var is None:
            out, mean, var = WeightedStandardize.apply(
                *samples_last_but_one(wide, share), self.weight, self.bias, self.eps
            )
            if self.training and self.tracks and self.running_mean is not None:
                if not step:
                    self._moments.clear()
                self._moments.append((mean.squeeze(-2), var.squeeze(-2)))
            return (out if x.ndim == 2 else out.transpose(0, 1)).to(x.dtype)
        assert self.num_batches_tracked is not None
        latest = latest_rows(self.num_batches_tracked)
        row = latest[: x.shape[1]] if step is None else latest.narrow(0, min(step, len(latest) - 1), 1)
        mean, var = self.running_mean.index_select(0, row), self.running_var.index_select(0, row)
        scale = torch.rsqrt(var + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        centred = wide - mean
        return (centred * scale if self.bias is None else torch.addcmul(self.bias, centred, scale)).to(x.dtype)

    def batch_moments(self, x: Tensor, share: Tensor, step: int | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # noqa: ARG002
        """Mean and biased variance over the images, as for `forward`."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        _, mean, var = centre(*samples_last_but_one(wide, share))
        return mean.squeeze(-2), var.squeeze(-2)

    def join_moments(self, calls: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Those of all steps, or with a single row their average."""
        mean, var = (torch.cat([t.view(-1, t.shape[-1]) for t in of_calls]) for of_calls in zip(*calls, strict=True))
        assert self.running_mean is not None
        return [(mean, var) if len(self.running_mean) > 1 else (mean.mean(0, True), var.mean(0, True))]

    @torch.no_grad()
    def update_(self, count: Tensor) -> None:
        """Update the running statistics with those of the batch that the norm was called for, in training.

        count: the number of images that are present at each step, [T].
        """
        if not self._moments or self.num_batches_tracked is None:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = (
            torch.cat([t.view(-1, t.shape[-1]) for t in of_steps]) for of_steps in zip(*self._moments, strict=True)
        )
        self._moments.clear()
        count = count.to(mean.dtype).unsqueeze(1)
        seen = count >= 2
        var = var * (count / (count - 1).clamp_min(1))
        if len(self.running_mean) == 1:
            steps = seen.sum(0, keepdim=True)
            mean, var = ((t * seen).sum(0, keepdim=True) / steps.clamp_min(1) for t in (mean, var))
            seen = steps > 0
        self.num_batches_tracked.add_(seen.squeeze(1))
        batches = self.num_batches_tracked.clamp_min(1).unsqueeze(1)
        weight = seen * (batches.reciprocal() if self.momentum is None else self.momentum)
        self.running_mean.add_((mean - self.running_mean) * weight)
        self.running_var.add_((var - self.running_var) * weight)


def latest_rows(batches: Tensor) -> Tensor:
    """For each row of running statistics the last until it that has any, from the number of their batches: [rows]."""
    return (torch.arange(len(batches), device=batches.device) * (batches > 0)).cummax(0).values


def samples_last_but_one(x: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, C] or [B, T, C], and the share of each image, as [B, C] or [T, B, C]."""
    return (x, share) if x.ndim == 2 else (x.transpose(0, 1), share.transpose(0, 1))
