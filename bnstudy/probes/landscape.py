"""The loss and its gradient along the gradient direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import Network, Params, grad, value_and_grad


@dataclass(frozen=True)
class Landscape(ProbeSpec):
    """Santurkar et al. 2018, section 3.2 and Figure 4: the next training batch, in training mode, at w - eta g.

    g is the gradient at the current parameters w; eta takes the values of `steps` times the learning rate:

    `loss_min`, `loss_max`: range of L(w - eta g).
    `grad_change_min`, `grad_change_max`: range of ||grad L(w) - grad L(w - eta g)||_2, the gradient predictiveness.
    `beta_eff`: the largest of grad_change / (eta ||g||), the effective smoothness; NaN if g or the learning rate is 0.

    The size of these steps depends on ||W||, for which a norm or the next layer can compensate. The suffix `_scaled`
    marks the same metrics in the coordinates W / ||W|| of each weight: a step moves each weight W by `relative_steps`
    times ||W|| against its gradient, as in You et al. 2017 (LARS), and gradients are multiplied by ||W||. As in the
    filter normalization of Li et al. 2018, biases, scales and shifts do not move, and rescaling weights without
    changing the network's function does not change the metrics. A step of t in every layer has length t sqrt(layers).

    Costs a forward and a backward pass for each entry of both lists.
    """

    needs_network: ClassVar[bool] = True

    steps: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0)
    relative_steps: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)

    def check(self) -> None:
        for name in ("steps", "relative_steps"):
            listed = getattr(self, name)
            self.require(len(listed) > 0 and min(listed, default=0) > 0, name, "a list of numbers above 0")

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network, params = snapshot.network, dict(snapshot.params)
        g = grad(network.loss)(params)
        ones = {name: torch.ones_like(network.lr) for name in g}
        etas = network.lr * torch.tensor(self.steps, dtype=network.lr.dtype, device=network.lr.device)
        plain = along(network, params, g, g, ones, etas)

        weights = list(snapshot.layers.values())
        sizes = {name: torch.linalg.vector_norm(params[name]) for name in weights}
        relative = torch.tensor(self.relative_steps, dtype=etas.dtype, device=etas.device)
        scaled = along(network, params, g, {name: unit(g[name]) for name in weights}, sizes, relative)
        measured = {**plain, **{f"{metric}_scaled": value for metric, value in scaled.items()}}
        return {metric: {"": value} for metric, value in measured.items()}


def along(
    network: Network, params: Params, g: Params, direction: Params, units: Params, steps: Tensor
) -> dict[str, Tensor]:
    """The metrics of `Landscape` along a line, in the coordinates w / unit.

    Args:
        params, g: the start and the gradient there, by parameter name.
        direction, units: the negative direction in these coordinates and the unit, a scalar, of each parameter that
            moves.
        steps: multiples of the direction, [k].
    """
    losses, changes = [], []
    for step in steps.unbind():
        there = {name: params[name] - step * units[name] * d for name, d in direction.items()}
        loss, g_there = value_and_grad(network.loss)({**params, **there})
        losses.append(loss)
        changes.append(length({name: units[name] * (g_there[name] - g[name]) for name in direction}))
    loss, change = torch.stack(losses), torch.stack(changes)
    return {
        "loss_min": loss.amin(),
        "loss_max": loss.amax(),
        "grad_change_min": change.amin(),
        "grad_change_max": change.amax(),
        "beta_eff": (change / (steps * length(direction))).amax(),
    }


def length(tensors: Params) -> Tensor:
    """The Euclidean norm of all tensors together."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors.values()]))


def unit(x: Tensor) -> Tensor:
    """`x` scaled to length 1; 0 stays 0."""
    return x / torch.linalg.vector_norm(x).clamp_min(torch.finfo(x.dtype).tiny)
