"""The statistics, scales and shifts of norms, and the effective learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import vmap

from bnstudy.models.layers import Layer
from bnstudy.norms.base import Norm
from bnstudy.norms.explicit import ExplicitNorm
from bnstudy.norms.steps import StepNorm, latest_rows
from bnstudy.norms.weight import ReparametrizedLayer
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import PART, Network, Params

Metrics = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class NormInternals(ProbeSpec):
    """For norms with running statistics:

    `accuracy_running`, `accuracy_batch`, `accuracy_precise`, and `loss_` likewise: evaluation on `samples` held-out
    images in batches of the size of training, with running statistics, those of each batch, and precise ones.
    Accuracies only with labels. All three leave out images that do not fill a batch; none of them for a single image.
    `running_mean_distance`: ||mu_running - mu_precise|| / ||sigma_precise||, by layer.
    `running_var_distance`: mean over the channels of |ln((var_running + eps) / (var_precise + eps))|, by layer.

    Precise statistics are the population's (Wu & Johnson 2021, section 3.1), from up to `precise_samples` of the probe
    batch in batches of the size of training, without dropout: mean E[mu_B] and variance E[var_B + mu_B^2] - E[mu_B]^2,
    with the biased variance of each batch.

    For every norm: `gamma_mean`, `gamma_std`, `gamma_min`, `beta_mean`, `beta_std` over the channels, by layer; and
    `effective_lr`: learning rate / ||W||^2 (van Laarhoven 2017) of each trained weight W whose scale a norm cancels,
    because it directly follows or normalizes the weight itself.

    samples: null for all held-out images. They cost time, not memory: at most PART are run at once.
    """

    needs_network: ClassVar[bool] = True

    samples: int | None = 500
    precise_samples: int = 1024

    def check(self) -> None:
        self.require(self.samples is None or self.samples >= 2, "samples", "at least 2, or null for all")
        self.require(self.precise_samples >= 2, "precise_samples", "at least 2")

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network = snapshot.network
        measured = {**gammas_and_betas(network.model, snapshot.params), "effective_lr": effective_rates(snapshot)}
        if not tracking_norms(network.model):
            return measured
        size = len(network.batch[1])
        x, _ = network.probe_batch(self.precise_samples)
        precise = precise_statistics(network, snapshot.params, in_batches(x, size))
        x, y = (in_batches(t, size) for t in network.held_out(self.samples))
        is_defined = x.shape[1] > 1  # a single image has no statistics of a batch
        return {
            **measured,
            **(scores(network, snapshot.params, x, y, precise) if is_defined else {}),
            **distances(network, precise),
        }


def free_norms(model: nn.Module) -> dict[str, Norm]:
    """The norms of a `copy_for_probes` by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Norm)}


def tracking_norms(model: nn.Module) -> dict[str, ExplicitNorm]:
    """The norms with running statistics by path."""
    norms = free_norms(model).items()
    return {path: norm for path, norm in norms if isinstance(norm, ExplicitNorm) and norm.running_mean is not None}


def layer_of(path: str) -> str:
    """The layer that the norm at this path belongs to."""
    return path.split(".norm_act")[0]


def gammas_and_betas(model: nn.Module, params: Params) -> Metrics:
    named: Metrics = {name: {} for name in ("gamma_mean", "gamma_std", "gamma_min", "beta_mean", "beta_std")}
    for path in free_norms(model):
        gamma, beta, layer = params.get(f"{path}.weight"), params.get(f"{path}.bias"), layer_of(path)
        if gamma is not None:
            named["gamma_mean"][layer] = gamma.mean()
            named["gamma_std"][layer] = gamma.std(correction=0)
            named["gamma_min"][layer] = gamma.amin()
        if beta is not None:
            named["beta_mean"][layer] = beta.mean()
            named["beta_std"][layer] = beta.std(correction=0)
    return named


def effective_rates(snapshot: Snapshot) -> dict[str, Tensor]:
    network = snapshot.network
    followed = {name for name, module in network.model.named_modules() if is_normalized(module)}
    sizes = {layer: snapshot.params[w].square().sum() for layer, w in snapshot.layers.items() if layer in followed}
    return {layer: network.lr / size for layer, size in sizes.items()}


