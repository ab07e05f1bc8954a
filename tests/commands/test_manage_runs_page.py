from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bnstudy.commands import prune
from bnstudy.store.runs import Store
from tests.commands.conftest import FINISHED, SHARED
from tests.conftest import Command

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "manage-runs.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.M | re.S)
LINES = [line for block in BLOCKS for line in block.splitlines()]
IDS = {"0a1b2c3d": SHARED[:8], "5e6f7a8b": FINISHED[3].run_id[:8]}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.partition("  ")[0])
def test_a_command_of_the_page_works(command: Command, store: Store, monkeypatch: pytest.MonkeyPatch, line: str):
    monkeypatch.setattr(prune, "is_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "1" if "--plan" in line else "y")
    words = [IDS.get(word, word) for word in shlex.split(line, comments=True)]
    status, out, err = command(*words[1:])
    assert (status, err) == (0, "")
    assert out
    assert store.results_dir.is_dir()
