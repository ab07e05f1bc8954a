"""Kill a sweep by SIGKILL at random moments, finish it by the same command, and compare it with an undisturbed one.

    python scripts/kill_test.py [--runs 500] [--kills 100] [--steps 300] [--draw 0] [--dir DIR] [override ...]

The target is random, too: the command with its workers, the command alone, one of its workers, or the server that forks
them. It prints each kill, and ends with status 1 if the metrics differ in a byte, a run is missing or a file is left
over.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Under nohup or in the background this script ignores signals, as would its commands.
HEARING = "from signal import *; signal(SIGHUP, SIG_DFL); signal(SIGINT, default_int_handler)"
ENTRY = [sys.executable, "-c", f"{HEARING}; from bnstudy.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@dataclass
class Comparison:
    """A sweep that was killed, compared with an undisturbed one.

    status: exit status of the last command.
    runs: number of runs of the undisturbed sweep.
    different: the runs whose metrics differ from the undisturbed sweep, or are missing.
    left_over: leases, heartbeats, checkpoints, errors and temporary files after the end.
    """

    status: int
    runs: int
    different: list[str]
    left_over: list[str]


def kill_and_compare(overrides: list[str], folder: Path, kills: int, draw: random.Random) -> Comparison:
    """Train the sweep undisturbed and disturbed, in two stores under `folder`, and print each kill.

    A disturbed sweep that is complete is compared and begun again.
    """
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    with start(overrides, undisturbed) as process:
        wait_for_work(process, undisturbed)
        begin = time.monotonic()
        process.wait()
    seconds, runs = time.monotonic() - begin, len(metrics(undisturbed))
    print(f"undisturbed: {seconds:.0f} s of training")
    different: list[str] = []
    for _ in range(kills):
        with start(overrides, disturbed) as process:
            strike(process, disturbed, draw, seconds / 3)
        if len(metrics(disturbed)) == runs:  # the next kill begins the sweep again
            different += different_runs(undisturbed, disturbed)
            shutil.rmtree(disturbed)
    with start(overrides, disturbed) as process:
        status = process.wait()
    different += different_runs(undisturbed, disturbed)
    return Comparison(status, runs, different, left_over(disturbed))


def different_runs(undisturbed: Path, disturbed: Path) -> list[str]:
    """The runs whose metrics differ in a byte, or are missing."""
    wanted, got = metrics(undisturbed), metrics(disturbed)
    return sorted(run for run in wanted | got if wanted.get(run) != got.get(run))


def start(overrides: list[str], results_dir: Path) -> subprocess.Popen[bytes]:
    results_dir.mkdir(parents=True, exist_ok=True)
    with (results_dir.parent / f"{results_dir.name}.log").open("ab") as log:
        command = [*ENTRY, *overrides, f"results_dir={results_dir}"]
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)


def strike(process: subprocess.Popen[bytes], results_dir: Path, draw: random.Random, longest: float) -> None:
    """Kill the command or a part of it: mostly within `longest` seconds of training, sometimes while it starts."""
    begin = time.monotonic()
    if draw.random() < 0.8:
        wait_for_work(process, results_dir)
        time.sleep(draw.uniform(0, longest))
    else:
        time.sleep(draw.uniform(0, 4))
    parts = {"a worker": children(process.pid), "the fork server": servers(process.pid)}
    target = draw.choice(["all", "the command", *(name for name, pids in parts.items() if pids)])
    if process.poll() is not None:
        target = "nobody: it had ended"
    elif target == "the command":
        process.kill()
    else:
        if target in parts:  # the command goes on without it
            with suppress(ProcessLookupError):
                os.kill(draw.choice(parts[target]), signal.SIGKILL)
            time.sleep(draw.uniform(0, 3))
            target += ", then all"
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    print(f"killed after {time.monotonic() - begin:.1f} s: {target}; {len(metrics(results_dir))} runs stored")


def wait_for_work(process: subprocess.Popen[bytes], results_dir: Path) -> None:
    """Wait until a worker has a heartbeat."""
    begin = time.time()
    while process.poll() is None:
        if any(path.stat().st_ctime > begin for path in results_dir.glob("workers/*.json")):
            return
        time.sleep(0.02)


@dataclass(frozen=True)
class Process:
    """A process of this machine; `state` is a letter, Z if it is dead, but for its parent to notice."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    command: bytes


def processes() -> list[Process]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):  # it ended meanwhile
            head, _, rest = (folder / "stat").read_text(errors="replace").rpartition(")")
            state, parent, _, session = rest.split()[:4]
            name, command = head.partition("(")[2], (folder / "cmdline").read_bytes()
            found.append(Process(int(folder.name), name, state, int(parent), int(session), command))
    return found


def servers(pid: int) -> list[int]:
    """The server that forks the workers of a command."""
    return [process.pid for process in processes() if process.parent == pid and b"forkserver" in process.command]


def children(pid: int) -> list[int]:
    """The worker processes of a command: its children, or those of the server that forks them for it."""
    parents, everything = servers(pid), processes()
    spawned = [process.pid for process in everything if process.parent == pid and b"spawn_main" in process.command]
    return spawned + [process.pid for process in everything if process.parent in parents]


def metrics(results_dir: Path) -> dict[str, bytes]:
    """The finished runs' tables."""
    stored = results_dir.glob("runs/*/summary.json")
    return {path.parent.name: (path.parent / "metrics.parquet").read_bytes() for path in stored}


def left_over(results_dir: Path) -> list[str]:
    """Leases, heartbeats, checkpoints and errors, which only unfinished runs have, and temporary files.

    The lease of a worker that was killed right after it stored the run does not count: nobody looks at it again.
    """
    patterns = ("runs/*/lease.*", "workers/*", "runs/*/checkpoint*", "runs/*/error.txt", "runs/*/.*")
    found = [path for pattern in patterns for path in results_dir.glob(pattern)]
    harmless = [path for path in found if path.name.startswith("lease.") and (path.parent / "summary.json").exists()]
    return sorted(str(path.relative_to(results_dir)) for path in {*found} - {*harmless})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300, help="steps of each run")
    parser.add_argument("--draw", type=int, default=0, help="seed of the moments and targets")
    parser.add_argument("--dir", type=Path, help="folder of the stores; default: a temporary folder")
    parser.add_argument("overrides", nargs="*", help="further overrides of the command")
    options = parser.parse_args()
    sweep = ["-m", f"seed=range(0,{-(-options.runs // 2)})", "norm=none,batch", f"steps={options.steps}"]
    sweep += ["model.width=32", "threads=1", "checkpoint_seconds=1", *options.overrides]
    with tempfile.TemporaryDirectory() as temporary:
        found = kill_and_compare(sweep, options.dir or Path(temporary), options.kills, random.Random(options.draw))
    print(f"bnstudy {' '.join(sweep)}")
    print(f"the last command ended with status {found.status}")
    print(f"{len(found.different)} of {found.runs} runs differ from undisturbed: {found.different[:5]}")
    print(f"{len(found.left_over)} files left over: {found.left_over[:5]}")
    return int(bool(found.status or found.different or found.left_over))


if __name__ == "__main__":
    sys.exit(main())
