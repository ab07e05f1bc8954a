"""A function of tensors, recorded once as a list of torch operations, and then executed without its Python code.

A step of a stack spends a good part of its time in the Python code of modules, `vmap` and autograd, and in operations
that they leave behind: copies, views, and values that are computed twice. One execution shows all operations, as shapes
are the same at each step. A few rewritings, none of which knows a network, remove what is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class NotRecorded(Exception):  # noqa: N818
    """A function cannot be recorded; says why."""


class Program:
    """The operations of a function of some tensors, which is executed once to record them.

    Inputs of later calls must be laid out like these, which are different tensors. All other tensors are constants, by
    reference: the program reads and changes in place what the function reads and changes.
    """

    def __init__(self, function: Callable[..., Any], *inputs: Tensor) -> None:
        """Raises NotRecorded: the operations may be others in another call; the function was executed all the same."""
        with Recorder(inputs) as recorder:
            result = function(*inputs)
        values, self._structure = pytree.tree_flatten(result)
        graph = recorder.finish(values)
        tidy(graph)
        self._run = executable(graph)

    def __call__(self, *inputs: Tensor) -> Any:
        with torch.no_grad():
            return pytree.tree_unflatten(self._run(*inputs), self._structure)


class Recorder(TorchDispatchMode):
    """Records the operations that are executed in this mode. A node has its result as `meta["tensor"]`, and where that
    is in memory as `meta["storage"]`, which rewritings change.

    Tensors that were there before, and views of them, are constants of the graph.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._graph = Graph()
        self._nodes: dict[int, Node] = {}
        self._tensors: list[Tensor] = []  # kept alive, so that no other tensor gets their ids
        self._made: set[int] = set()
        self._constants: dict[Any, Node] = {}
        self._read: set[int] = set()
        self._untold = False
        for i, tensor in enumerate(inputs):
            self._define(self._graph.placeholder(f"input{i}"), tensor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: otherwise torch imports its compiler here, more than a second, to keep it away from this class."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is aten.lift_fresh.default:  # a literal such as `torch.tensor([1.0])`: each execution has its own
            self._define(self._graph.call_function(aten.clone.default, (self._node(out.clone()),)), out)
            return out
        if depends_on_values(func, args):
            self._read |= {storage(value) for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        if func._schema.is_mutable or not self._are_views_of_constants(func, out):
            nodes: Any = map_aggregate((args, kwargs or {}), self._node_or_value)
            self._define(self._graph.call_function(func, *nodes), out)
        return out

    def finish(self, results: list[Tensor]) -> Graph:
        """The graph. Raises NotRecorded: the function read a number, or changed a tensor unseen."""
        self._graph.output([self._node(tensor) for tensor in results])
        if self._read & (self._made | {*first_changes(self._graph)}):
            raise NotRecorded("its Python code reads a number from a tensor that changes")
        if self._untold:
            raise NotRecorded("it makes views of a tensor that torch does not show")
        return self._graph

    def _are_views_of_constants(self, func: OpOverload, out: Any) -> bool:
        is_view = all(returned.alias_info is not None for returned in func._schema.returns)
        tensors = pytree.tree_leaves(out)
        return is_view and all(isinstance(t, Tensor) and storage(t) not in self._made for t in tensors)

    def _define(self, node: Node, out: Any) -> None:
        if isinstance(out, tuple | list):
            for i, part in enumerate(out):
                self._define(self._graph.call_function(getitem, (node, i)), part)
        elif isinstance(out, Tensor) and id(out) not in self._nodes:  # else an argument that was changed in place
            self._made.add(storage(out))
            self._remember(out, node)

    def _node(self, tensor: Tensor) -> Node:
        """The node of a tensor, which is a constant if no operation made it."""
        if id(tensor) not in self._nodes:
            self._untold |= storage(tensor) in self._made
            key = storage(tensor), layout(tensor)
            if key not in self._constants:
                self._constants[key] = self._graph.create_node("get_attr", f"constant{len(self._constants)}")
            self._remember(tensor, self._constants[key])
        return self._nodes[id(tensor)]

    def _node_or_value(self, value: Any) -> Any:
        return self._node(value) if isinstance(value, Tensor) else value

    def _remember(self, tensor: Tensor, node: Node) -> None:
        self._nodes[id(tensor)] = node
        self._tensors.append(tensor)
        node.meta.update(tensor=tensor, storage=storage(tensor))


def depends_on_values(func: OpOverload, args: Any) -> bool:
    """Whether an operation returns a number, or a tensor whose shape depends on values."""
    if func is aten.index.Tensor:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & {*func.tags})


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """How a tensor reads its storage: two with the same layout and storage have the same values."""
    is_lazy = tensor.is_conj(), tensor.is_neg()
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, is_lazy


# ------------------------------------------------------------------------------------------------------- rewritings


def tidy(graph: Graph) -> None:
    """Remove operations that the results and the changed tensors do not need."""
    remove_identities(graph)
    transpose_factors(graph)
    remove_identities(graph)
    compute_once(graph)
    graph.eliminate_dead_code()
    reuse_memory(graph)


def remove_identities(graph: Graph) -> None:
    """Remove views that show the same as another tensor, and copies, and products with 1, of what does not change."""
    end, uses, views = graph.output_node(), last_uses(graph), dict[Any, Node]()
    # What was there before may change after the end.
    changes = {**dict.fromkeys(outer_storages(graph), end), **first_changes(graph)}
    for node in graph.nodes:
        if "tensor" not in node.meta:
            continue
        key = node.meta["storage"], layout(node.meta["tensor"])
        same = views.setdefault(key, node)
        if same is node and is_copy(node):
            [source], [mine], [theirs] = node.all_input_nodes, storages(node), storages(*node.all_input_nodes)
            if mine not in changes and (theirs not in changes or uses[mine] < changes[theirs]):
                same = views[key] = source
        if same is not node:
            replace(node, same)


def replace(node: Node, other: Node) -> None:
    move(node, other)
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def move(node: Node, other: Node) -> None:
    """Note that a tensor and the views of it are now in the memory of another."""
    old, new = (n.meta.get("storage") for n in (node, other))
    if old != new:
        node.meta["storage"] = new
        for user in node.users:
            for view in (user, *user.users):  # a split has its views as users
                if view.meta.get("storage") == old:
                    move(view, other)


def is_copy(node: Node) -> bool:
    is_product = node.target in (aten.mul.Scalar, aten.mul.Tensor) and node.args[1:] in ((1,), (1.0,))
    source = next(iter(node.all_input_nodes), node)
    copies = is_product or node.target is aten.clone.default
    return copies and layout(source.meta["tensor"]) == layout(node.meta["tensor"])


def first_changes(graph: Graph) -> dict[int, Node]:
    """The first operation that changes each storage in place."""
    changes: dict[int, Node] = {}
    for node in graph.nodes:
        for place, argument in enumerate(node.target._schema.arguments if isinstance(node.target, OpOverload) else ()):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
                for changed in storages(*(leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Node))):
                    changes.setdefault(changed, node)
    return changes


