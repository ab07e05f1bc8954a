from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


@pytest.fixture
def benchmark(tmp_path):
    """`benchmark("runner", ...)` runs the script: (its output, its results)."""

    def run(measure: str, *options: str) -> tuple[str, dict]:
        results = tmp_path / "results.json"
        command = [sys.executable, SCRIPT, measure, f"data.root={tmp_path}/none", *options, "--json", results]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout, json.loads(results.read_text())

    return run


# These tests check that the script measures, not how fast the machine is.


@pytest.mark.slow
def test_the_runner_is_compared_with_plain_loops(benchmark):
    printed, results = benchmark("runner", "--steps", "1", "--repeats", "1", "--threads", "1")
    tasks = results["tasks"]
    assert [task["task"].split(",")[0] for task in tasks] == ["MLP 784-100-100-100-10", "ResNet-8"]
    for task in tasks:
        assert set(task["loops"]) >= {"bare", "runner", "dataloader"}
        assert task["loops"]["bare"]["ratio_to_bare"] == 1
        assert all(len(loop["ms_per_step"]) == 1 for loop in task["loops"].values())
    assert "random 1x28x28" in printed


@pytest.mark.slow
def test_sweeps_are_timed_as_whole_commands(benchmark):
    printed, results = benchmark("sweep", "--try-out", "--only", "quickstart", "recording")
    rows = results["tasks"]["rows"]
    assert set(rows) == {"quickstart", "recording"}
    assert all(row["what"] in printed and row["target"] for of_name in rows.values() for row in of_name)
    [row] = rows["quickstart"]
    assert row["raw"]["runs"] == 2
    assert row["raw"]["study"] > 0
    assert row["ok"] is False  # too few runs to be a quickstart


@pytest.mark.slow
def test_reports_from_packed_stores_are_compared_with_folders(benchmark):
    _, results = benchmark("sweep", "--try-out", "--repeats", "1", "--only", "packed")
    whole, thin, whole_against, thin_against = results["tasks"]["rows"]["packed"]
    assert [len(whole["raw"][store]) for store in ("store", "whole", "thin")] == [1, 1, 1]
    assert whole_against["raw"]["seconds"] == whole["raw"]["value"]
    assert thin_against["raw"]["seconds"] == thin["raw"]["value"]


@pytest.mark.slow
def test_probe_presets_are_measured_with_both_engines(benchmark):
    printed, results = benchmark("probes", "--steps", "1", "--repeats", "1", "--presets", "standard")
    assert [(cost["engine"], cost["preset"]) for cost in results["tasks"]] == [
        ("serial", "standard"),
        ("stacked", "standard"),
    ]
    for cost in results["tasks"]:
        assert {"gradients", "dead_units"} <= set(cost["by_probe"])
        assert cost["by_clock"] == pytest.approx(sum(cost["by_probe"].values()))
    assert "must be at most 5%" in printed


def test_descendants_include_all_processes_of_a_command(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from benchmarks.commands import descendants, kilobytes

    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        outer.stdout.readline()
        found = descendants(outer.pid)
        assert len(found) == 2
        assert all(kilobytes(pid, "status", "VmHWM:") > 1000 for pid in found)
        outer.communicate(b"\n")
    assert descendants(outer.pid) == [outer.pid]
    assert kilobytes(outer.pid, "status", "VmHWM:") == 0
