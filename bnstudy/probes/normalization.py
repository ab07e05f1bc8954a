"""The statistics, scales and shifts of norms, and the effective learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from bnstudy.models.flow import is_norm
from bnstudy.models.tracing import keeps_statistics
from bnstudy.norms.explicit import ExplicitNorm
from bnstudy.norms.steps import StepNorm, latest_rows
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import PART, Network, Params, has_known_statistics

Metrics = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class NormInternals(ProbeSpec):
    """For norms with running statistics, under the path of the norm; of the layers of bnstudy's networks, that of the
    layer:

    `accuracy_running`, `accuracy_batch`, `accuracy_precise`, `loss_running`, `loss_batch`, `loss_precise`: evaluation on
    `samples` held-out images in batches of the size of training, with running statistics, those of each batch, and
    precise ones. Accuracies only with labels. All three leave out images that do not fill a batch; none of them for a
    single image.
    `running_mean_distance`: ||mu_running - mu_precise|| / ||sigma_precise||, by layer.
    `running_var_distance`: mean over the channels of |ln((var_running + eps) / (var_precise + eps))|, by layer.

    Precise statistics are the population's (Wu & Johnson 2021, section 3.1), from up to `precise_samples` of the probe
    batch in batches of the size of training, without dropout: mean E[mu_B] and variance E[var_B + mu_B^2] - E[mu_B]^2,
    with the biased variance of each batch. A norm that is called several times has those of all calls. Those of a norm
    that is not torch's are unknown: only `_running` and `_batch` are then measured.

    For every norm of torch and of `bnstudy.norms`: `gamma_mean`, `gamma_std`, `gamma_min`, `beta_mean`, `beta_std` over
    the channels, by layer; and `effective_lr`: learning rate / ||W||^2 (van Laarhoven 2017) of each weight W whose
    scale a norm cancels, because it directly follows, whoever wrote it, or normalizes the weight itself.

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
        measured = {**gammas_and_betas(network, snapshot.params), "effective_lr": effective_rates(snapshot)}
        if not any(keeps_statistics(module) for module in network.model.modules()):
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


def tracking_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norms of a `copy_for_probes` whose running statistics are known, by path."""
    return {path: m for path, m in model.named_modules() if keeps_statistics(m) and has_known_statistics(m)}


def layer_of(path: str) -> str:
    """The layer that the norm at this path belongs to."""
    return path.split(".norm_act")[0]


def gammas_and_betas(network: Network, params: Params) -> Metrics:
    named: Metrics = {name: {} for name in ("gamma_mean", "gamma_std", "gamma_min", "beta_mean", "beta_std")}
    norms = {path for path, module in network.model.named_modules() if is_norm(module)}
    for name in network.seen.parameters:
        path, _, kind = name.rpartition(".")
        layer = layer_of(path)
        if path in norms and kind == "weight":
            gamma = params[name]
            named["gamma_mean"][layer] = gamma.mean()
            named["gamma_std"][layer] = gamma.std(correction=0)
            named["gamma_min"][layer] = gamma.amin()
        elif path in norms and kind == "bias":
            named["beta_mean"][layer] = params[name].mean()
            named["beta_std"][layer] = params[name].std(correction=0)
    return named


def effective_rates(snapshot: Snapshot) -> dict[str, Tensor]:
    network = snapshot.network
    weights = {layer: snapshot.params[w] for layer, w in snapshot.layers.items() if layer in network.seen.normalized}
    return {layer: network.lr / weight.square().sum() for layer, weight in weights.items()}


def in_batches(x: Tensor, size: int) -> Tensor:
    """Split [N, ...] into whole batches [k, size, ...]; fewer samples than `size` make one batch."""
    count = max(1, len(x) // size)
    kept = x[: count * size]
    return kept.reshape(count, -1, *x.shape[1:])


def for_each_batch(function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """The results of `function` for the batches x [k, B, ...], stacked. As many batches are run at once as fit into a
    part, or one after another where torch has no rule for several, as for nn.GRU."""
    try:
        return vmap(function, chunk_size=max(1, PART // x.shape[1]))(x)
    except RuntimeError:
        return tree_map(lambda *of_batches: torch.stack(of_batches), *map(function, x.unbind()))


def precise_statistics(network: Network, params: Params, x: Tensor) -> dict[str, Tensor]:
    """Population mean and variance of the inputs of each norm for x [k, B, C, H, W], by the names of the buffers of the
    running statistics, in order of execution."""
    norms = tracking_norms(network.model)

    def moments(x: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

        def look(path: str, norm: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            seen.setdefault(path, []).append(batch_moments(norm, *inputs, **named))

        with ExitStack() as hooks:
            for path, norm in norms.items():
                hook = norm.register_forward_pre_hook(partial(look, path), with_kwargs=True)
                hooks.callback(hook.remove)
            network(params, x, "batch")
        return {path: join_calls(norms[path], calls) for path, calls in seen.items()}

    found: dict[str, Tensor] = {}
    for path, calls in for_each_batch(moments, x).items():
        mean, var = (torch.cat(of_calls) for of_calls in zip(*calls, strict=True))
        found[f"{path}.running_mean"] = mean.mean(0)
        # Equal to the mean of var + mean^2 minus the squared mean, without cancellation.
        found[f"{path}.running_var"] = var.mean(0) + mean.var(0, correction=0)
        # Each step of a sequence has precise statistics, whether or not it has running ones.
        found[f"{path}.num_batches_tracked"] = network.buffers[f"{path}.num_batches_tracked"].clamp_min(1)
    return found


def batch_moments(norm: nn.Module, x: Tensor, *others: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] over the batch of what a norm is called with."""
    if isinstance(norm, ExplicitNorm):
        return norm.batch_moments(x, *others, **named)
    var, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
    return mean, var


