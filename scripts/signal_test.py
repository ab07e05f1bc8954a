"""Send a sweep signals at random moments: each must end it with the right status and leave nothing behind.

    python scripts/signal_test.py [--signals 200] [--steps 600] [--draw 0] [--dir DIR] [override ...]

SIGINT, SIGTERM or SIGHUP goes to the command alone or, as from a terminal, to its workers, too; sometimes twice. After
each signal the same command goes on; a finished sweep is compared with an undisturbed one and begun again. It prints
each signal, and ends with status 1 if anything is wrong.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.kill_test import different_runs, left_over, metrics, processes, start

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SWEEP = ["-m", "seed=range(0,4)", "norm=none,batch", "model.width=32", "threads=1"]
SWEEP += ["hydra.launcher.executor=processes", "hydra.launcher.workers=2"]


def signal_and_compare(overrides: list[str], folder: Path, signals: int, draw: random.Random) -> list[str]:
    """What was wrong, in words."""
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    begin = time.monotonic()
    faults = [] if start(overrides, undisturbed).wait() == 0 else ["the undisturbed sweep failed"]
    seconds = time.monotonic() - begin
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    for _ in range(signals):
        faults += interrupt(overrides, disturbed, draw, seconds)
        if len(metrics(disturbed)) == len(metrics(undisturbed)):
            faults += compare(undisturbed, disturbed)
            shutil.rmtree(disturbed)
    status = start(overrides, disturbed).wait()
    faults += [f"the last command ended with status {status}"] if status else []
    return faults + compare(undisturbed, disturbed)


def compare(undisturbed: Path, disturbed: Path) -> list[str]:
    different = different_runs(undisturbed, disturbed)
    return ([f"different: {different}"] if different else []) + files_left(disturbed)


def interrupt(overrides: list[str], results_dir: Path, draw: random.Random, longest: float) -> list[str]:
    """Start the command, send it a signal, wait for its end, and return what is wrong then."""
    log = results_dir.with_name(f"{results_dir.name}.log")
    logged = log.stat().st_size if log.exists() else 0
    delay, signum = draw.uniform(0.3, longest), draw.choice(SIGNALS)
    send = draw.choice([os.kill, os.killpg])
    times = draw.choice([1, 1, 1, 2])
    command = start(overrides, results_dir)
    begin = time.monotonic()
    time.sleep(delay)
    for _ in range(times):
        with suppress(ProcessLookupError):
            send(command.pid, signum)
        time.sleep(draw.uniform(0, 0.3) if times > 1 else 0)
    sent = time.monotonic()
    try:
        status = command.wait(120)
    except subprocess.TimeoutExpired:
        status = None
    to = "all" if send is os.killpg else "the command"
    what = f"{signum.name} to {to} x {times} after {delay:.2f} s of {longest:.0f} s: status {status}"
    print(f"{what}, {time.monotonic() - sent:.1f} s later; {len(metrics(results_dir))} runs stored", flush=True)
    # Before it trains, SIGTERM and SIGHUP end a command as they end any program, and so does SIGINT at its very end.
    faults = [] if status in {0, 128 + signum, -signum} else [f"status {status}"]
    with log.open("rb") as file:
        file.seek(logged)
        text = file.read().decode(errors="replace")
    faults += [f"traceback:\n{text}"] if "Traceback" in text or "Exception ignored" in text else []
    faults += ["no word"] if status == 128 + signum and "Stop" not in text else []
    faults += survivors(command.pid, begin)
    faults += files_left(results_dir) if times == 1 else []
    return [f"{what}: {fault}" for fault in faults]


def survivors(session: int, begin: float) -> list[str]:
    """The processes of a command that still live after its end, when the fork server has imported torch; kills them."""
    alive = []
    for _ in range(300):
        alive = [process for process in processes() if process.session == session and process.state not in "ZX"]
        if not alive:
            return []
        time.sleep(0.1)
    for process in alive:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return [f"{time.monotonic() - begin:.0f} s later: {process.name} lives" for process in alive]


def files_left(results_dir: Path) -> list[str]:
    """Leases, heartbeats and temporary files; an unfinished run keeps its checkpoint."""
    temporary = [str(path.relative_to(results_dir)) for path in results_dir.rglob(".*")]
    found = [name for name in left_over(results_dir) if not name.endswith("/checkpoint.pt")]
    return [f"left over: {name}" for name in [*found, *temporary]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--draw", type=int, default=0, help="seed of the moments and signals")
    parser.add_argument("--steps", type=int, default=600, help="steps of each run")
    parser.add_argument("--dir", type=Path, help="folder of the stores; default: a temporary folder")
    parser.add_argument("overrides", nargs="*", help="further overrides of the command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, draw = options.dir or Path(temporary), random.Random(options.draw)
        faults = signal_and_compare(
            [*SWEEP, f"steps={options.steps}", *options.overrides], folder, options.signals, draw
        )
    print(f"{options.signals} signals, {len(faults)} faults", *faults, sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