def is_normalized(module: nn.Module) -> bool:
    """Whether this is a layer whose norm cancels the scale of its weight."""
    if not isinstance(module, Layer) or module.norm_act is None:
        return False
    if isinstance(module.weight, ReparametrizedLayer):
        return True
    directly = module.norm_act.norm_first and not module.adds_first
    return directly and any(isinstance(inner, ExplicitNorm) for inner in module.norm_act.norm.modules())


def in_batches(x: Tensor, size: int) -> Tensor:
    """Split [N, ...] into whole batches [k, size, ...]; fewer samples than `size` make one batch."""
    count = max(1, len(x) // size)
    kept = x[: count * size]
    return kept.reshape(count, -1, *x.shape[1:])


def at_once(x: Tensor) -> int:
    """How many of the batches x [k, B, ...] fit into a part."""
    return max(1, PART // x.shape[1])


def precise_statistics(network: Network, params: Params, x: Tensor) -> dict[str, Tensor]:
    """Population mean and variance of the inputs of each norm for x [k, B, C, H, W], by the names of the buffers of the
    running statistics."""
    norms = tracking_norms(network.model)

    def moments(x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

        def look(path: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.setdefault(path, []).append(norms[path].batch_moments(*inputs))

        with ExitStack() as hooks:
            for path, norm in norms.items():
                hooks.callback(norm.register_forward_pre_hook(partial(look, path)).remove)
            network(params, x, "batch")
        return {path: norms[path].join_moments(calls) for path, calls in seen.items()}

    found: dict[str, Tensor] = {}
    for path, (mean, var) in vmap(moments, chunk_size=at_once(x))(x).items():
        found[f"{path}.running_mean"] = mean.mean(0)
        # Equal to the mean of var + mean^2 minus the squared mean, without cancellation.
        found[f"{path}.running_var"] = var.mean(0) + mean.var(0, correction=0)
        # Each step of a sequence has precise statistics, whether or not it has running ones.
        found[f"{path}.num_batches_tracked"] = network.buffers[f"{path}.num_batches_tracked"].clamp_min(1)
    return found


def scores(network: Network, params: Params, x: Tensor, y: Tensor, precise: Params) -> Metrics:
    """Loss and accuracy on x [k, B, C, H, W], y [k, B] with each kind of statistics."""
    replaced = {**network.buffers, **precise}
    images = x.flatten(0, 1)
    by_batch = vmap(lambda batch: network(params, batch, "batch"), chunk_size=at_once(x))
    outs = {
        "running": network.evaluate(params, images),
        "batch": by_batch(x).flatten(0, 1),
        "precise": network.evaluate(params, images, replaced),
    }
    y = y.flatten(0, 1)
    measured = {f"loss_{kind}": {"": network.loss_spec.mean(out, y)} for kind, out in outs.items()}
    if network.dataset.is_labelled:
        right = {kind: (out.argmax(1) == y).to(out.dtype) for kind, out in outs.items()}
        measured |= {f"accuracy_{kind}": {"": share.mean()} for kind, share in right.items()}
    return measured


def distances(network: Network, precise: Params) -> Metrics:
    """The distance of the running statistics from the precise ones, by layer."""
    means, variances = {}, {}
    for path, norm in tracking_norms(network.model).items():
        mean, var = (network.buffers[f"{path}.running_{which}"] for which in ("mean", "var"))
        true_mean, true_var = precise[f"{path}.running_mean"], precise[f"{path}.running_var"]
        if isinstance(norm, StepNorm):
            used = latest_rows(network.buffers[f"{path}.num_batches_tracked"])
            mean, var = mean[used], var[used]
        eps = network.buffers.get(f"{path}.eps", norm.eps)
        means[layer_of(path)] = torch.linalg.vector_norm(mean - true_mean) / true_var.sum().sqrt()
        variances[layer_of(path)] = ((var + eps) / (true_var + eps)).log().abs().mean()
    return {"running_mean_distance": means, "running_var_distance": variances}
