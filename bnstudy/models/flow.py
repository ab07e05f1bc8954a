"""Follows data through a network, call by call of torch's functions: which weight layer computed which tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bnstudy.models.activations import is_in_place, kind_of, name_of
from bnstudy.models.channels import channel_behind, channel_of_product
from bnstudy.norms.base import Norm
from bnstudy.norms.explicit import ExplicitNorm
from bnstudy.norms.weight import ReparametrizedLayer

FUSED = {"gru": "nn.GRU", "lstm": "nn.LSTM", "rnn_tanh": "nn.RNN", "rnn_relu": "nn.RNN"}
FUSED |= {"gru_cell": "nn.GRUCell", "lstm_cell": "nn.LSTMCell", "rnn_tanh_cell": "nn.RNNCell"}
FUSED |= {"rnn_relu_cell": "nn.RNNCell"}
"""Functions that compute several weight layers with their activations."""

PRODUCTS = {"linear", "bilinear", "matmul", "rmatmul", "mm", "bmm", "mv", "addmm", "addmv", "baddbmm", "addbmm"}
PRODUCTS |= {f"conv{'_transpose' if back else ''}{n}d" for n in (1, 2, 3) for back in (False, True)}
PRODUCTS |= {"einsum", "tensordot", "embedding", "embedding_bag", "multi_head_attention_forward", *FUSED}
"""Functions that multiply data by a weight."""

SUMS = {"add", "radd", "iadd", "sub", "rsub", "isub"}
JOINS = {*SUMS, "cat", "concat", "concatenate", "hstack"}
NORM_FUNCTIONS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize"}

RESHAPES = {"reshape", "view", "flatten", "unflatten", "transpose", "swapaxes", "swapdims", "permute", "movedim", "t"}
RESHAPES |= {"squeeze", "unsqueeze", "contiguous", "clone", "to", "float", "double", "type_as", "dropout", "getitem"}
RESHAPES |= {"chunk", "split", "unbind", "select", "narrow", "get"}
"""Functions that leave values as they are, apart from dropout."""


@dataclass(frozen=True)
class Flow:
    """Where the values of a tensor come from.

    layer: the last weight layer that they went through; None before the first.
    channel: the dimension of its channels.
    is_raw: whether they are the layer's output itself, before any norm, addition or activation.
    product: the number of the layer's product; `behind` has those that it depends on, its own included.
    """

    layer: str | None = None
    channel: int = 1
    is_raw: bool = False
    product: int = -1
    behind: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Tap:
    """A call of an activation. is_hidden: whether it is part of a norm, or does not concern units."""

    kind: str
    shape: tuple[int, ...]
    flow: Flow
    is_hidden: bool


@dataclass
class Tracer(TorchFunctionMode):
    """Records what the model does with the batch while it runs inside."""

    model: nn.Module
    batch: Tensor
    taps: list[Tap] = field(default_factory=list)
    used: dict[str, None] = field(default_factory=dict)
    layers: dict[str, None] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    overwrites: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self._flows: dict[int, tuple[Tensor, Flow]] = {}  # with the tensor, whose id may not be given to another
        self._weights: dict[int, tuple[Tensor, tuple[str, ...]]] = {
            id(p): (p, (name,)) for name, p in self.model.named_parameters()
        }
        self._products: list[str] = []  # the layer of each
        self._normalized: set[int] = set()
        self._read: list[int] = []  # products whose raw output something other than a norm reads
        self._last = Flow()
        self._norms = 0
        self._before: list[tuple[int, int, int]] = []
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        channel = 1 if self.batch.ndim > 1 else 0
        self._keep(self.batch, Flow(channel=channel))
        for module in self.model.modules():
            if not isinstance(module, torch.jit.ScriptModule):
                self._hooks.callback(module.register_forward_pre_hook(self._enter_module).remove)
                self._hooks.callback(module.register_forward_hook(self._leave_module).remove)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()

    @property
    def normalized(self) -> set[str]:
        """The layers whose output only norms read, at each use."""
        others = {layer for n, layer in enumerate(self._products) if n not in self._normalized or n in self._read}
        return {*self._products} - others

    def forget(self) -> None:
        """Free the tensors."""
        self._flows.clear()
        self._weights.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func, args, kwargs)
        if kind is not None:
            self._tap(func, kind, args[0] if args else kwargs["input"])
        out = func(*args, **kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if results:
            operands = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            self._record(func, args, operands, results, kind is not None)
            self.overwrites |= is_in_place(func, args, kwargs) and self._flow(results[0]) is not None
        return out

    def _tap(self, func: Callable[..., Any], kind: str, z: Tensor) -> None:
        flow = self._flow(z)
        is_limit = flow is None and name_of(func) in ("clamp", "clamp_min", "clip")
        where = self._last if flow is None else flow
        self.taps.append(Tap(kind, tuple(z.shape), where, is_limit or self._norms > 0))

    def _record(
        self, func: Callable[..., Any], args: Sequence[Any], operands: list[Tensor], results: list[Tensor], acts: bool
    ) -> None:
        """Follow weights and data through one call."""
        weights = [(t, self._weights[id(t)][1]) for t in operands if id(t) in self._weights]
        names = tuple(dict.fromkeys(name for _, of_one in weights for name in of_one))
        self.used |= dict.fromkeys(names)
        data = [(t, flow) for t in operands if (flow := self._flow(t)) is not None]
        name = name_of(func)
        if not data:
            if names:
                self._weights |= {id(t): (t, names) for t in results if id(t) not in self._weights}
            return
        matrices = [(t, of_one) for t, of_one in weights if t.ndim >= 2]
        x, flow = _main(data) if name in JOINS else data[0]
        if name in PRODUCTS and matrices:
            self._read += [flow.product for _, flow in data if flow.is_raw]
            flow = self._product(name, args, operands, results, matrices, [flow for _, flow in data])
            for t in results:
                self._keep(t, flow)
            return
        adds_bias = name in SUMS and len(data) == 1
        is_raw = flow.is_raw and not acts and (name in RESHAPES or adds_bias)
        if name in NORM_FUNCTIONS and flow.is_raw:
            self._normalized.add(flow.product)
        elif not is_raw and self._norms == 0:
            self._read += [flow.product for _, flow in data if flow.is_raw]
        for t in results:
            channel = t.ndim - 1 if name in PRODUCTS else channel_behind(flow.channel, x, t)
            self._keep(t, replace(flow, channel=channel, is_raw=is_raw))

    def _product(
        self,
        name: str,
        args: Sequence[Any],
        operands: list[Tensor],
        results: list[Tensor],
        matrices: list[tuple[Tensor, tuple[str, ...]]],
        flows: list[Flow],
    ) -> Flow:
        """The flow of a product of data and weights. One that has several inside, as nn.GRU, has the name of the
        last."""
        is_single = name not in FUSED and name != "multi_head_attention_forward"
        weight, names = matrices[0] if is_single else matrices[-1]
        parameters = dict(self.model.named_parameters())
        same = [n for n in names if parameters[n].shape == weight.shape] or [n for n in names if parameters[n].ndim > 1]
        parameter = (same or list(names))[0]
        layer = layer_of(parameter)
        self.layers[layer] = None
        if name in FUSED:
            self.fused[parameter.rpartition(".")[0] or parameter] = FUSED[name]
        number = len(self._products)
        self._products.append(layer)
        behind = frozenset({number}).union(*(flow.behind for flow in flows))
        channel = channel_of_product(name, args, operands[0] is weight, results[0])
        is_raw = name != "embedding" and name not in FUSED
        self._last = Flow(layer, channel, is_raw, number, behind)
        return self._last

    def _flow(self, t: Tensor) -> Flow | None:
        found = self._flows.get(id(t))
        return None if found is None else found[1]

    def _keep(self, t: Tensor, flow: Flow) -> None:
        self._flows[id(t)] = t, flow

    def _enter_module(self, module: nn.Module, _: tuple[Any, ...]) -> None:
        self._norms += is_norm(module)
        self._before.append((len(self._products), len(self.taps), len(self._read)))

    def _leave_module(self, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        """Follow the data through a norm, and through a module that does not use torch's functions."""
        (products, taps, read), is_ours = self._before.pop(), is_norm(module)
        self._norms -= is_ours
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        flow = None if x is None else self._flow(x)
        if x is None or flow is None or not isinstance(out, Tensor):
            return
        if is_ours or self._flow(out) is None:
            self._keep(out, replace(flow, channel=channel_behind(flow.channel, x, out), is_raw=False))
        if flow.is_raw and out is not x:
            activates = any(tap.shape == x.shape for tap in self.taps[taps:])  # other taps limit statistics
            is_plain = is_ours or (products == len(self._products) and not activates)
            if is_torch_norm(module) or (is_plain and cancels_scale(module, inputs, out)):
                self._normalized.add(flow.product)
                del self._read[read:]
            elif is_ours and self._norms == 0 and flow.product not in self._normalized:  # by a norm inside
                self._read.append(flow.product)


