"""Inside normalization layers: their statistics, their scales and shifts, and the step size they leave."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import vmap

from bnstudy.models.layers import Layer
from bnstudy.norms.explicit import ExplicitNorm
from bnstudy.norms.weight import ReparametrizedLayer
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import PART, Network, Params, in_parts

Metrics = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class NormInternals(ProbeSpec):
    """Where batch normalization keeps running statistics:

    `accuracy_running`, `accuracy_batch`, `accuracy_precise`, and `loss_` likewise: in evaluation, on `samples` held-out
    images in batches of the training's size, with running statistics, those of each batch, and precise ones. The
    accuracies only where there are labels. What does not make up a whole batch is left out, for all three.
    `running_mean_distance`: ||mu_running - mu_precise|| / ||sigma_precise||, by layer.
    `running_var_distance`: mean over the channels of |ln((var_running + eps) / (var_precise + eps))|, by layer.

    Precise statistics are the population's (Wu & Johnson 2021, section 3.1), from up to `precise_samples` of the probe
    batch in batches of the training's size, without dropout: mean E[mu_B] and variance E[var_B + mu_B^2] - E[mu_B]^2,
    with the biased variance of each batch.

    For every normalization: `gamma_mean`, `gamma_std`, `gamma_min`, `beta_mean`, `beta_std`, over the channels, by
    layer; and `effective_lr`: learning rate / ||W||^2 (van Laarhoven 2017) of each weight whose scale a norm takes out
    again, as it directly follows or is one of the weight itself, W being what is trained.

    samples: null for all held-out images. The time taken grows with them, the memory does not, as at most PART are
        run through a network at once.
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
        if not running(network.model):
            return measured
        size = len(network.batch[1])
        x, _ = network.probe_batch(self.precise_samples)
        precise = precise_statistics(network, snapshot.params, in_batches(x, size))
        x, y = (in_batches(t, size) for t in network.held_out(self.samples))
        return {
            **measured,
            **scores(network, snapshot.params, x, y, precise),
            **distances(network, precise),
        }


def free_norms(model: nn.Module) -> dict[str, ExplicitNorm]:
    """The normalizations of a `still` model by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, ExplicitNorm)}


def running(model: nn.Module) -> dict[str, ExplicitNorm]:
    """Those with running statistics."""
    return {path: norm for path, norm in free_norms(model).items() if norm.running_mean is not None}


def layer_of(path: str) -> str:
    """The layer that the norm at this path belongs to."""
    return path.split(".norm_act")[0]


# ---------------------------------------------------------------------------------------- what the parameters tell


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
    """Whether this is a layer whose weight's scale a norm takes out again."""
    if not isinstance(module, Layer) or module.norm_act is None:
        return False
    if isinstance(module.weight, ReparametrizedLayer):
        return True
    directly = module.norm_act.norm_first and not module.adds_first
    return directly and any(isinstance(inner, ExplicitNorm) for inner in module.norm_act.norm.modules())


# ---------------------------------------------------------------------------------------- statistics of batches


def in_batches(x: Tensor, size: int) -> Tensor:
    """[N, ...] as [k, size, ...], without what is left over; one batch where there is not enough for one."""
    count = max(1, len(x) // size)
    kept = x[: count * size]
    return kept.reshape(count, -1, *x.shape[1:])


def at_once(x: Tensor) -> int:
    """How many of the batches x [k, B, ...] go into a part."""
    return max(1, PART // x.shape[1])


def precise_statistics(network: Network, params: Params, x: Tensor) -> dict[str, Tensor]:
    """Population mean and variance of the inputs of each norm for x [k, B, C, H, W], by the names of the buffers that
    hold the running ones."""
    norms = running(network.model)

    def moments(x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        seen: dict[str, tuple[Tensor, Tensor]] = {}

        def look(path: str, z: Tensor) -> None:
            seen[path] = torch.var_mean(z, [0, *range(2, z.ndim)], correction=0)

        with ExitStack() as hooks:
            for path, norm in norms.items():
                hook = norm.register_forward_pre_hook(lambda _, inputs, path=path: look(path, inputs[0]))
                hooks.callback(hook.remove)
            network(params, x, "batch")
        return seen

    found: dict[str, Tensor] = {}
    for path, (var, mean) in vmap(moments, chunk_size=at_once(x))(x).items():
        found[f"{path}.running_mean"] = mean.mean(0)
        # The same as the mean of var + mean^2 less the squared mean, without the cancellation.
        found[f"{path}.running_var"] = var.mean(0) + mean.var(0, correction=0)
    return found


def scores(network: Network, params: Params, x: Tensor, y: Tensor, precise: Params) -> Metrics:
    """Loss and accuracy on x [k, B, C, H, W], y [k, B] by the statistics used."""
    replaced = {**network.buffers, **precise}
    parts = in_parts(x.flatten(0, 1))
    by_batch = vmap(lambda batch: network(params, batch, "batch"), chunk_size=at_once(x))
    outs = {
        "running": torch.cat([network(params, part, "running") for part in parts]),
        "batch": by_batch(x).flatten(0, 1),
        "precise": torch.cat([network(params, part, "running", replaced) for part in parts]),
    }
    y = y.flatten(0, 1)
    measured = {f"loss_{kind}": {"": network.loss_spec.mean(out, y)} for kind, out in outs.items()}
    if network.dataset.is_labelled:
        right = {kind: (out.argmax(1) == y).to(out.dtype) for kind, out in outs.items()}
        measured |= {f"accuracy_{kind}": {"": share.mean()} for kind, share in right.items()}
    return measured


def distances(network: Network, precise: Params) -> Metrics:
    """How far the running statistics are from precise ones, by layer."""
    means, variances = {}, {}
    for path, norm in running(network.model).items():
        mean, var = (network.buffers[f"{path}.running_{which}"] for which in ("mean", "var"))
        true_mean, true_var = precise[f"{path}.running_mean"], precise[f"{path}.running_var"]
        eps = network.buffers.get(f"{path}.eps", norm.eps)
        means[layer_of(path)] = torch.linalg.vector_norm(mean - true_mean) / true_var.sum().sqrt()
        variances[layer_of(path)] = ((var + eps) / (true_var + eps)).log().abs().mean()
    return {"running_mean_distance": means, "running_var_distance": variances}
