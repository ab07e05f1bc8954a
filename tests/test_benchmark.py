from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


@pytest.mark.slow
def test_the_runner_is_measured_against_plain_loops(tmp_path):
    """That it measures, not what: speed has no place in a test."""
    figures = tmp_path / "figures.json"
    options = [f"data.root={tmp_path}/none", "--steps", "3", "--repeats", "2", "--threads", "1", "--json", figures]
    done = subprocess.run([sys.executable, SCRIPT, "runner", *options], capture_output=True, text=True, check=True)
    tasks = json.loads(figures.read_text())["tasks"]
    assert [task["task"].split(",")[0] for task in tasks] == ["MLP 784-100-100-100-10", "ResNet-8"]
    for task in tasks:
        assert set(task["loops"]) >= {"bare", "runner", "dataloader"}
        assert task["loops"]["bare"]["ratio_to_bare"] == 1
        assert all(len(loop["ms_per_step"]) == 2 for loop in task["loops"].values())
    assert "random 1x28x28" in done.stdout
