"""Runs and sweeps from Python are those of the command line."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra

import bnstudy
from bnstudy import ConfigError, RunsFailed
from bnstudy.api.training import value_text
from bnstudy.store.files import conf_dir
from bnstudy.store.plans import Plans
from bnstudy.sweep.signals import Interrupted

SHORT = {"steps": 10, "model.width": 16, "probe": "none", "progress": False}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_sweep_is_that_of_the_command_line(command):
    frame = bnstudy.sweep(["norm=none,batch", "seed=range(0,2)"], lr=[0.1, 1], results_dir="mine", **SHORT)
    words = ["-m", "norm=none,batch", "seed=range(0,2)", "lr=0.1,1", "steps=10", "model.width=16", "probe=none"]
    _, out, _ = command(*words, "results_dir=theirs")
    typed = [line.split()[0] for line in out.splitlines()[1:]]
    assert list(frame["run_id"]) == typed
    expected = bnstudy.load_runs("theirs").set_index("run_id").loc[typed].reset_index()
    same = [c for c in frame if not c.startswith(("seconds", "probe_seconds", "integrity"))]
    pd.testing.assert_frame_equal(frame[same], expected[same])


def test_a_run_is_a_row_and_is_not_trained_again(capfd):
    first = bnstudy.run("norm=batch", lr=0.1, **SHORT)
    again = bnstudy.run(["norm=batch", "lr=0.1"], **SHORT)
    assert isinstance(first, pd.Series)
    assert (first["norm"], first["lr"], first["status"]) == ("BatchNorm", 0.1, "finished")
    assert first["seconds.total"] == again["seconds.total"]
    assert len(bnstudy.load_runs()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_study_is_planned_under_the_command_that_repeats_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebook", "-f", "kernel.json"])
    frame = bnstudy.sweep("study=dead_relu", scale="quick", refine=False, lr=0.1, seed=range(2), **SHORT)
    plans = Plans(Path("results"))
    (plan,) = plans.load(plans.find("dead_relu"))
    (command,) = plan["commands"]
    assert command.startswith("bnstudy study=dead_relu scale=quick refine=False lr=0.1 seed=0,1 steps=10")
    assert set(plan["run_ids"]) == set(frame["run_id"])


def test_a_dry_run_trains_nothing(capfd):
    assert bnstudy.sweep(seed=[0, 1], dry_run=True, **SHORT).empty
    assert bnstudy.run(dry_run=True, **SHORT).empty
    assert "2 runs: 0 finished, 2 to do" in capfd.readouterr().out


def test_a_key_is_left_out_as_on_the_command_line():
    probes = bnstudy.run("~probe.weights", steps=10, progress=False)["probe"].split("+")
    assert "gradients" in probes
    assert "weights" not in probes


def test_a_damaged_run_raises_when_the_others_are_stored():
    run_id = bnstudy.run(**SHORT)["run_id"]
    Path("results/runs", run_id, "metrics.parquet").write_bytes(b"nothing")
    with pytest.raises(RunsFailed, match=f"1 of 2 runs failed; the others are stored:\n.*{run_id}"):
        bnstudy.sweep(seed=[0, 1], **SHORT)
    with pytest.warns(UserWarning, match=run_id):
        stored = bnstudy.load_metrics()["run_id"].unique()
    assert bnstudy.load_runs().set_index("run_id").loc[stored, "seed"].tolist() == [1]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: bnstudy.run(norm="bacth"), "norm=bacth is not known; did you mean batch"),
        (lambda: bnstudy.run(lr=-1, **SHORT), "lr=-1 is not allowed: it must be a number above 0"),
        (lambda: bnstudy.run("lr=0.1,1"), "lr=0.1,1 lists several values: train them with bnstudy.sweep"),
        (lambda: bnstudy.run(lr=[0.1, 1], **SHORT), "To sweep values, give bnstudy.sweep a list of them"),
        (lambda: bnstudy.run(norm=["none", "batch"]), "lists several values: train them with bnstudy.sweep"),
        (lambda: bnstudy.run(study="quickstart"), "study=quickstart is a sweep: train it with bnstudy.sweep"),
        (lambda: bnstudy.sweep("--help"), "'--help' is not allowed as an override"),
        (lambda: bnstudy.sweep(["lr"]), "'lr' is not allowed as an override: write key=value"),
        (lambda: bnstudy.sweep(lr=object()), "is not allowed as a value"),
        (lambda: bnstudy.sweep({"hydra/sweeper=optuna"}), "use the command line for it"),
        (lambda: bnstudy.sweep("lr=[0.1"), "cannot be read"),
        (lambda: bnstudy.sweep(config_dir="nowhere"), "nowhere is not allowed: there is no such folder"),
    ],
)
def test_a_mistake_raises_the_sentence_of_the_command_line(call, sentence):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as found:
        call()
    assert sentence in str(found.value)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("value", "one", "several"),
    [
        (0.1, "0.1", "0.1"),
        (True, "True", "True"),
        (None, "null", "null"),
        ("none,batch", "none,batch", "none,batch"),
        (Path("a/b"), "a/b", "a/b"),
        (np.float64(1e-5), "1e-05", "1e-05"),
        (range(3), "[0,1,2]", "0,1,2"),
        (np.array([1, 2]), "[1,2]", "1,2"),
        ([[64, 64], [32]], "[[64,64],[32]]", "[64,64],[32]"),
        ({"a": [1, 2]}, "{a:[1,2]}", "{a:[1,2]}"),
    ],
)
def test_a_value_is_written_as_it_would_be_typed(value, one, several):
    assert value_text(value, several=False) == one
    assert value_text(value, several=True) == several


def test_the_callers_hydra_stays_as_it_is():
    with initialize_config_dir(str(conf_dir()), version_base="1.2"):
        own, base = GlobalHydra.instance().hydra, version.getbase()
        bnstudy.run(**SHORT)
        assert (GlobalHydra.instance().hydra, version.getbase()) == (own, base)


def test_the_callers_random_numbers_and_environment_stay_as_they_are(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    before, random = dict(os.environ), torch.get_rng_state()
    bnstudy.run(**SHORT)
    assert "GOMP_SPINCOUNT" not in os.environ
    assert set(os.environ) - set(before) <= {"TORCHINDUCTOR_CACHE_DIR"}  # torch sets it
    assert torch.equal(torch.get_rng_state(), random)


def test_it_works_in_an_event_loop_and_in_threads():
    async def main() -> str:
        return bnstudy.run(**SHORT)["status"]

    found = [asyncio.run(main())]
    threads = [
        threading.Thread(target=lambda seed=seed: found.append(bnstudy.run(seed=seed, **SHORT)["status"]))
        for seed in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["finished"] * 3


def test_an_interrupted_sweep_raises_keyboard_interrupt(monkeypatch):
    def stop(*_, **__):
        raise Interrupted(2)

    monkeypatch.setattr("bnstudy.sweep.command.run", stop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            bnstudy.run(**SHORT)
    finally:
        signal.signal(signal.SIGINT, before)


SCRIPT = """
import bnstudy
print(len(bnstudy.sweep("seed=range(0,4)", steps=10, progress=False, **{"hydra.launcher.executor": "processes"})))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
def test_worker_processes_do_not_run_a_script_without_a_guard_again(how):
    Path("script.py").write_text(SCRIPT)
    arguments = {"file": ["script.py"], "-c": ["-c", SCRIPT], "stdin": ["-"]}[how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *arguments], input=SCRIPT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.stderr, done.returncode) == ("4\n", "", 0)