def layer_of(parameter: str) -> str:
    """The name of the layer that a weight belongs to: `hidden1` for hidden1.weight.weight of a `Layer`."""
    return parameter.removesuffix(".weight").removesuffix(".weight")


def _main(data: list[tuple[Tensor, Flow]]) -> tuple[Tensor, Flow]:
    """Of the tensors that are added or joined: the first, unless a later one is computed from it, as in x + f(x)."""
    return reduce(lambda main, other: other if other[1].behind > main[1].behind else main, data)


TORCH_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, ExplicitNorm)


def is_torch_norm(module: nn.Module) -> bool:
    return isinstance(module, TORCH_NORMS)


def is_norm(module: nn.Module) -> bool:
    """Whether activations inside the module are parts of a norm: torch's norms and those of bnstudy.norms."""
    ours = type(module).__module__.startswith("bnstudy.norms.") and not isinstance(module, ReparametrizedLayer)
    return ours or isinstance(module, Norm) or is_torch_norm(module)


def cancels_scale(module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> bool:
    """Whether the module maps 2x to the same values as x, as a norm does that someone wrote by hand."""
    is_torchs = type(module).__module__.startswith("torch.")
    if is_torchs or out.shape != inputs[0].shape or not out.is_floating_point():
        return False
    with torch._C.DisableTorchFunction():
        twice = module.forward(2 * inputs[0], *inputs[1:])
    largest = out.abs().amax()
    return bool(largest > 0) and bool((twice - out).abs().amax() < 0.01 * largest)
