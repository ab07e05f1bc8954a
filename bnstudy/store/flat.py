"""A run as columns of a table: dotted keys with plain values. Needs no pandas, unlike `store/loading.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def spec_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as columns: the class name under the group's key, its fields below it."""
    columns: dict[str, Any] = {}
    for key, node in config.items():
        if isinstance(node, Mapping) and "_target_" in node:
            columns[key] = _own_name(key, node) or node["_target_"].rsplit(".", 1)[-1]
            columns.update(flatten(node, f"{key}."))
        elif isinstance(node, Mapping):
            columns[key] = "+".join(node) or "none"
        else:
            columns[key] = node
    return columns


class SpecColumns:
    """`spec_columns` for specs that share nodes: the columns of each node are made once."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, int], tuple[Any, dict[str, Any]]] = {}

    def __call__(self, config: Mapping[str, Any]) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for key, node in config.items():
            if isinstance(node, dict):
                columns.update(self.of(key, node))
            else:
                columns[key] = node
        return columns

    def of(self, key: str, node: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of one entry of a spec."""
        if (key, id(node)) not in self._columns:
            self._columns[key, id(node)] = node, spec_columns({key: node})  # the node keeps its id
        return self._columns[key, id(node)][1]


def _own_name(key: str, node: Mapping[str, Any]) -> str | None:
    """The name of a dataset, or of the class or function that makes a network which knows nothing of bnstudy."""
    if key == "model" and isinstance(node.get("target"), str):
        return str(node["target"]).rsplit(".", 1)[-1]
    return node.get("name") if key == "data" else None


def summary_columns(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as columns, without the long text of `test_correct` and the hashes."""
    aside = ("run_id", "test_correct", "integrity")
    return flatten({key: value for key, value in summary.items() if key not in aside})


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat
