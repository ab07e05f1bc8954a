"""Who trains which runs, as seen by somebody who only looks: nothing is written, and no lease is taken."""

from __future__ import annotations

import io
import os
import pickle
import time
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnstudy.store.files import is_plain_file
from bnstudy.store.leases import Holder, read_heartbeat, read_leases
from bnstudy.store.runs import Store

SILENT_SECONDS = 60.0
"""A worker on another machine that has not written its heartbeat for this long may be dead."""


@dataclass(frozen=True)
class Worker:
    """A worker and the runs whose newest lease is its.

    since: when it took the first of these runs, or wrote its heartbeat if it has none; seconds since 1970.
    silent: seconds since its last heartbeat; None if there is none.
    is_alive: None if its process cannot be seen from this machine.
    """

    holder: Holder
    run_ids: tuple[str, ...]
    since: float
    silent: float | None
    is_alive: bool | None

    @property
    def is_stale(self) -> bool:
        """Whether it is dead, or so silent that it may be."""
        if self.is_alive is not None:
            return not self.is_alive
        return self.silent is None or self.silent > SILENT_SECONDS


def find_workers(store: Store, run_ids: Iterable[str]) -> list[Worker]:
    """The holders of these unfinished runs, and the living workers that have none, the earliest first."""
    here, now = Holder.here(), time.time()
    held: dict[str, tuple[Holder, list[str], float]] = {}
    for run_id in run_ids:
        folder = store.run(run_id).folder
        with suppress(OSError):  # the run ends meanwhile, or its folder cannot be read
            leases = read_leases(folder)
            if not leases:
                continue
            holder = leases[max(leases)]
            since = (folder / f"lease.{max(leases)}").lstat().st_mtime
            _, runs, first = held.setdefault(holder.worker, (holder, [], since))
            runs.append(run_id)
            held[holder.worker] = holder, runs, min(first, since)
    found = []
    for holder, runs, first in held.values():
        beat = store.results_dir / "workers" / f"{holder.worker}.json"
        found.append(Worker(holder, tuple(runs), first, _age(beat, now), holder.is_alive(here)))
    for path in (store.results_dir / "workers").glob("*.json"):
        holder_ = read_heartbeat(path)
        if holder_ is not None and holder_.worker not in held:
            idle = Worker(holder_, (), now - (_age(path, now) or 0), _age(path, now), holder_.is_alive(here))
            found += [] if idle.is_stale else [idle]
    return sorted(found, key=lambda worker: (worker.is_stale, not worker.run_ids, worker.since, worker.holder.worker))


def _age(path: Path, now: float) -> float | None:
    try:
        return max(0.0, now - path.lstat().st_mtime)
    except OSError:
        return None


MAX_PICKLE = 2**26
"""Bytes of the part of a checkpoint that lists what is in it."""


def saved_step(path: Path) -> int | None:
    """The step of a checkpoint, read without torch and without executing what is in it; None if it cannot be read."""
    with suppress(Exception):  # a damaged archive fails in many ways
        if not is_plain_file(path):
            return None
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(name).file_size <= MAX_PICKLE:
                step = _Inert(io.BytesIO(archive.read(name))).load()["state"]["step"]
                return step if type(step) is int and step >= 0 else None
    return None


class _Nothing:
    """Stands for every class and function that a checkpoint names."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


class _Inert(pickle.Unpickler):
    """Reads plain data alone: of tensors nothing is left."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ARG002
        return _Nothing

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002
        return None


def folder_bytes(folder: Path) -> int:
    """The sizes of the files in a folder and below it. Links are not followed."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += folder_bytes(Path(entry.path))
            else:
                with suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
