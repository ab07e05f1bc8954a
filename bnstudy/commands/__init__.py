"""The subcommands, `bnstudy list` and the like: one module each, with `run(arguments) -> exit status`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

SUBCOMMANDS: dict[str, str] = {
    "list": "the studies and claims, and what of them is in the store; with --runs its runs",
    "show": "one run: its settings, its results, where its files are",
    "status": "what is being trained in the store now, and what is still to do",
    "diff": "the settings in which two runs differ",
    "prune": "remove runs: unfinished, failed or damaged ones, or those of a study",
    "pack": "the finished runs of a store as a few files, to ship or publish",
    "unpack": "a store from what pack made",
    "export": "the metrics of stored runs, for TensorBoard, as CSV files or for another logger",
}
"""What each does, by its name, which is that of its module."""


def flags(name: str) -> list[str]:
    """The flags of a subcommand, for the shell's completion."""
    own = getattr(import_module(f"bnstudy.commands.{name}"), "FLAGS", ())
    return ["--help", "--config-dir", *(f"--{flag}" for flag in own)]


def run(name: str, arguments: Sequence[str]) -> int:
    """Carry out a subcommand; its exit status."""
    return int(import_module(f"bnstudy.commands.{name}").run(arguments))
