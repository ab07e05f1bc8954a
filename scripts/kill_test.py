"""Kill a sweep by SIGKILL at random moments, finish it by the same command, and compare it with an undisturbed one.

    python scripts/kill_test.py [--runs 500] [--kills 5] [--steps 300] [--draw 0] [--dir DIR] [override ...]

The target is random, too: the command with its workers, the command alone, or one of its workers. It prints each kill,
and ends with status 1 if the metrics differ in a byte, a run is missing or a file is left over.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENTRY = [sys.executable, "-c", "from bnstudy.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@dataclass
class Kills:
    """The results of a sweep that was killed several times.

    seconds, training_seconds: of the undisturbed sweep, the latter without the time before training.
    kills: for each kill the seconds since the start, the target and the number of runs stored by then.
    different: the runs whose metrics differ from the undisturbed sweep, or are missing.
    left_over: leases, heartbeats and checkpoints after the end.
    """

    seconds: float = 0.0
    training_seconds: float = 0.0
    kills: list[tuple[float, str, int]] = field(default_factory=list)
    status: int = -1
    different: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return self.status == 0 and not self.different and not self.left_over


def kill_and_compare(overrides: list[str], folder: Path, kills: int, draw: random.Random) -> Kills:
    """Train the sweep undisturbed and disturbed, in two stores under `folder`."""
    found = Kills()
    begin = time.monotonic()
    with start(overrides, folder / "undisturbed") as process:
        wait_for_work(process, folder / "undisturbed")
        working = time.monotonic()
        process.wait()
    found.seconds, found.training_seconds = time.monotonic() - begin, time.monotonic() - working
    disturbed = folder / "disturbed"
    for _ in range(kills):
        with start(overrides, disturbed) as process:
            found.kills.append(strike(process, disturbed, draw, found.training_seconds / max(3, kills / 2)))
    with start(overrides, disturbed) as process:
        found.status = process.wait()
    wanted, got = metrics(folder / "undisturbed"), metrics(disturbed)
    found.different = sorted(run for run in wanted | got if wanted.get(run) != got.get(run))
    found.left_over = left_over(disturbed)
    return found


def start(overrides: list[str], results_dir: Path) -> subprocess.Popen[bytes]:
    results_dir.mkdir(parents=True, exist_ok=True)
    with (results_dir.parent / f"{results_dir.name}.log").open("ab") as log:
        command = [*ENTRY, *overrides, f"results_dir={results_dir}"]
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)


def strike(
    process: subprocess.Popen[bytes], results_dir: Path, draw: random.Random, longest: float
) -> tuple[float, str, int]:
    """Kill the command or a part of it: mostly within `longest` seconds of training, sometimes while it starts."""
    begin = time.monotonic()
    if draw.random() < 0.8:
        wait_for_work(process, results_dir)
        time.sleep(draw.uniform(0, longest))
    else:
        time.sleep(draw.uniform(0, 4))
    target = draw.choice(["all", "the command", "a worker"])
    workers = children(process.pid)
    if process.poll() is not None:
        target = "nobody: it had ended"
    elif target == "a worker" and workers:
        os.kill(draw.choice(workers), signal.SIGKILL)
        time.sleep(draw.uniform(0, 3))
        os.killpg(process.pid, signal.SIGKILL)
        target += ", then all"
    elif target == "the command":
        process.kill()
    else:
        target = "all"
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - begin, target, len(metrics(results_dir))


def wait_for_work(process: subprocess.Popen[bytes], results_dir: Path) -> None:
    """Wait until a worker has a heartbeat."""
    begin = time.time()
    while process.poll() is None:
        if any(path.stat().st_ctime > begin for path in results_dir.glob("workers/*.json")):
            return
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The worker processes of a command: its children, or those of the server that forks them for it."""
    below: dict[int, list[int]] = {}
    commands = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):  # it ended meanwhile
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(process.name)] = (process / "cmdline").read_bytes()
            below.setdefault(parent, []).append(int(process.name))
    spawned = [child for child in below.get(pid, []) if b"spawn_main" in commands[child]]
    servers = [child for child in below.get(pid, []) if b"forkserver" in commands[child]]
    return spawned + [child for server in servers for child in below.get(server, [])]


def metrics(results_dir: Path) -> dict[str, bytes]:
    """The finished runs' tables."""
    stored = results_dir.glob("runs/*/summary.json")
    return {path.parent.name: (path.parent / "metrics.parquet").read_bytes() for path in stored}


def left_over(results_dir: Path) -> list[str]:
    """Leases, heartbeats, checkpoints and errors, which only unfinished runs have.

    The lease of a worker that was killed right after it stored the run does not count: nobody looks at it again.
    """
    patterns = ("runs/*/lease.*", "workers/*", "runs/*/checkpoint*", "runs/*/error.txt")
    found = [path for pattern in patterns for path in results_dir.glob(pattern)]
    harmless = [path for path in found if path.name.startswith("lease.") and (path.parent / "summary.json").exists()]
    return sorted(str(path.relative_to(results_dir)) for path in {*found} - {*harmless})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="steps of each run")
    parser.add_argument("--draw", type=int, default=0, help="seed of the moments and targets")
    parser.add_argument("--dir", type=Path, help="folder of the stores; default: a temporary folder")
    parser.add_argument("overrides", nargs="*", help="further overrides of the command")
    options = parser.parse_args()
    sweep = ["-m", f"seed=range(0,{-(-options.runs // 2)})", "norm=none,batch", f"steps={options.steps}"]
    sweep += ["model.width=32", "threads=1", "checkpoint_seconds=1", *options.overrides]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.dir or Path(temporary)
        found = kill_and_compare(sweep, folder, options.kills, random.Random(options.draw))
        runs = len(metrics(folder / "undisturbed"))
    print(f"bnstudy {' '.join(sweep)}")
    print(f"{runs} runs, undisturbed in {found.seconds:.0f} s")
    for seconds, target, stored in found.kills:
        print(f"killed after {seconds:.1f} s: {target}; {stored} runs stored")
    print(f"the last command ended with status {found.status}")
    print(f"{len(found.different)} runs with other metrics.parquet than undisturbed: {found.different[:5]}")
    print(f"{len(found.left_over)} files left over: {found.left_over[:5]}")
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
