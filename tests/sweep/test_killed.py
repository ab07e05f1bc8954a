"""A command that is killed or stopped goes on where it was, and ends with the same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnstudy.store.runs import Store

ENTRY = [sys.executable, "-c", "from bnstudy.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

LONG = ("norm=batch", "model.width=64", "steps=3000", "checkpoint_seconds=0.2", "optim.momentum=0.9", "progress=false")


def metrics(results_dir: str) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in Path(results_dir).glob("runs/*/metrics.parquet")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([*ENTRY, *LONG, f"results_dir={folder}"], env=ENVIRONMENT, check=True)
    return metrics(str(folder))


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_metrics(tmp_path, undisturbed):
    arguments = [*ENTRY, *LONG, f"results_dir={tmp_path}"]
    for _ in range(2):
        with subprocess.Popen(arguments, env=ENVIRONMENT) as process:
            wait_for_checkpoint(tmp_path, process)
            process.kill()
        assert not metrics(str(tmp_path))
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert metrics(str(tmp_path)) == undisturbed
    assert not list(tmp_path.glob("runs/*/checkpoint*"))


DYING = """
import os, signal, sys
from pathlib import Path
from bnstudy.cli import main

replace = Path.replace

def dying_replace(self, target):
    if Path(target).name == {name!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = dying_replace
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.parquet", "summary.json"])
def test_a_run_killed_while_it_writes_a_file_ends_with_the_same_metrics(tmp_path, undisturbed, name):
    arguments = [*LONG, f"results_dir={tmp_path}"]
    killed = subprocess.run([sys.executable, "-c", DYING.format(name=name), *arguments], env=ENVIRONMENT)
    assert killed.returncode == -signal.SIGKILL
    assert not Store(tmp_path).finished()
    subprocess.run([*ENTRY, *arguments], env=ENVIRONMENT, check=True)
    assert metrics(str(tmp_path)) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run_and_the_same_command_resumes_it(tmp_path, undisturbed, signum):
    words = ["checkpoint_seconds=1000" if word.startswith("checkpoint_seconds=") else word for word in LONG]
    arguments = [*ENTRY, *words, f"results_dir={tmp_path}"]
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob("runs/*/config.yaml")):
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signum)
    _, err = process.communicate()
    assert process.returncode == 128 + signum
    assert "the same command goes on" in err
    assert len(list(tmp_path.glob("runs/*/checkpoint.pt"))) == 1
    subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, check=True)
    assert metrics(str(tmp_path)) == undisturbed


def wait_for_checkpoint(results_dir: Path, process: subprocess.Popen[bytes]) -> None:
    """Until there is a checkpoint newer than now."""
    begin = time.time()
    while process.poll() is None:
        if any(path.stat().st_mtime > begin for path in results_dir.glob("runs/*/checkpoint.pt")):
            return
        time.sleep(0.01)
    raise AssertionError("the run ended before it could be killed")
