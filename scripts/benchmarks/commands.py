"""Run whole commands, and measure their time and the memory of all their processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

REPOSITORY = Path(__file__).parents[2]
SAMPLE_SECONDS = 1.0
"""Time between two samples of the memory, each of which takes about 20 ms."""


@dataclass(frozen=True)
class CommandCost:
    """The time and memory of a command.

    cpu: CPU seconds of all its processes.
    resident: peak memory of all its processes together in bytes, sampled once a second, with shared pages counted
        once (PSS).
    resident_each: the sum of the peaks of the processes (VmHWM), with shared pages counted in each: an upper bound.
    """

    seconds: float
    resident: int
    resident_each: int
    cpu: float = 0.0


def run(
    *arguments: str, folder: Path, entry: str = "main", allowed: tuple[int, ...] = (0,), cache: Path | None = None
) -> CommandCost:
    """Run an entry point of `bnstudy.cli` in a process of its own, with `folder` as working directory.

    allowed: the statuses with which it may end.
    cache: the user's cache folder in place of his own.
    """
    environment = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    return measure(
        "-c", f"from bnstudy.cli import {entry}; {entry}()", *arguments, folder=folder, allowed=allowed, **environment
    )


def import_torch(folder: Path) -> float:
    """Seconds of a process that only imports torch."""
    return measure("-c", "import torch", folder=folder).seconds


def measure(*arguments: str, folder: Path, allowed: tuple[int, ...] = (0,), **environment: str) -> CommandCost:
    """Measure `python ARGUMENTS` in `folder`, with these additional variables in its environment.

    Raises:
        SystemExit: the command failed; the message has its output.
    """
    resident, peaks = 0, dict[int, int]()
    with TemporaryFile("w+") as output:
        begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=output
        )
        while not has_ended(process, SAMPLE_SECONDS):
            tree = descendants(process.pid)
            resident = max(resident, sum(kilobytes(pid, "smaps_rollup", "Pss:") for pid in tree))
            peaks |= {pid: max(peaks.get(pid, 0), kilobytes(pid, "status", "VmHWM:")) for pid in tree}
        seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode not in allowed:
            output.seek(0)
            raise SystemExit(f"python {' '.join(arguments)} failed:\n{output.read()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return CommandCost(seconds, 1024 * resident, 1024 * sum(peaks.values()), cpu)


def has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait at most `seconds` for the process to end."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def descendants(pid: int) -> list[int]:
    """The process and its descendants that exist now."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [each for child in read(path).split() for each in descendants(int(child))]
    return found


def kilobytes(pid: int, file: str, field: str) -> int:
    """A field of a file in /proc; 0 if the process has ended."""
    lines = [line for line in read(Path(f"/proc/{pid}/{file}")).splitlines() if line.startswith(field)]
    return int(lines[0].split()[1]) if lines else 0


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
