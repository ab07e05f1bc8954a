"""A training step, compiled once for all stacks of a kind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

aten = torch.ops.aten


class Program:
    """A function of nested tensors, compiled at its first call. It may change its inputs in place.

    One execution of the function is traced, with `vmap` and autograd resolved, and the trace is compiled: once, for
    one number of `rows`, without guards.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._compiled: Callable[..., Tensor] | None = None

    def __call__(self, function: Callable[..., Tensor], inputs: tuple[Any, ...]) -> Tensor:
        """Evaluate the function of the first call on these inputs.

        Pass all tensors that may differ between calls as inputs: the program treats others as constants.
        """
        tensors, structure = pytree.tree_flatten(inputs)
        if self._compiled is None:
            self._compiled = _compiled(lambda *flat: function(*pytree.tree_unflatten(list(flat), structure)), tensors)
        return self._compiled(*tensors)


def _compiled(function: Callable[..., Tensor], tensors: list[Any]) -> Callable[..., Tensor]:
    examples = [t.clone() if isinstance(t, Tensor) else t for t in tensors]
    with no_garbage_collection():
        with torch.enable_grad():
            traced = make_fx(lambda *flat: (function(*flat),))(*examples)
        write_transposed_products_directly(traced)
        compiled = _compiled_by_inductor(traced, examples)
    return lambda *flat: compiled(*flat)[0]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Suspend garbage collection: a compiler makes millions of objects, and would spend a tenth of its time in it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@torch.no_grad()
def _compiled_by_inductor(traced: GraphModule, examples: list[Any]) -> Callable[..., Any]:
    from torch._inductor import config, standalone_compile  # takes seconds to import

    try:
        # Otherwise it compiles and starts six programs to test the instructions of the processor: ten seconds.
        with config.patch({"cpp.vec_isa_ok": True}):
            return standalone_compile(traced, examples, dynamic_shapes="from_example_inputs")
    except Exception:  # a compiler may be older than the processor
        return standalone_compile(traced, examples, dynamic_shapes="from_example_inputs")


def write_transposed_products_directly(traced: GraphModule) -> None:
    """Replace each (AB)' by B'A'.

    Gradients of weights are such products. To transpose a large one costs as much as the product.
    """
    for node in list(traced.graph.nodes):
        product = _transposed_product(node)
        if product is None:
            continue
        with traced.graph.inserting_before(node):
            factors = [traced.graph.call_function(aten.transpose.int, (f, 1, 2)) for f in reversed(product.args)]
            node.replace_all_uses_with(traced.graph.call_function(aten.bmm.default, tuple(factors)))
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _transposed_product(node: Node) -> Any:
    """The product that this node transposes, if it is used nowhere else; otherwise None."""
    args: Any = node.args
    if node.target is not aten.transpose.int or sorted(d % 3 for d in args[1:]) != [1, 2]:
        return None
    product = args[0]
    if product.target is aten.view.default and list(product.args[1]) == list(product.args[0].meta["val"].shape):
        product = product.args[0]
    return product if product.target is aten.bmm.default and len(product.users) == 1 else None