IMPORTS = [
    "import bnstudy",
    "import bnstudy.sweep.plan, bnstudy.run, bnstudy.report.report",
    "from bnstudy import sweep, run, report",
    "from bnstudy.run import RunSpec",
]


@pytest.mark.slow
def test_the_functions_are_there_in_every_order_of_imports():
    check = (
        "import bnstudy\n"
        "assert all(callable(getattr(bnstudy, name)) for name in ('run', 'sweep', 'report'))\n"
        "assert bnstudy.sweep.plan.make_plan and bnstudy.run.RunSpec and bnstudy.report.result.ReportResult\n"
        "from bnstudy import run, sweep, report\n"
        "assert (run, sweep, report) == (bnstudy.run, bnstudy.sweep, bnstudy.report)\n"
        "try: bnstudy.run(lr=-1, steps=1)\n"
        "except bnstudy.ConfigError: print('called')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for first in range(len(IMPORTS)):
        order = [*IMPORTS[first:], *IMPORTS[:first]]
        code = "\n".join([*order, "import bnstudy.sweep.plan, bnstudy.report.result", check])
        assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "called\n"


def test_the_functions_have_a_signature_and_can_be_sent_to_another_process():
    assert list(inspect.signature(bnstudy.sweep).parameters) == ["overrides", "config_dir", "values"]
    assert list(inspect.signature(bnstudy.report).parameters)[:2] == ["study", "results_dir"]
    assert pickle.loads(pickle.dumps(bnstudy.run)) is bnstudy.run


def test_only_public_names_are_listed():
    assert dir(bnstudy) == sorted(bnstudy.__all__)
