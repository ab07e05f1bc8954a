"""Leases: who trains which run, where several processes or machines work on one store.

A lease is a file `lease.<n>` in the run's folder that names its holder; n is the generation, from 1. It appears whole
and only if no file of that name is there. A worker that finds no lease creates `lease.1`; one that finds a dead
holder's `lease.<n>` creates `lease.<n+1>`, which only one of several takers can. Then it looks again: the run is its
own if its lease is the newest and every other one is a dead holder's, otherwise it withdraws. Whoever has a run
removes the older leases; release removes its own last.

Each worker has one heartbeat file, `<results_dir>/workers/<worker>.json`, renamed into place every few seconds.
A holder on this machine is dead as soon as its process is gone, and alive as long as it is there, even if stopped.
A holder elsewhere is dead once its heartbeat has not changed while this worker itself beat for `patience` seconds.
So no clock is compared with another machine's, and the time in which this worker slept or the store did not answer
does not count. Only exclusive creation and renaming have to be atomic, as they are on NFS.

Limits: a holder that is stopped for longer than `patience`, or cut off from the store, loses its runs to workers on
other machines and learns it from `lost` at its next look (on NFS, once its cached listing of the folder has expired).
What it writes until then does no damage: files appear whole, and both train the same run to the same numbers. A worker
that is stopped that long exactly between its look and its removal of a lease may remove the lease of a later holder;
then a run may be trained twice, but none is spoilt.

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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

from bnstudy.store.runs import Store, abandoned_files
from bnstudy.validation import ConfigError

_LEASE = re.compile(r"lease\.([1-9][0-9]*)")
_WORKER = re.compile(r"[\w-]+")
# FAT and some network and shared folders have no hard links; `runs` may be a link to another file system.
_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Holder:
    """Who holds a run, as its lease says.

    `worker` is the unique name of a `Leases` object. `machine` is the boot id and the pid namespace, within which `pid`
    and `started` (clock ticks since boot) name one process; it is empty where the system does not tell.
    """

    host: str
    pid: int
    worker: str
    machine: str = ""
    started: int = 0

    @classmethod
    def here(cls) -> Holder:
        """This process, under a new worker's name."""
        host, pid = socket.gethostname(), os.getpid()
        worker = f"{re.sub(r'[^a-zA-Z0-9-]', '_', host)}-{pid}-{secrets.token_hex(4)}"
        _, started = _process(pid) or ("", 0)
        return cls(host, pid, worker, _machine(), started)

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """What a lease or a heartbeat says; None where it is garbled."""
        try:
            said = json.loads(content)
            holder = cls(**{field.name: said[field.name] for field in fields(cls)})
            return holder if _WORKER.fullmatch(holder.worker) else None
        except (ValueError, KeyError, TypeError):
            return None

    def lives(self, here: Holder) -> bool | None:
        """Whether its process is there; None where `here` cannot tell, above all from another machine."""
        if not here.machine or (self.host, self.machine) != (here.host, here.machine):
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's process, and there
        process = _process(self.pid)
        # /proc may hide the processes of other users.
        return None if process is None else process[0] not in "ZX" and process[1] == self.started