def last_uses(graph: Graph) -> dict[int, Node]:
    """The last operation that makes or uses each storage."""
    return {used: node for node in graph.nodes for used in storages(node, *node.all_input_nodes)}


def storages(*nodes: Node) -> set[int]:
    """Where the tensors are that these operations return."""
    parts = [part for node in nodes if "storage" not in node.meta for part in node.users if part.target is getitem]
    return {node.meta["storage"] for node in (*nodes, *parts) if "storage" in node.meta}


def outer_storages(graph: Graph) -> set[int]:
    """Those of the inputs and constants."""
    return storages(*(node for node in graph.nodes if node.op in ("placeholder", "get_attr")))


def compute_once(graph: Graph) -> None:
    """Replace an operation by an earlier one with the same arguments, if neither these nor the results change."""
    changed, seen = {*first_changes(graph)}, dict[Any, Node]()
    for node in graph.nodes:
        is_random = isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
        if node.op != "call_function" or node.is_impure() or is_random:
            continue
        if changed & storages(node, *node.all_input_nodes):
            continue
        first = seen.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
        if first is not node:
            replace(node, first)


def transpose_factors(graph: Graph) -> None:
    """Replace each (AB)' by B'A'.

    Gradients of weights are such products. To transpose a large one costs as much as the product.
    """
    if graph.find_nodes(op="call_function", target=aten.as_strided.default):
        return  # it needs the strides that were recorded
    changed_layouts = set[Node]()
    for node in list(graph.nodes):
        args: Any = node.args if node.target is aten.transpose.int else [node]
        product, *dims = args
        if product.target is not aten.bmm.default or len(product.users) > 1 or sorted(d % 3 for d in dims) != [1, 2]:
            continue
        with graph.inserting_before(product):  # later, the factors may have changed
            factors = tuple(graph.call_function(aten.transpose.int, (f, 1, 2)) for f in reversed(product.args))
            swapped = graph.call_function(aten.bmm.default, factors)
        for new, old in zip(factors, reversed(product.args), strict=True):
            new.meta.update(tensor=old.meta["tensor"].transpose(1, 2), storage=old.meta["storage"])
        tensor = torch.empty_like(node.meta["tensor"], memory_format=torch.contiguous_format)
        swapped.meta.update(tensor=tensor, storage=storage(tensor))
        replace(node, swapped)
        graph.erase_node(product)
        changed_layouts.add(swapped)
    allow_other_strides(graph, changed_layouts)


