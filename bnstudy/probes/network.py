"""A run's network for probes: pure functions to differentiate its loss and to read its pre-activations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._functorch import eager_transforms as transforms
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_flatten, tree_unflatten

from bnstudy.data.dataset import Dataset
from bnstudy.losses import LossSpec
from bnstudy.models.activations import Taps
from bnstudy.models.functional import run_with
from bnstudy.models.tracing import Mode, Seen, keeps_statistics, set_mode
from bnstudy.norms.explicit import ExplicitNorm, make_explicit, tensors_to_buffers
from bnstudy.rng import Noise, Seeded
from bnstudy.validation import ConfigError

Params = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]


def value_and_grad(function: Callable[[Any], Tensor]) -> Callable[[Any], tuple[Tensor, Any]]:
    """Like `torch.func.grad_and_value`, but the value comes first, and without the import of torch's compiler at the
    first call, which takes 1.4 seconds."""

    def both(at: Any) -> tuple[Tensor, Any]:
        with transforms.grad_increment_nesting() as level, torch.enable_grad():
            inputs = transforms._create_differentiable(transforms._wrap_all_tensors(at, level), level)
            value, (leaves, structure) = function(inputs), tree_flatten(inputs)
            if value.requires_grad:
                found = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
            else:  # it depends on none of them
                found = tuple(map(torch.zeros_like, leaves))
            outer = transforms._undo_create_differentiable((value, *found), level)
        return outer[0], tree_unflatten(outer[1:], structure)

    return both


def grad(function: Callable[[Any], Tensor]) -> Callable[[Any], Any]:
    """Like `torch.func.grad`; see `value_and_grad`."""
    return lambda at: value_and_grad(function)(at)[1]


PART = 256
"""Images that are run through the network at once. More would need a stack's memory and exceed the cache of a CPU,
which doubles the time of a ResNet."""


def in_parts(x: Tensor, size: int | None = None) -> tuple[Tensor, ...]:
    """Split `x` [N, ...] into nearly equal parts of at most `size`, by default PART."""
    return x.tensor_split(-(-len(x) // (size or PART)))


def random_order(n: int, device: torch.device) -> Tensor:
    """A fixed random order of n images, as indices [n]. A batch of a stratified order would have better statistics than
    others."""
    return torch.from_numpy(np.random.default_rng(0).permutation(n)).to(device)


def copy_for_probes(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """Copy the model for probes: its norms are written out, which makes them differentiable any number of times, and do
    not update their running statistics. `run_in_mode` runs it.

    example: images on which the copy is run once, to find modules of the user's that keep statistics of batches.
    """
    model = copy.deepcopy(model).train()
    make_explicit(model)
    tensors_to_buffers(model)
    for module in model.modules():
        if isinstance(module, ExplicitNorm):
            module.tracks = False
    for module in modules_with_statistics(model, example):
        module.keeps_statistics = True  # type: ignore[assignment]  # a mark, not a part of the network
    return model.requires_grad_(False)


def modules_with_statistics(model: nn.Module, example: Tensor | None) -> list[nn.Module]:
    """The modules that keep statistics of training batches: torch's norms, and those with a buffer that a training step
    on the example changes. A norm that stays in evaluation mode is frozen; a random stream is no statistic."""
    changed = set() if example is None else changed_buffers(model, example)
    return [
        module
        for path, module in model.named_modules()
        if module.training
        and not isinstance(module, Noise | Seeded)
        and (
            is_tracking_norm(module)
            or any(f"{path}.{name}".lstrip(".") in changed for name, _ in module.named_buffers(recurse=False))
        )
    ]


def has_known_statistics(module: nn.Module) -> bool:
    """Whether its running statistics are those of a batch norm, in torch's buffers."""
    return is_tracking_norm(module) and not isinstance(module, _InstanceNorm)


def unknown_statistics(model: nn.Module) -> Iterator[str]:
    """Sentences on the modules of a `copy_for_probes` whose statistics probes cannot read."""
    for path, module in model.named_modules():
        if keeps_statistics(module) and not has_known_statistics(module):
            yield (
                f"{path or 'The network'} ({type(module).__name__}) keeps statistics of batches in its own way: they "
                "are not compared with precise ones, and there is no accuracy_precise."
            )