def _machine() -> str:
    """Empty where there is no /proc, or it shows the processes of another namespace."""
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
    """The runs that one worker holds; within its `with` block the worker beats.

    All workers of a store have the same `beat_seconds` and `patience`. The block belongs in the process that trains:
    a holder counts as dead when its own process is gone, whatever its children still do. One thread calls the methods.
    """

    def __init__(self, store: Store, beat_seconds: float = 5.0, patience: float = 60.0) -> None:
        if not 0 < 2 * beat_seconds <= patience:
            raise ConfigError(
                f"patience={patience} with beat_seconds={beat_seconds}: it must be two beats at least, or living "
                "workers count as dead."
            )
        self.store, self.beat_seconds, self.patience = store, beat_seconds, patience
        self.me = Holder.here()
        self._workers = store.results_dir / "workers"
        self._held: set[str] = set()
        self._seen: dict[str, tuple[bytes | None, int]] = {}  # of each worker: last heartbeat, and our beat then
        self._beats = 0
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __enter__(self) -> Leases:
        self._beat()
        self._forget_the_dead()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self.release(list(self._held))
        finally:
            self._heartbeat(self.me).unlink(missing_ok=True)

    def acquire(self, run_ids: Iterable[str]) -> list[str]:
        """Those of the runs that this worker now holds, in the order given.

        Ask `store.is_finished` once more for each of them: another worker may have finished and released a run after
        the caller last looked and before the lease was taken, and only from then on can no one else finish it.
        A run left out is held by a worker that lives or may live, or was changing hands: ask again later.
        """
        self._beat()
        return [run_id for run_id in run_ids if self._take(run_id)]

    def release(self, run_ids: Iterable[str]) -> None:
        """Give the runs up. Those that this worker does not hold stay as they are."""
        for run_id in run_ids:
            folder = self.store.run(run_id).folder
            leases = _leases(folder)
            own = max((n for n, holder in leases.items() if self._is_me(holder)), default=0)
            _remove(folder, [n for n in leases if n <= own])
            self._held.discard(run_id)

    def holders(self, run_ids: Iterable[str]) -> dict[str, Holder]:
        """The living holders other than this worker. Where a lease is garbled, the host is `unknown`."""
        found = {}
        for run_id in run_ids:
            if living := self._living_others(_leases(self.store.run(run_id).folder)):
                found[run_id] = living[max(living)]
        return found

    def lost(self) -> set[str]:
        """The runs held that another worker took over, or whose lease was deleted: write no more of them."""
        return {run_id for run_id in self._held if not self._is_newest(_leases(self.store.run(run_id).folder))}

    # ------------------------------------------------------------------------------------------------ leases

    def _take(self, run_id: str) -> bool:
        folder = self.store.run(run_id).folder
        leases = _leases(folder)
        if self._living_others(leases):
            return False
        if not self._is_newest(leases):
            self._create(folder / f"lease.{max(leases, default=0) + 1}")
            leases = _leases(folder)
        if not self._is_newest(leases) or self._living_others(leases):
            _remove(folder, [n for n, holder in leases.items() if self._is_me(holder)])
            self._held.discard(run_id)
            return False
        self._held.add(run_id)
        self._bury(folder, leases)
        return True

    def _create(self, lease: Path) -> None:
        """Create the lease unless one of its name is there; a look afterwards tells whose it is.

        It is a link to the heartbeat, which says all that it has to say: one call, and never a file half written.
        """
        lease.parent.mkdir(parents=True, exist_ok=True)
        with self._writing, suppress(FileExistsError):
            try:
                os.link(self._heartbeat(self.me), lease)
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                with lease.open("xb") as file:
                    file.write(self._content())

    def _bury(self, folder: Path, leases: dict[int, Holder]) -> None:
        """Remove the leases before the newest, and the heartbeats of those who held them."""
        older = {n: holder for n, holder in leases.items() if n != max(leases)}
        _remove(folder, older)
        for holder in older.values():
            if not self._is_me(holder):
                self._heartbeat(holder).unlink(missing_ok=True)
                _, since = self._seen.get(holder.worker, (None, self._beats))
                self._seen[holder.worker] = None, since  # that it went is no sign of life: we removed it

    def _is_me(self, holder: Holder) -> bool:
        return holder.worker == self.me.worker

    def _is_newest(self, leases: dict[int, Holder]) -> bool:
        return bool(leases) and self._is_me(leases[max(leases)])

    def _living_others(self, leases: dict[int, Holder]) -> dict[int, Holder]:
        return {n: holder for n, holder in leases.items() if not self._is_me(holder) and self._lives(holder)}

    # ------------------------------------------------------------------------------------------------ heartbeats

    def _lives(self, holder: Holder) -> bool:
        known = holder.lives(self.me)
        return self._may_live(holder) if known is None else known

    def _may_live(self, holder: Holder) -> bool:
        """Whether its heartbeat changed, appeared or went while this worker beat for `patience` seconds."""
        content = _read(self._heartbeat(holder))
        last, since = self._seen.get(holder.worker, (None, self._beats))
        if content != last:
            last, since = content, self._beats
        self._seen[holder.worker] = last, since
        # More, not as many: the first of these beats may have come right after the first look.
        return (self._beats - since) * self.beat_seconds <= self.patience

    def _keep_beating(self) -> None:
        while not self._stop.wait(self.beat_seconds):
            with suppress(OSError):  # a full disk has room again, a server comes back
                self._beat()
                self._beats += 1

    def _beat(self) -> None:
        path = self._heartbeat(self.me)
        temporary = path.with_name(f".{path.name}")
        with self._writing:
            self._workers.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(self._content())
            temporary.replace(path)

    def _content(self) -> bytes:
        return json.dumps({**asdict(self.me), "beat": self._beats, "time": time.time()}).encode() + b"\n"

    def _forget_the_dead(self) -> None:
        """Remove the heartbeats of this machine's dead; those of other machines go when their runs are taken over."""
        for path in self._workers.glob("*.json"):
            holder = Holder.parse(_read(path) or b"")
            if holder and holder.lives(self.me) is False:
                path.unlink(missing_ok=True)
        for path in abandoned_files(self._workers):
            path.unlink(missing_ok=True)

    def _heartbeat(self, holder: Holder) -> Path:
        return self._workers / f"{holder.worker}.json"


def _leases(folder: Path) -> dict[int, Holder]:
    """A run's leases by generation."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    holders = {int(match[1]): _holder(folder / name) for name in names if (match := _LEASE.fullmatch(name))}
    return {n: holder for n, holder in holders.items() if holder}


def _holder(lease: Path) -> Holder | None:
    """None where the lease is gone by now. A garbled one's holder has no heartbeat: it is dead after `patience`."""
    content = _read(lease)
    if content is None:
        return None
    if holder := Holder.parse(content):
        return holder
    with suppress(FileNotFoundError):
        # The time tells it from a later one of the same name.
        return Holder("unknown", 0, f"garbled-{lease.parent.name}-{lease.stat().st_mtime_ns}")
    return None


def _remove(folder: Path, generations: Iterable[int]) -> None:
    for n in sorted(generations):
        (folder / f"lease.{n}").unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """None where there is no such file, nothing where NFS says that it was replaced or removed on the way."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return b""
