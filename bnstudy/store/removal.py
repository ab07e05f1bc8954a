"""Removes runs from a store: each folder leaves `runs/` by one rename, so that no half of it counts as a finished run.

Leases keep workers away meanwhile. What a killed command leaves in `<results_dir>/trash/` the next one deletes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from bnstudy.store.activity import find_workers
from bnstudy.store.files import sync
from bnstudy.store.leases import Leases
from bnstudy.store.links import refuse_links
from bnstudy.store.runs import Store

LOOK_SECONDS = 1.0
"""Between two attempts to take the runs of a worker that may be dead."""


def remove_runs(
    store: Store,
    finished: Collection[str],
    unfinished: Collection[str],
    watch: Callable[[float], object] = float,
    patience: float = 60.0,
) -> tuple[list[str], list[str]]:
    """Remove the folders of runs, but not of unfinished ones that a worker has or may have, or has finished meanwhile.

    A silent worker on another machine is watched for `patience` seconds, as by any worker (`store/leases.py`).

    Args:
        watch: called with the seconds that it may take, if a worker has to be watched.

    Returns: the ids of the removed runs, and of those that stay.

    Raises:
        ConfigError: a folder of the store is a symbolic link, which may lead out of it.
        OSError: the store cannot be written.
    """
    trash, runs = store.results_dir / "trash", store.results_dir / "runs"
    finished, unfinished = ([r for r in ids if store.run(r).folder.is_dir()] for ids in (finished, unfinished))
    folders = [store.run(run_id).folder for run_id in (*finished, *unfinished)]
    refuse_links(store.results_dir, [trash, runs, store.results_dir / "workers", *folders])
    with Leases(store, beat_seconds=min(5.0, patience / 2), patience=patience) as leases:
        held = [r for r in _acquire(leases, unfinished, watch) if not store.is_finished(r)]
        removed = [run_id for run_id in (*finished, *held) if _move_away(store.run(run_id).folder, trash)]
    sync(runs)  # the names are gone from the disk before the files are
    empty_trash(store)
    return removed, sorted({*unfinished} - {*held})


def empty_trash(store: Store) -> bool:
    """Delete what was removed, also by a command that was killed. Returns whether there was anything."""
    trash = store.results_dir / "trash"
    refuse_links(store.results_dir, [trash])
    if not trash.is_dir():
        return False
    for path in trash.glob("*"):
        _delete(path)
    with suppress(OSError):  # another command has removed it, or has just moved a run into it
        trash.rmdir()
    return True


def _delete(path: Path) -> None:
    while os.path.lexists(path):
        with suppress(FileNotFoundError):  # another command deletes it, too
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _acquire(leases: Leases, run_ids: Sequence[str], watch: Callable[[float], object]) -> list[str]:
    """The runs whose leases could be taken."""
    held = set(leases.acquire(run_ids))
    silent = _of_silent_workers(leases.store, [r for r in run_ids if r not in held])
    if silent:
        seconds = leases.patience + 2 * leases.beat_seconds
        watch(seconds)
        end = time.monotonic() + seconds
        while silent and time.monotonic() < end:
            time.sleep(min(LOOK_SECONDS, leases.beat_seconds))
            held |= {*leases.acquire(silent)}
            silent = _of_silent_workers(leases.store, [r for r in silent if r not in held])
    return [run_id for run_id in run_ids if run_id in held]


def _of_silent_workers(store: Store, run_ids: Sequence[str]) -> list[str]:
    """The runs of workers that seem to be dead, of which nobody can be sure yet."""
    return [r for worker in find_workers(store, run_ids) if worker.is_stale for r in worker.run_ids]


def _move_away(folder: Path, trash: Path) -> bool:
    """Whether it was still there."""
    while folder.is_dir():
        trash.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another command has removed the run, or the trash that it has emptied
            folder.rename(trash / f"{folder.name}.{secrets.token_hex(4)}")
            return True
    return False
