"""Leases: which worker trains which run, where several processes or machines work on one store.

A lease is a file `lease.<n>` in the run's folder that names its holder; n is the generation, from 1. It is created
only if no file of that name exists. A worker that finds no lease creates `lease.1`; one that finds a dead holder's
`lease.<n>` creates `lease.<n+1>`, and only one of several takers can. Then it looks again: the run is its own if its
lease is the newest and the holders of all others are dead; otherwise it withdraws. The holder removes the older leases.

Each worker has one heartbeat file, `<results_dir>/workers/<worker>.json`, renamed into place every few seconds.
A holder on this machine is dead as soon as its process is gone, and alive as long as the process exists, even stopped.
A holder elsewhere is dead once its heartbeat has not changed while this worker itself beat for `patience` seconds.
So clocks of different machines are never compared, and time in which this worker slept or the store did not answer
does not count. Only exclusive creation and renaming have to be atomic, as they are on NFS.

`filelock.SoftFileLease` keeps a thread and an open file for each lease, where a stack may need 1,024 of them, and lets
others take the lease of a process on this machine that is only stopped.

Limits: a holder that is stopped for longer than `patience`, or cut off from the store, loses its runs to workers on
other machines and finds that out from `lost` (on NFS, once its cached listing of the folder has expired). What it
writes until then does no damage: files appear whole, both train the same run to the same numbers, and `Store.finish`
writes files of both once more if they do not belong together. A worker that is
stopped that long exactly between its look and its removal of a lease may remove the lease of a later holder; then a run
may be trained twice, but none is spoilt.

This module does not import torch.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from bnstudy.store.files import remove_abandoned
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError

_LEASE = re.compile(r"lease\.([1-9][0-9]*)")
_MAX_PID = 2**31
_MAX_BYTES = 2**16
"""More than a lease or heartbeat holds."""
_WORKER = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Holder:
    """The holder of a run, as recorded in its lease.

    worker: unique name of a `Leases` object.
    machine: boot id and pid namespace, within which `pid` and `started` (clock ticks since boot) name one process;
        empty if the system does not provide them.
    command: id of the command that the worker belongs to.
    deaths: number of its workers that died with the run before this one, without a checkpoint in between, so that a run
        that kills its workers is not retried forever.
    """

    host: str
    pid: int
    worker: str
    machine: str = ""
    started: int = 0
    command: str = ""
    deaths: int = 0

    @classmethod
    def here(cls) -> Holder:
        """This process, under a new worker name."""
        host, pid = socket.gethostname(), os.getpid()
        worker = f"{re.sub(r'[^a-zA-Z0-9-]', '_', host)}-{pid}-{secrets.token_hex(4)}"
        _, started = _process(pid) or ("", 0)
        return cls(host, pid, worker, _machine(), started)

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """Read a lease or a heartbeat; None if it is garbled."""
        try:
            entries = json.loads(content)
            holder = cls(**{field.name: entries[field.name] for field in fields(cls) if field.name in entries})
        except (RecursionError, TypeError, ValueError):
            return None
        if any(type(getattr(holder, field.name)) is not type(getattr(_ANY, field.name)) for field in fields(cls)):
            return None
        return holder if _WORKER.fullmatch(holder.worker) and 0 < holder.pid < _MAX_PID else None

    def is_alive(self, here: Holder) -> bool | None:
        """Whether its process exists; None if `here` cannot know, as from another machine."""
        if not here.machine or (self.host, self.machine) != (here.host, here.machine):
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it exists and belongs to another user
        process = _process(self.pid)
        # /proc may hide the processes of other users.
        return None if process is None else process[0] not in "ZX" and process[1] == self.started


_ANY = Holder("", 0, "")


def _machine() -> str:
    """Boot id and pid namespace; empty if there is no /proc or it shows another namespace."""
    with suppress(OSError):
        if os.readlink("/proc/self") == str(os.getpid()):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
            return f"{boot.strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _process(pid: int) -> tuple[str, int] | None:
    """State and start time, fields 3 and 22 of `/proc/<pid>/stat`."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return after_name[0], int(after_name[19])


