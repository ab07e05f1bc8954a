"""The subcommands, `bnstudy list` and the like: one module each, with `run(arguments) -> exit status`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

SUBCOMMANDS: dict[str, str] = {}
"""What each does, by its name, which is that of its module."""


def run(name: str, arguments: Sequence[str]) -> int:
    """Carry out a subcommand; its exit status."""
    return int(import_module(f"bnstudy.commands.{name}").run(arguments))
