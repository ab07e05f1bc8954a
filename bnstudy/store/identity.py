"""The identity of a run: a hash of its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bnstudy.store.renames import with_former_names

SCHEMA = 1
"""Part of every `run_id`. Increase it when a change makes equal specs train differently than before."""


def run_id_of(spec: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the digest of a spec, as plain data with every default, and the schema number."""
    return run_id_of_text(canonical_json(with_former_names(spec)))


class Identities:
    """`run_id_of` for specs that share nodes, as those of `parse_spec` do: each node is encoded once."""

    def __init__(self) -> None:
        self._texts: dict[int, tuple[Any, str]] = {}

    def run_id_of(self, spec: Mapping[str, Any]) -> str:
        if "_target_" in spec:
            return run_id_of(spec)
        return run_id_of_text(f"{{{','.join(f'{_encode(key)}:{self._text(spec[key])}' for key in sorted(spec))}}}")

    def _text(self, node: Any) -> str:
        if not isinstance(node, dict):
            return canonical_json(with_former_names(node))
        if id(node) not in self._texts:
            self._texts[id(node)] = node, canonical_json(with_former_names(node))  # the node keeps its id
        return self._texts[id(node)][1]


def run_id_of_text(spec: str) -> str:
    """The same of a spec with the first names of classes and fields, as canonical JSON."""
    return _digest(f'{{"schema":{SCHEMA},"spec":{spec}}}')[:12]


def digest(value: Any) -> str:
    """The SHA-256 of plain data as canonical JSON. Raises ValueError if a number is not finite."""
    return _digest(canonical_json(value))


def canonical_json(value: Any) -> str:
    """Raises ValueError if a number is not finite."""
    return _encode(value)


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