def join_calls(norm: nn.Module, calls: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The moments of the calls of one forward pass, each in the shape of the running statistics."""
    return norm.join_moments(calls) if isinstance(norm, ExplicitNorm) else calls


def scores(network: Network, params: Params, x: Tensor, y: Tensor, precise: Params) -> Metrics:
    """Loss and accuracy on x [k, B, C, H, W], y [k, B] with each kind of statistics that is known."""
    images = x.flatten(0, 1)
    outs = {
        "running": network.evaluate(params, images),
        "batch": for_each_batch(lambda batch: network(params, batch, "batch"), x).flatten(0, 1),
    }
    if all(has_known_statistics(module) for module in network.model.modules() if keeps_statistics(module)):
        outs["precise"] = network.evaluate(params, images, {**network.buffers, **precise})
    y = y.flatten(0, 1)
    measured = {f"loss_{kind}": {"": network.loss_spec.mean(out, y)} for kind, out in outs.items()}
    if network.dataset.is_labelled:
        right = {kind: (out.argmax(1) == y).to(out.dtype) for kind, out in outs.items()}
        measured |= {f"accuracy_{kind}": {"": share.mean()} for kind, share in right.items()}
    return measured


def distances(network: Network, precise: Params) -> Metrics:
    """The distance of the running statistics from the precise ones, by layer."""
    means, variances = {}, {}
    norms = tracking_norms(network.model)
    for path in (name.removesuffix(".running_mean") for name in precise if name.endswith(".running_mean")):
        mean, var = (network.buffers[f"{path}.running_{which}"] for which in ("mean", "var"))
        true_mean, true_var = precise[f"{path}.running_mean"], precise[f"{path}.running_var"]
        if isinstance(norms[path], StepNorm):
            used = latest_rows(network.buffers[f"{path}.num_batches_tracked"])
            mean, var = mean[used], var[used]
        eps = network.buffers.get(f"{path}.eps", torch.as_tensor(norms[path].eps))
        means[layer_of(path)] = torch.linalg.vector_norm(mean - true_mean) / true_var.sum().sqrt()
        variances[layer_of(path)] = ((var + eps) / (true_var + eps)).log().abs().mean()
    return {"running_mean_distance": means, "running_var_distance": variances}
