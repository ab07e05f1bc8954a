"""Commands whose streams are closed or full, and Ctrl-C while they import."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnstudy.config.console import interruptible
from scripts.kill_test import ENTRY, ENVIRONMENT

RUN = ["steps=5", "model.width=8", "threads=1"]


def shell(line: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `line` in a shell, in which "$@" is bnstudy with the arguments."""
    command = ["bash", "-c", line, "bash", *ENTRY, *arguments]
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_command_without_streams_trains(tmp_path):
    done = shell('"$@" <&- >&- 2>&-', tmp_path, "-m", "seed=0,1", *RUN, "hydra.launcher.executor=processes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list(tmp_path.glob("results/runs/*/summary.json"))) == 2


@pytest.mark.parametrize(
    ("line", "status", "out", "err"),
    [
        ('"$@" >/dev/full', 1, "", "bnstudy: The output cannot be written (No space left on device).\n"),
        ('"$@" >&-', 0, "", ""),
        ('"$@" 2>&-', 0, "bnstudy 0.1.0\n", ""),
        ('"$@" 2>/dev/full', 0, "bnstudy 0.1.0\n", ""),
    ],
)
def test_an_output_that_cannot_be_written_is_a_sentence(tmp_path, line, status, out, err):
    done = shell(line, tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_a_mistake_has_its_status_even_if_nothing_can_be_printed(tmp_path):
    assert shell('"$@" >/dev/full 2>/dev/full', tmp_path, "lr").returncode == 2


SLOW_MODULE = """
import time
print("importing", flush=True)
end = time.monotonic() + 0.5
while time.monotonic() < end:
    try:
        time.sleep(0.01)
    except:  # as modules do around what they may lack
        pass
"""

IMPORTING = """
import sys
from bnstudy.config.console import interruptible
with interruptible("bnstudy"):
    import slow_module
    print("trained")
"""


CONFIGURING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from omegaconf import OmegaConf, omegaconf
from bnstudy.config.console import interruptible
wrap = omegaconf._node_wrap
def interrupted(**node):
    if node["value"] == 2:
        signal.raise_signal(signal.SIGINT)
    return wrap(**node)
omegaconf._node_wrap = interrupted
with interruptible("bnstudy"):
    try:
        OmegaConf.create({"key": [1, 2]})
    except Exception:  # as Hydra does
        pass
    print("trained")
"""


def test_ctrl_c_while_a_configuration_is_built_ends_the_command():
    command = [sys.executable, "-c", CONFIGURING]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "bnstudy: Stopped.\n")


def test_ctrl_c_in_an_import_that_swallows_it_ends_the_command(tmp_path):
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{tmp_path}"}
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{IMPORTING}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "bnstudy: Stopped.\n")
    assert process.returncode == 130


def test_an_error_in_what_ctrl_c_interrupts_is_ctrl_c(command, monkeypatch):
    def fragile(*_):
        try:
            raise KeyboardInterrupt
        finally:
            {}["what the interrupted code was about to set"]

    monkeypatch.setattr("bnstudy.sweep.command.make_plan", fragile)
    assert command("steps=2") == (130, "", "bnstudy: Stopped.\n")


def test_an_ignored_ctrl_c_stays_ignored_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.SIG_IGN, signal.default_int_handler):
            signal.signal(signal.SIGINT, handler)
            with interruptible("bnstudy"):
                inside = signal.getsignal(signal.SIGINT)
            assert (inside is handler) == (handler is signal.SIG_IGN)
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 1.0])
def test_ctrl_c_while_a_command_is_planned_is_one_sentence(tmp_path, delay):
    command = [*ENTRY, "-m", "seed=range(0,5000)", *RUN, "hydra.launcher.executor=processes"]
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "Planning ...\nbnstudy: Stopped.\n")
