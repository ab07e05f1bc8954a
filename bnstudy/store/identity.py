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
    return digest({"schema": SCHEMA, "spec": with_former_names(spec)})[:12]


def digest(value: Any) -> str:
    """The SHA-256 of plain data as canonical JSON. Raises ValueError if a number is not finite."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
