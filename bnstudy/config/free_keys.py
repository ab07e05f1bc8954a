"""Mappings that take any key: the arguments of a plain module. Hydra refuses keys that a config does not have."""

from __future__ import annotations

FREE = "model.kwargs"


def free_root(key: str) -> str:
    """The mapping that takes this key, or else the key itself."""
    return FREE if key.startswith(f"{FREE}.") else key


def with_free_key(override: str) -> str:
    """An override, as typed, in the form by which Hydra adds keys."""
    return f"++{override}" if free_root(override.partition("=")[0]) == FREE else override


def as_typed(override: str) -> str:
    """The inverse of `with_free_key`, for messages."""
    return override.removeprefix("++") if override.startswith(f"++{FREE}") else override