class Leases:
    """The runs that one worker holds; within its `with` block the worker's heartbeat is written.

    All workers of a store have the same `beat_seconds` and `patience`. Enter the block in the process that trains: a
    holder counts as dead when its own process is gone, whatever its children do. Only one thread may call the methods.

    Args:
        command: id of the command that this worker belongs to; deaths of other commands' workers are not counted in
            `Holder.deaths`.
    """

    def __init__(self, store: Store, beat_seconds: float = 5.0, patience: float = 60.0, command: str = "") -> None:
        if not 0 < 2 * beat_seconds <= patience:
            raise ConfigError(
                f"patience={patience} with beat_seconds={beat_seconds} is not allowed: it must be at least two beats, "
                "or living workers count as dead."
            )
        self.store, self.beat_seconds, self.patience = store, beat_seconds, patience
        self.me = replace(Holder.here(), command=command)
        self._workers = store.results_dir / "workers"
        self._held: set[str] = set()
        # By worker: its last heartbeat, and our beat at that time.
        self._last_beats: dict[str, tuple[bytes | None, int]] = {}
        self._beats = 0
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __enter__(self) -> Leases:
        with suppress(OSError):  # `acquire` says so, or finds that the disk has room again
            self._beat()
            for path in self._workers.glob("*.json"):  # heartbeats elsewhere are removed when their runs are taken over
                holder = Holder.parse(_read(path) or b"")
                if holder and holder.is_alive(self.me) is False:
                    path.unlink(missing_ok=True)
            remove_abandoned(self._workers)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.release(list(self._held))
        with suppress(OSError):
            for path in self._beat_paths():
                path.unlink(missing_ok=True)

    def acquire(self, run_ids: Iterable[str]) -> list[str]:
        """Take leases of the runs; return those that this worker now holds, in the given order.

        Check `store.is_finished` again for each of them: another worker may have finished and released a run before
        the lease was taken. A run left out is held by a worker that lives or may live, or was changing hands: try again
        later.
        """
        self._beat()
        return [run_id for run_id in run_ids if self._take(run_id)]

    def release(self, run_ids: Iterable[str]) -> None:
        """Give up the leases that this worker holds; ignore other runs.

        A lease that cannot be removed, as on a disk that became read-only, ends with this process.
        """
        for run_id in run_ids:
            folder = self.store.run(run_id).folder
            with suppress(OSError):
                leases = read_leases(folder)
                own = max((n for n, holder in leases.items() if self._is_me(holder)), default=0)
                _remove(folder, [n for n in leases if n <= own])
            self._held.discard(run_id)

    def holders(self, run_ids: Iterable[str]) -> dict[str, Holder]:
        """The living holders other than this worker. If a lease is garbled, the host is `unknown`."""
        found = {}
        for run_id in run_ids:
            with suppress(OSError):  # if the folder cannot be read, `acquire` reports why
                if living := self._living_others(read_leases(self.store.run(run_id).folder)):
                    found[run_id] = living[max(living)]
        return found

    def dead_holders(self, run_ids: Iterable[str]) -> dict[str, Holder]:
        """The dead workers of this command that did not release a run."""
        found = {}
        for run_id in run_ids:
            with suppress(OSError):
                if dead := self._dead_holder(run_id, read_leases(self.store.run(run_id).folder)):
                    found[run_id] = dead
        return found

    def _dead_holder(self, run_id: str, leases: dict[int, Holder]) -> Holder | None:
        """The newest holder if it is a dead worker of this command. Its earlier deaths do not count if it has saved a
        checkpoint, as a job does that is preempted again and again."""
        newest = leases.get(max(leases, default=0))
        if newest is None or newest.command != self.me.command or self._is_me(newest) or self._is_alive(newest):
            return None
        paths = self.store.run(run_id)
        with suppress(FileNotFoundError):
            if paths.checkpoint.stat().st_mtime_ns > (paths.folder / f"lease.{max(leases)}").stat().st_mtime_ns:
                return replace(newest, deaths=0)
        return newest

    def lost(self) -> set[str]:
        """The runs of this worker that another one took over, or whose lease was deleted: do not write to them."""
        return {run_id for run_id in self._held if not self._is_newest(read_leases(self.store.run(run_id).folder))}

    def _take(self, run_id: str) -> bool:
        folder = self.store.run(run_id).folder
        folder.mkdir(parents=True, exist_ok=True)
        leases = read_leases(folder)
        if self._living_others(leases):
            return False
        if not self._is_newest(leases):
            last = max(leases, default=0)
            dead = self._dead_holder(run_id, leases)
            deaths = dead.deaths + 1 if dead else 0
            try:
                self._create(folder / f"lease.{last + 1}", deaths)
            except FileNotFoundError:  # `bnstudy prune` has just removed the folder; the caller asks again
                return False
            leases = read_leases(folder)
        if not self._is_newest(leases) or self._living_others(leases):
            _remove(folder, [n for n, holder in leases.items() if self._is_me(holder)])
            self._held.discard(run_id)
            return False
        self._held.add(run_id)
        self._bury(folder, leases)
        return True

    def _create(self, lease: Path, deaths: int) -> None:
        """Create the lease unless a file of its name exists; the caller looks again to see whose it is."""
        content = json.dumps(asdict(replace(self.me, deaths=deaths)))
        with suppress(FileExistsError), lease.open("xb", buffering=0) as file:
            try:
                file.write(content.encode())
            except OSError:  # the disk is full
                lease.unlink()
                raise

    def _bury(self, folder: Path, leases: dict[int, Holder]) -> None:
        """Remove the leases before the newest, and the heartbeats of their holders."""
        older = {n: holder for n, holder in leases.items() if n != max(leases)}
        _remove(folder, older)
        for holder in older.values():
            if not self._is_me(holder):
                self._heartbeat(holder).unlink(missing_ok=True)
                _, since = self._last_beats.get(holder.worker, (None, self._beats))
                self._last_beats[holder.worker] = None, since  # its disappearance is no sign of life: we removed it

    def _is_me(self, holder: Holder) -> bool:
        return holder.worker == self.me.worker

    def _is_newest(self, leases: dict[int, Holder]) -> bool:
        return bool(leases) and self._is_me(leases[max(leases)])

    def _living_others(self, leases: dict[int, Holder]) -> dict[int, Holder]:
        return {n: holder for n, holder in leases.items() if not self._is_me(holder) and self._is_alive(holder)}

    def _is_alive(self, holder: Holder) -> bool:
        """Whether its process exists or, if that cannot be known, its heartbeat changed, appeared or disappeared while
        this worker beat for `patience` seconds."""
        known = holder.is_alive(self.me)
        if known is not None:
            return known
        content = _read(self._heartbeat(holder))
        last, since = self._last_beats.get(holder.worker, (None, self._beats))
        if content != last:
            last, since = content, self._beats
        self._last_beats[holder.worker] = last, since
        # `<=`: the first of these beats may have come right after the first look.
        return (self._beats - since) * self.beat_seconds <= self.patience

    def _keep_beating(self) -> None:
        while not self._stop.wait(self.beat_seconds):
            with suppress(OSError):  # a disk may have room again, a server may come back
                self._beat()
                self._beats += 1

    def _beat(self) -> None:
        path, temporary = self._beat_paths()
        content = json.dumps({**asdict(self.me), "beat": self._beats, "time": time.time()})
        with self._writing:
            self._workers.mkdir(parents=True, exist_ok=True)
            temporary.write_text(content)
            temporary.replace(path)

    def _beat_paths(self) -> tuple[Path, Path]:
        """Our heartbeat, and the temporary file that becomes it."""
        path = self._heartbeat(self.me)
        return path, path.with_name(f".{path.name}.{0:016x}")  # a name that `remove_abandoned` knows

    def _heartbeat(self, holder: Holder) -> Path:
        return self._workers / f"{holder.worker}.json"


