"""The table of `benchmark.py sweep`, with given times in place of measured ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from bnstudy.models.mlp import MLP
from bnstudy.models.resnet import ResNet
from bnstudy.models.vgg import VGG
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.store.runs import METRICS_SCHEMA, TIMING_SCHEMA, Store
from bnstudy.train.build import build_model
from tests.conftest import spec_of

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.fixture
def workload(tmp_path):
    from benchmarks.workload import Workload

    return Workload(tmp_path, f"data.root={tmp_path}", repeats=1)


def steps_of(arguments: tuple[str, ...]) -> int:
    return next(int(each.removeprefix("steps=")) for each in arguments if each.startswith("steps="))


@pytest.fixture
def times(monkeypatch):
    """A command takes 3 s and 12 ms a step, JAX 10 s, and the import of torch 2 s; a plain step 1 ms, with two
    processes half of it. Collects the arguments of the commands."""
    from benchmarks import commands, digits

    begun = []

    def run(*arguments, **options):
        begun.append((arguments, options))
        return commands.CommandCost(3 + 0.012 * steps_of(arguments), 2**30, 2**31)

    @contextmanager
    def plain_loops(processes):
        yield SimpleNamespace(seconds_per_step=lambda _: 0.001 / processes)

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(commands, "measure", lambda *_, **__: commands.CommandCost(10, 0, 0))
    monkeypatch.setattr(commands, "import_torch", lambda _: 2.0)
    monkeypatch.setattr(digits, "plain_loops", plain_loops)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    return begun


@pytest.mark.usefixtures("times")
def test_rows_on_digits_are_ratios_of_whole_times(workload):
    from benchmarks.digits import digits

    found = {row.what: (row.measured, row.ok) for row in digits(workload)}
    assert found == {
        "256 runs x 500 steps, empty caches, against a plain loop": ("14.22 x (128.0 s / 9.0 s)", True),
        "256 runs x 500 steps, warm, against a plain loop": ("14.22 x (128.0 s / 9.0 s)", True),
        "256 runs x 200 steps, warm, against a plain loop": ("9.48 x (51.2 s / 5.4 s)", True),
        "256 runs x 4000 steps, warm, against a plain loop": ("20.08 x (1024.0 s / 51.0 s)", True),
        "256 runs x 4000 steps, warm, against 2 processes of plain loops": ("10.04 x (512.0 s / 51.0 s)", True),
        "256 runs x 500 steps, warm, against JAX": ("1.11 x (10.0 s / 9.0 s)", True),
        "256 runs x 4000 steps, warm, against JAX": ("0.20 x (10.0 s / 51.0 s)", False),
        "256 runs x 2 steps, beyond the import of torch (2.0 s)": ("1.0 s", True),
        "memory of 256 runs x 4000 steps": ("1.00 GiB", True),
    }


def test_each_sweep_has_a_store_of_its_own_and_the_first_an_empty_cache(workload, times):
    from benchmarks.digits import digits

    digits(workload)
    stores = [argument for arguments, _ in times for argument in arguments if argument.startswith("results_dir=")]
    assert [steps_of(arguments) for arguments, _ in times] == [500, 500, 200, 2, 4000]
    assert len(set(stores)) == len(times)
    assert len({options["cache"] for _, options in times}) == 1


@pytest.mark.usefixtures("times")
def test_without_jax_its_rows_say_so(workload, monkeypatch):
    from benchmarks.digits import digits

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    skipped = [row for row in digits(workload) if row.what.endswith("JAX")]
    assert len(skipped) == 2
    assert all("jax is not installed" in row.measured and row.ok is None for row in skipped)


def test_a_group_that_fails_leaves_the_others(monkeypatch, capsys):
    from benchmarks import sweep
    from benchmarks.table import at_most

    def fails(_):
        raise SystemExit("bnstudy failed")

    monkeypatch.setattr(sweep, "GROUPS", {"bad": fails, "good": lambda _: [at_most("all", 3.0, 2)]})
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    options = SimpleNamespace(only=["bad", "good"], cores=2, root="data.root=data", repeats=1, try_out=False)
    rows = sweep.measure_sweep(options)["rows"]
    assert [rows["bad"][0]["ok"], rows["good"][0]["ok"]] == [False, False]
    printed = capsys.readouterr()
    assert "bnstudy failed" in printed.err
    assert "all   3.0 s" in printed.out


def test_single_runs_are_compared_with_the_faster_plain_loop(workload, monkeypatch):
    from benchmarks import single

    ours = iter([0.0021, 0.0020])
    monkeypatch.setattr(single, "training_step", lambda *_: next(ours))
    loops = {1: SimpleNamespace(seconds_per_step=lambda _: 0.002), 2: SimpleNamespace(seconds_per_step=lambda _: 0.003)}
    row = single.compare(workload, "an MLP", ("data=digits",), 10, loops)
    assert row.measured == "1.02 x (2.05 ms a step / 2.00 and 3.00 ms)"
    assert row.ok


def test_a_single_runs_step_excludes_evaluation_and_start_up(workload, tmp_path, monkeypatch):
    from benchmarks import commands, single
    from benchmarks.baseline import Task

    def run(*_, **__):
        store = Store(tmp_path / "store")
        store.begin("0123456789ab", {})
        tables = METRICS_SCHEMA.empty_table(), TIMING_SCHEMA.empty_table()
        store.finish(
            "0123456789ab",
            *tables,
            {"status": "finished", "seconds": {"training": 0.5, "evaluation": 0.2, "total": 0.9}},
        )

    monkeypatch.setattr(commands, "run", run)
    task = Task(("model.width=8", "data=digits"), ("batch",), 5, 1, tmp_path / "cache")
    assert single.training_step(workload, task, tmp_path / "store") == 0.1


@pytest.mark.parametrize("model", [MLP(depth=2, width=16), VGG(width=1 / 16), ResNet(width=4)], ids=lambda m: m.group)
@pytest.mark.parametrize(("name", "norm"), [("none", NoNorm()), ("batch", BatchNorm())])
def test_plain_networks_compute_what_ours_compute(model, name, norm, digits):
    from benchmarks.plain import plain_network

    ours = build_model(replace(spec_of(), model=model, norm=norm), digits).train()
    plain = plain_network(model, name, digits.shape, digits.classes)
    vector_to_parameters(parameters_to_vector(ours.parameters()), plain.parameters())
    torch.testing.assert_close(plain(digits.train.x[:8]), ours(digits.train.x[:8]))


def test_plain_loops_are_timed_per_step(tmp_path, monkeypatch):
    from benchmarks import baseline

    baseline.prepare(torch.get_num_threads(), threading.Barrier(1))
    clock = iter([10.0, 10.6])
    monkeypatch.setattr(baseline, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    task = baseline.Task(("model.width=8", "data=digits"), ("none", "batch"), 3, 2, tmp_path)
    assert baseline.work(task) == pytest.approx(0.6 / (3 * 2 * 2))


@pytest.mark.slow
def test_the_script_in_jax_learns_the_digits():
    pytest.importorskip("jax")
    command = [sys.executable, SCRIPTS / "benchmarks" / "jax_loops.py", "100", "--seeds", "1", "--chunk", "8"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert [line[0] for line in lines] == ["none", "batch"]
    assert all(float(line[-1]) > 0.85 for line in lines)