def allow_other_strides(graph: Graph, sources: set[Node]) -> None:
    """Let views of tensors, and of what is computed from them, be copies where their strides do not allow a view."""
    changed, found = {*first_changes(graph)}, set(sources)
    for node in graph.nodes:
        if found & {*node.all_input_nodes}:
            found.add(node)
            if node.target in (aten.view.default, aten._unsafe_view.default) and not changed & storages(node):
                node.target = aten.reshape.default


def reuse_memory(graph: Graph) -> None:
    """Compute pointwise operations in place where nobody needs an argument later: less leaves the cache."""
    uses, there_before = last_uses(graph), outer_storages(graph)
    for node in graph.nodes:
        for target, args in in_place(node):
            [mine], [theirs] = storages(node), storages(args[0])
            others = storages(*(other for other in node.all_input_nodes if other is not args[0]))
            if theirs not in there_before | others and uses[theirs] is node:
                node.target, node.args = target, args
                uses[theirs] = uses[mine]
                move(node, args[0])
                break


def in_place(node: Node) -> Iterator[tuple[OpOverload, Any]]:
    """The operations, with their arguments, that write into their first argument what this pointwise one returns."""
    target = node.target
    if isinstance(target, OpOverload) and torch.Tag.pointwise in target.tags and "tensor" in node.meta:
        name = target._schema.name.removeprefix("aten::")
        same: Any = getattr(getattr(aten, f"{name}_", None), target._overloadname, None)
        commutes = target in (aten.add.Tensor, aten.mul.Tensor) and not node.kwargs
        for args in (node.args, node.args[::-1])[: 1 + commutes] if same else ():
            if isinstance(args[0], Node) and layout(args[0].meta["tensor"]) == layout(node.meta["tensor"]):
                yield same, args


# -------------------------------------------------------------------------------------------------------- execution


def executable(graph: Graph) -> Callable[..., list[Any]]:
    """A Python function that executes the graph; it frees each tensor after its last use."""
    last = {used: node for node in graph.nodes for used in node.all_input_nodes}
    values: dict[str, Any] = {"inf": math.inf, "nan": math.nan}

    def text(value: Any) -> str:
        if isinstance(value, Node):
            return value.name
        if isinstance(value, list | tuple):
            inner = "".join(text(v) + ", " for v in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        if value is None or type(value) in (int, bool, float, str):
            return repr(value)
        name = f"value{id(value)}"
        values[name] = value
        return name

    lines, inputs = [], []
    for node in graph.nodes:
        if node.op == "placeholder":
            inputs.append(node.name)
        elif node.op == "get_attr":
            values[node.name] = node.meta["tensor"]
        elif node.op == "output":
            lines.append(f"return {text(node.args[0])}")
        elif node.op == "call_function":
            target = node.target._op if isinstance(node.target, OpOverload) else node.target
            given = [*map(text, node.args), *(f"{key}={text(value)}" for key, value in node.kwargs.items())]
            lines.append(f"{node.name} = {text(target)}({', '.join(given)})")
            dead = [n.name for n in (*node.all_input_nodes, node) if last.get(n, node) is node and n.op != "get_attr"]
            if dead:
                lines.append(f"del {', '.join(dead)}")
    source = "\n    ".join([f"def run({', '.join(inputs)}):", *lines])
    exec(source, values)
    run: Callable[..., list[Any]] = values["run"]
    return run
