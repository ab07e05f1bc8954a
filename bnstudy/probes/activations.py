"""The distribution of pre-activations, its drift, and the saturation and rank of activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bnstudy.models.activations import Call
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.units import rounding

PERCENTILES = (15, 50, 85)
"""Those of Ioffe & Szegedy 2015, Fig. 1."""

GRID = 2
"""At most GRID x GRID positions of a feature map, and GRID tokens, are kept: of a map by default 1,024 values of each
channel."""

SATURATED = {"sigmoid": (torch.sigmoid, 0.05, 0.95), "tanh": (torch.tanh, -0.9, 0.9)}
"""Activations, and outputs below and above which a unit is saturated: the outer 5% of the range at each end."""


@dataclass(frozen=True)
class Activations(ProbeSpec):
    """The distribution of pre-activations z on the probe batch, by layer; z is the input of the activation, or the
    output of the network. A unit of a convolution is a channel, with values at all samples and a fixed grid of
    positions.

    `z_mean`, `z_std`: mean and standard deviation (biased) of the values of all units together.
    `z_q15`, `z_q50`, `z_q85`: percentiles of the values of all units together.
    `unit_q15`, `unit_q50`, `unit_q85`: those of the layer's first unit, as in Ioffe & Szegedy 2015, Fig. 1.
    `z_drift`: the absolute movement of the three percentiles of a unit since the previous measurement; the mean over
        percentiles and units. Left out at the first measurement.
    `z_drift_relative`: the same, relative to each unit's previous q85 - q15. The mean is over units whose values
        differed by more than rounding; NaN if there are none.
    `saturated_share`: share of outputs below .05 or above .95 of a sigmoid, below -.9 or above .9 of tanh; only for
        layers with these activations.
    `effective_rank`: exp of the entropy of s / sum(s), where s are the singular values of the centred matrix
        [samples, units] of the activation's outputs (Roy & Vetterli 2007); for a convolution, of the outputs' means
        over all positions. From 1 to the smaller of units and samples - 1; NaN if all samples are equal.

    A percentile q of n values is the ceil(q n / 100)-th smallest: the inverse of the empirical distribution function.

    samples: use the first samples of the probe batch, at most this many.
    statistics: norms use `running` statistics, or those of the `batch`, of each part of at most 256. Running statistics
        lag early in training, which shows as drift. `training` uses batch statistics and adds the noise of the next
        step: dropout, and that of norm=noisy_batch.
    """

    samples: int = 256
    statistics: Literal["running", "batch", "training"] = "batch"  # type: ignore[misc]  # a field instead of a constant

    def check(self) -> None:
        self.require(self.samples >= 2, "samples", "at least 2")

    def observe(self, call: Call, z: Tensor, a: Tensor) -> Tensor:  # noqa: ARG002
        """[N, units, 1 + positions]: the mean output over all positions, then z at some of them."""
        z, a = z[: self.samples], a[: self.samples]
        mean = a if a.ndim == 2 else a.flatten(2).mean(2)
        return torch.cat([mean.unsqueeze(2), on_grid(z)], 2)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        z = self._values(snapshot)
        kinds = {call.name: call.kind for call in snapshot.seen.calls(self.statistics)}
        outputs = {layer: kept[: self.samples, :, 0] for layer, kept in snapshot.observed.items()}
        of_units = {layer: percentiles(values) for layer, values in z.items()}
        drifts = {layer: drift(of_units[layer], before) for layer, before in snapshot.memory.items()}
        return {
            "z_mean": {layer: values.mean() for layer, values in z.items()},
            "z_std": {layer: values.std(correction=0) for layer, values in z.items()},
            **by_percentile("z", {layer: percentiles(values.flatten()) for layer, values in z.items()}),
            **by_percentile("unit", {layer: found[:, 0] for layer, found in of_units.items()}),
            "z_drift": {layer: absolute for layer, (absolute, _) in drifts.items()},
            "z_drift_relative": {layer: relative for layer, (_, relative) in drifts.items()},
            "saturated_share": saturated_shares(z, kinds),
            "effective_rank": {layer: effective_rank(features) for layer, features in outputs.items()},
        }

    def remember(self, snapshot: Snapshot) -> Mapping[str, Tensor]:
        """The percentiles of the units, [3, units] by layer."""
        return {layer: percentiles(values) for layer, values in self._values(snapshot).items()}

    def _values(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """z by layer, [samples * positions, units]."""
        kept = {layer: values[: self.samples, :, 1:] for layer, values in snapshot.observed.items()}
        return {layer: values.movedim(1, 2).flatten(0, 1) for layer, values in kept.items()}


def on_grid(z: Tensor) -> Tensor:
    """[N, channels, ...] -> [N, channels, positions], spaced evenly over each further dimension."""
    for dim in range(2, z.ndim):
        z = torch.stack([z.select(dim, place) for place in _spread(z.shape[dim])], dim)
    return z.flatten(2) if z.ndim > 2 else z.unsqueeze(2)


def _spread(size: int) -> list[int]:
    """The middles of at most GRID equal parts of 0..size-1."""
    parts = min(GRID, size)
    return [(2 * part + 1) * size // (2 * parts) for part in range(parts)]


def percentiles(values: Tensor) -> Tensor:
    """PERCENTILES over the first dimension: [n, ...] -> [3, ...]."""
    # Three selections are three times as fast as sorting.
    ranks = [-(-q * len(values) // 100) for q in PERCENTILES]
    return torch.stack([values.kthvalue(rank, 0).values for rank in ranks])


def by_percentile(name: str, found: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Percentiles [3] by layer as metrics `name`_q15, ..."""
    return {f"{name}_q{q}": {layer: three[i] for layer, three in found.items()} for i, q in enumerate(PERCENTILES)}


def drift(now: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The mean movement of the units' percentiles [3, units], absolute and relative to the former spread of each
    unit."""
    moved = (now - before).abs().mean(0)
    spread = before[-1] - before[0]
    differs = spread > rounding(before).amax(0)
    ratios = torch.where(differs, moved / torch.where(differs, spread, 1), 0)
    return moved.mean(), ratios.sum() / differs.sum()


def saturated_shares(z: Mapping[str, Tensor], kinds: Mapping[str, str]) -> dict[str, Tensor]:
    """The saturated share of each layer whose activation has two bounds."""
    shares = {}
    for layer, values in z.items():
        if kinds.get(layer) in SATURATED:
            activation, low, high = SATURATED[kinds[layer]]
            a = activation(values)
            shares[layer] = ((a < low) | (a > high)).to(a.dtype).mean()
    return shares


def effective_rank(features: Tensor) -> Tensor:
    """The effective rank of [samples, units], centred here. Singular values within rounding count as 0."""
    # The squared singular values of float32 features need float64.
    wide = features.double()
    centred = wide - wide.mean(0)
    gram = centred @ centred.T if len(features) < features.shape[1] else centred.T @ centred
    # LAPACK raises at infinite numbers, and one diverging run would stop its stack.
    finite = gram.isfinite().all()
    values = torch.linalg.eigvalsh(torch.where(finite, gram, 0)).clamp(min=0).sqrt()
    values = torch.where(values > torch.finfo(features.dtype).eps * torch.linalg.vector_norm(wide), values, 0)
    share = values / values.sum()
    return torch.where(finite, torch.special.entr(share).sum().exp(), torch.nan)
