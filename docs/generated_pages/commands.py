"""The command line, as its own help describes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bnstudy.commands import SUBCOMMANDS

ROOT = Path(__file__).parents[2]


def page() -> str:
    parts = ["# Command line"]
    for words in ("bnstudy", "bnstudy-report", *(f"bnstudy {name}" for name in SUBCOMMANDS)):
        parts += [f"## {words}", f"```text\n{help_of(*words.split())}\n```"]
    return "\n\n".join(parts)


def help_of(program: str, *words: str) -> str:
    """The text of `--help`, 100 columns wide."""
    entry = {"bnstudy": "main", "bnstudy-report": "report"}[program]
    call = f"import sys; from bnstudy import cli; sys.argv = [{program!r}, *sys.argv[1:]]; cli.{entry}()"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", call, *words, "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()
