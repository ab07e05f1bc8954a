"""Batch normalization, over ghost batches, and with noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from bnstudy.norms.base import AffineNorm, Layout
from bnstudy.norms.explicit import ExplicitNorm, GhostNorm, for_layout
from bnstudy.norms.steps import StepNorm
from bnstudy.rng import Noise
from bnstudy.validation import PER_RUN, ConfigError


@dataclass(frozen=True)
class BatchNorm(AffineNorm):
    """Ioffe & Szegedy 2015: each channel normalized over the batch (and positions, or all tokens of all images).

    Training uses the biased variance of the batch. Evaluation uses running statistics, which torch updates by
    x <- (1 - momentum) x + momentum x_batch, with the unbiased variance.

    momentum: null for the cumulative average over all steps.
    track_running_stats: false to use the batch's statistics in evaluation too.
    """

    option: ClassVar[str] = "batch"
    momentum: float | None = field(default=0.1, metadata=PER_RUN)
    track_running_stats: bool = True

    def check(self) -> None:
        super().check()
        self.require(self.momentum is None or 0 < self.momentum <= 1, "momentum", "in (0, 1], or null")

    @property
    def evaluates_by_batch(self) -> bool:
        return not self.track_running_stats

    def check_batch(self, batch_size: int) -> None:
        if batch_size < 2:
            raise ConfigError(
                f"batch_size={batch_size} is not allowed with norm={self.option}: statistics over a batch of one are "
                "not defined; it must be at least 2, or choose norm=group or norm=layer."
            )

    def build(self, channels: int, layout: Layout) -> nn.Module:
        layer = self.torch_layer(channels, layout)
        # For the cumulative average torch copies its counter to the host: vmap refuses that, and a GPU has to wait.
        return ExplicitNorm(layer, layout == "tokens") if self.momentum is None else for_layout(layer, layout)

    def build_steps(self, channels: int, steps: int, at_once: bool) -> nn.Module:
        """Step by step each has the statistics of its batch; evaluation uses one running average over all steps."""
        if at_once:
            return super().build_steps(channels, steps, at_once)
        if type(self).build is not BatchNorm.build:
            raise ConfigError(
                f"norm={self.option} is not allowed on the recurrent path of a network; choose model.norm_path=input, "
                "norm=batch or norm=batch_per_step."
            )
        return StepNorm(self.torch_layer(channels, "units"), rows=1)

    def torch_layer(self, channels: int, layout: Layout) -> nn.BatchNorm1d | nn.BatchNorm2d:
        kind = nn.BatchNorm2d if layout == "maps" else nn.BatchNorm1d
        return self.start(kind(channels, self.eps, self.momentum, self.affine, self.track_running_stats))


@dataclass(frozen=True)
class StepBatchNorm(BatchNorm):
    """Cooijmans et al. 2017: batch normalization of sequences with statistics of each step; in a Transformer, of each
    position.

    norm=batch has one set of running statistics for all steps; in a Transformer and on the input path of a recurrent
    network it also normalizes in training over the tokens of all steps. Both share scale and shift among the steps.
    """

    option: ClassVar[str] = "batch_per_step"

    def build(self, channels: int, layout: Layout) -> nn.Module:  # noqa: ARG002
        raise ConfigError(
            f"norm={self.option} is not allowed with this network: it has statistics of each step of a "
            "sequence; choose norm=batch, model=rnn or model=transformer."
        )

    def build_steps(self, channels: int, steps: int, at_once: bool) -> nn.Module:  # noqa: ARG002
        return StepNorm(self.torch_layer(channels, "units"), rows=steps)


@dataclass(frozen=True)
class GhostBatchNorm(BatchNorm):
    """Hoffer et al. 2017, section 4: batch normalization over ghost batches, which are parts of the batch.

    Statistics are as noisy as those of a small batch; gradients are as exact as those of the large one.

    The running statistics are updated once a batch, with the average of the ghost batches' means and unbiased
    variances, so that momentum means the same as with norm=batch. Hoffer et al. update them once a ghost batch.

    size: samples in a ghost batch. It divides the batch size of training; for other batches, as in evaluation with
        batch statistics, see `GhostNorm`.
    """

    option: ClassVar[str] = "ghost"
    size: int = 16

    def check(self) -> None:
        super().check()
        self.require(self.size >= 2, "size", "at least 2, as statistics over a single sample are not defined")

    def check_batch(self, batch_size: int) -> None:
        if batch_size % self.size:
            below = batch_size // self.size * self.size
            raise ConfigError(
                f"batch_size={batch_size} is not allowed with norm=ghost and norm.size={self.size}: it must be a "
                f"multiple of norm.size, such as {f'{below} or ' if below else ''}{below + self.size}."
            )

    def build(self, channels: int, layout: Layout) -> nn.Module:
        return GhostNorm(self.torch_layer(channels, layout), self.size, layout == "tokens")


@dataclass(frozen=True)
class NoisyBatchNorm(BatchNorm):
    """Santurkar et al. 2018, section 2.1: batch normalization with noise whose distribution changes every step.

    The noise follows the norm's scale and shift, in training only. At each step each unit (channel) draws a mean
    m ~ U(-shift, shift) and a scale s ~ U(1, scale). From these each sample draws m' ~ U(m - jitter, m + jitter) and
    s' ~ N(s, jitter^2), the same for all positions of a channel and all tokens of an image, and y becomes s' y + m'.

    The defaults are those of the paper's appendix as remembered, n_mu = 0.5, n_sigma = 1.25, r_mu = r_sigma = 0.1;
    neither the algorithm nor the numbers were compared with its text. Known differences: in a convolution the noise
    is per channel, not per position, and evaluation has no noise.
    """

    option: ClassVar[str] = "noisy_batch"
    shift: float = field(default=0.5, metadata=PER_RUN)
    scale: float = field(default=1.25, metadata=PER_RUN)
    jitter: float = field(default=0.1, metadata=PER_RUN)

    def check(self) -> None:
        super().check()
        self.require(self.shift >= 0, "shift", "0 or more")
        self.require(self.scale >= 1, "scale", "at least 1")
        self.require(self.jitter >= 0, "jitter", "0 or more")

    def build(self, channels: int, layout: Layout) -> nn.Module:
        noise = StepNoise(self.shift, self.scale, self.jitter, layout == "tokens")
        return NoisyNorm(super().build(channels, layout), noise)


class NoisyNorm(nn.Sequential):
    """A norm and the noise that follows it."""

    def forward(self, x: Tensor, *present: Tensor | None) -> Tensor:
        norm, noise = self
        return noise(norm(x, *present))


class StepNoise(Noise):
    """Scales and shifts each unit (channel) of each sample in training: the noise of `NoisyBatchNorm`."""

    shift: Tensor
    scale: Tensor
    jitter: Tensor

    def __init__(self, shift: float, scale: float, jitter: float, tokens: bool = False) -> None:
        super().__init__()
        self.tokens = tokens
        for name, number in (("shift", shift), ("scale", scale), ("jitter", jitter)):
            self.register_buffer(name, torch.tensor(number), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, units], [N, channels, H, W], or [N, T, channels] if `tokens`."""
        if not self.training:
            return x
        samples, units, *positions = x.movedim(-1, 1).shape if self.tokens else x.shape
        shape = (samples, 1, units) if self.tokens else (samples, units, *[1] * len(positions))
        dtype = torch.promote_types(x.dtype, torch.float32)
        shift, scale = (noise.to(dtype).view(shape) for noise in self.draw_shift_and_scale(samples, units))
        return (x * scale + shift).to(x.dtype)

    def draw_shift_and_scale(self, samples: int, units: int) -> tuple[Tensor, Tensor]:
        """The next noise, m' and s': [samples, units] each."""
        noise = self.draw(2 + 3 * samples, units)
        shift, scale = self.shift * (2 * noise[0] - 1), 1 + (self.scale - 1) * noise[1]
        u, v, w = noise[2:].view(3, samples, units)
        return shift + self.jitter * (2 * u - 1), scale + self.jitter * normal(v, w)


def normal(u: Tensor, v: Tensor) -> Tensor:
    """Standard normal numbers from two uniform in [0, 1), in float64 (Box & Muller 1958)."""
    # In float32 the last bit of the logarithm depends on the number of runs in the stack.
    return (-2 * torch.log1p(-u.double())).sqrt() * (2 * math.pi * v.double()).cos()