def read_leases(folder: Path) -> dict[int, Holder]:
    """The holders of a run's leases by generation; none if the folder cannot be read, which `acquire` then says."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
            return {}
        raise
    holders = {int(match[1]): _holder(folder / name) for name in names if (match := _LEASE.fullmatch(name))}
    return {n: holder for n, holder in holders.items() if holder}


def read_heartbeat(path: Path) -> Holder | None:
    """The worker whose heartbeat this is; None if it is gone or garbled."""
    with suppress(OSError):
        return Holder.parse(_read(path) or b"")
    return None


def _holder(lease: Path) -> Holder | None:
    """None if the lease is gone by now. The holder of a garbled one has no heartbeat: it is dead after `patience`."""
    content = _read(lease)
    if content is None:
        return None
    if holder := Holder.parse(content):
        return holder
    with suppress(FileNotFoundError):
        # The time distinguishes it from a later one of the same name.
        return Holder("unknown", 0, f"garbled-{lease.parent.name}-{lease.lstat().st_mtime_ns}")
    return None


def _remove(folder: Path, generations: Iterable[int]) -> None:
    for n in sorted(generations):
        (folder / f"lease.{n}").unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """None if there is no such file, empty if NFS reports that it was replaced or removed meanwhile."""
    try:
        # A pipe is not waited for, and a link not followed: it may lead to a device that never ends.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW)) as file:
            return file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ESTALE, errno.ELOOP):
            raise
        return b""