def is_tracking_norm(module: nn.Module) -> bool:
    """Whether this is a torch norm, perhaps written out, with running statistics."""
    return isinstance(module, ExplicitNorm | _NormBase) and module.running_mean is not None


@torch.no_grad()
def changed_buffers(model: nn.Module, example: Tensor) -> set[str]:
    """The names of the buffers that a forward pass changes, in place or by assignment. The model stays as it is."""
    before = dict(model.named_buffers())
    after = {name: b.clone() for name, b in before.items()}
    with torch.random.fork_rng([example.device] if example.is_cuda else []):
        run_with(model, after, example)
    return {name for name, b in before.items() if not _same(b, after[name])}


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def run_in_mode(model: nn.Module, mode: Mode, params: Params, buffers: Params, x: Tensor) -> Tensor:
    """The outputs of a `copy_for_probes`. Its buffers do not change, and afterwards it is in training mode.

    Raises:
        ConfigError: the loss is differentiated, and the network recomputes activations for that.
    """
    # Copies, as modules change buffers in place. Under vmap they must be as many as the batches.
    always = x.new_ones((), dtype=torch.bool)
    own = {name: torch.where(always, b, b) for name, b in {**dict(model.named_buffers()), **buffers}.items()}
    set_mode(model, mode)
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative, and no rule for vmap
            return run_with(model, {**params, **own}, x)
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        raise ConfigError(
            "Probes of gradients are not allowed with this network, which recomputes its activations "
            "(torch.utils.checkpoint); choose probe=light, or leave out the recomputation."
        ) from error
    finally:
        model.train()


@dataclass(frozen=True)
class Network:
    """One run's network as pure functions of its parameters, with its current buffers.

    model: a `copy_for_probes` of the run's.
    seen: what `look` found in it.
    batch: the next training batch: x [B, C, H, W] and y [B].
    probe_index: the training images of the run's probe batch: indices [N].
    lr: the learning rate of the next step, a scalar tensor.
    evaluation_batch: images in a batch of an evaluation whose statistics are those of the batch; None for others.
    """

    model: nn.Module
    seen: Seen
    loss_spec: LossSpec
    dataset: Dataset
    buffers: Params
    batch: Batch
    probe_index: Tensor
    lr: Tensor
    evaluation_batch: int | None = None

    def __call__(self, params: Params, x: Tensor, mode: Mode = "training", buffers: Params | None = None) -> Tensor:
        """The outputs [N, classes] for x [N, C, H, W]; `buffers` replace those of the run."""
        return run_in_mode(self.model, mode, params, self.buffers if buffers is None else buffers, x)

    def evaluate(self, params: Params, x: Tensor, buffers: Params | None = None) -> Tensor:
        """The outputs [N, classes] in evaluation mode for images in random order, in batches of an evaluation."""
        parts = in_parts(x, self.evaluation_batch)
        return torch.cat([self(params, part, "running", buffers) for part in parts])

    def loss(self, params: Params, batch: Batch | None = None) -> Tensor:
        """The mean training-mode loss of a batch, by default of the next training batch: a scalar."""
        x, y = self.batch if batch is None else batch
        return self.loss_spec.each(self(params, x), y).mean()

    def inside(
        self, params: Params, x: Tensor, mode: Mode = "training", shifts: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs and the input of each call of an activation, by its name and in the network's own layout.

        shifts: added to these inputs. The gradient with respect to zero shifts is the gradient with respect to them.
        """
        found: dict[str, Tensor] = {}
        with Taps(self.seen.passes[mode], lambda call, z, _: found.update({call.name: z}), shifts):
            out = self(params, x, mode)
        return out, found

    def probe_batch(self, samples: int | None = None) -> Batch:
        """The first images of the run's probe batch, and their labels."""
        chosen = self.probe_index[:samples]
        return self.dataset.train.x[chosen], self.dataset.train.y[chosen]

    def held_out(self, samples: int | None = None) -> Batch:
        """The first images of the validation split, a stratified sample, and their labels, in a fixed random order."""
        order = random_order(len(self.dataset.val.y[:samples]), self.dataset.val.x.device)
        return self.dataset.val.x[order], self.dataset.val.y[order]
