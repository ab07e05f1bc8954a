from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from threading import Barrier, Thread

import pytest

from bnstudy.store.leases import Holder, Leases
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError

RUNS = [f"{i:012x}" for i in range(200)]
BEAT, PATIENCE = 0.02, 0.2

# Takes the runs one by one once the file `go` exists, prints which it got, and holds them until stdin is closed.
OTHER_PROCESS = """
import json, sys, time
from pathlib import Path
from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
assert "torch" not in sys.modules
results, run_ids = Path(sys.argv[1]), json.loads(sys.argv[2])
with Leases(Store(results)) as leases:
    print("ready", flush=True)
    while not (results / "go").exists():
        pass
    print(json.dumps([run for run_id in run_ids for run in leases.acquire([run_id])]), flush=True)
    sys.stdin.read()
"""


def worker(results: Path) -> Leases:
    return Leases(Store(results), BEAT, PATIENCE)


def worker_elsewhere(results: Path) -> Leases:
    """A worker whose files look like those of another machine."""
    leases = worker(results)
    leases.me = replace(leases.me, machine="another boot pid:[1]")
    return leases


def stop_beating(leases: Leases) -> None:
    """As if the worker's process were stopped."""
    leases._stop.set()
    leases._thread.join()


def until(condition: Callable[[], object]) -> float:
    """Wait for the condition; return the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + 20
        time.sleep(0.005)
    return time.monotonic() - start


def files(results: Path) -> list[str]:
    return sorted(str(p.relative_to(results)) for p in results.rglob("*") if p.is_file())


@contextmanager
def other_process(results: Path, run_ids: list[str]):
    command = [sys.executable, "-c", OTHER_PROCESS, str(results), json.dumps(run_ids)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def test_a_run_has_one_holder(tmp_path):
    with worker(tmp_path) as a, worker(tmp_path) as b:
        assert a.acquire(["r2", "r1"]) == ["r2", "r1"]
        assert b.acquire(["r1", "r3"]) == ["r3"]
        assert a.acquire(["r1", "r3"]) == ["r1"]  # a run that it has can be acquired again
        assert b.holders(["r1", "r3", "r4"]).keys() == {"r1"}
        assert b.holders(["r1"])["r1"].worker == a.me.worker
        b.release(["r1"])  # not its own
        assert b.acquire(["r1"]) == []
        a.release(["r1"])
        assert b.acquire(["r1"]) == ["r1"]
        assert a.lost() == b.lost() == set()


def test_released_leases_and_ended_workers_leave_no_files(tmp_path):
    with worker(tmp_path) as a:
        a.acquire(RUNS[:3])
        assert files(tmp_path) == [*(f"runs/{r}/lease.1" for r in RUNS[:3]), f"workers/{a.me.worker}.json"]
        a.release(RUNS[:1])
        assert files(tmp_path) == [*(f"runs/{r}/lease.1" for r in RUNS[1:3]), f"workers/{a.me.worker}.json"]
    assert files(tmp_path) == []


def test_each_run_goes_to_one_of_two_processes(tmp_path):
    with other_process(tmp_path, RUNS) as one, other_process(tmp_path, RUNS) as two:
        (tmp_path / "go").touch()
        got = [json.loads(process.stdout.readline()) for process in (one, two)]
        for process in (one, two):
            process.stdin.close()
    assert sorted(got[0] + got[1]) == RUNS
    assert files(tmp_path) == ["go"]


def test_each_run_of_a_killed_process_goes_to_one_of_several_takers(tmp_path):
    (tmp_path / "go").touch()
    takers, barrier, got = [worker(tmp_path) for _ in range(4)], Barrier(4), {}

    def take(taker: Leases) -> None:
        barrier.wait()
        got[taker] = [run for run_id in RUNS for run in taker.acquire([run_id])]

    with other_process(tmp_path, RUNS) as holder, takers[0], takers[1], takers[2], takers[3]:
        assert json.loads(holder.stdout.readline()) == RUNS
        assert takers[0].acquire(RUNS) == []
        holder.kill()
        until(lambda: not takers[0].holders(RUNS))  # although it is a zombie
        threads = [Thread(target=take, args=[taker]) for taker in takers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(chain(*got.values())) == RUNS
        assert {name.split("/")[-1] for name in files(tmp_path) if "lease" in name} == {"lease.2"}
    assert files(tmp_path) == ["go"]


def test_a_stopped_process_of_this_machine_keeps_its_runs(tmp_path):
    (tmp_path / "go").touch()
    with other_process(tmp_path, ["r"]) as holder, worker(tmp_path) as b:
        assert json.loads(holder.stdout.readline()) == ["r"]
        holder.send_signal(signal.SIGSTOP)
        watched_from = b._beats
        until(lambda: (b._beats - watched_from) * BEAT > 2 * PATIENCE)
        assert b.acquire(["r"]) == []
        holder.send_signal(signal.SIGCONT)
        holder.stdin.close()


def test_a_worker_on_another_machine_keeps_its_run_while_it_beats(tmp_path):
    with worker_elsewhere(tmp_path) as a, worker(tmp_path) as b:
        a.acquire(["r"])
        watched_from = b._beats
        while (b._beats - watched_from) * BEAT < 3 * PATIENCE:
            assert b.acquire(["r"]) == []
            time.sleep(BEAT)
        stop_beating(a)
        assert until(lambda: b.acquire(["r"])) > PATIENCE / 2


def test_a_worker_notices_that_another_machine_took_its_runs(tmp_path):
    with worker(tmp_path) as b:
        with worker_elsewhere(tmp_path) as a:
            a.acquire(["r1", "r2", "r3"])
            stop_beating(a)
            until(lambda: b.acquire(["r1", "r2"]))
            assert a.lost() == {"r1", "r2"}
            assert a.acquire(["r1", "r3"]) == ["r3"]
        assert files(tmp_path) == ["runs/r1/lease.2", "runs/r2/lease.2", f"workers/{b.me.worker}.json"]
        assert b.lost() == set()


def test_patience_does_not_run_out_while_this_worker_cannot_beat(tmp_path):
    with worker_elsewhere(tmp_path) as a, worker(tmp_path) as b:
        a.acquire(["r"])
        assert b.acquire(["r"]) == []
        stop_beating(a)
        stop_beating(b)  # as if the store answered neither
        time.sleep(1.5 * PATIENCE)
        assert b.acquire(["r"]) == []


ODD_LEASES = [b"", b'{"host": "a", "pi', b"[]", b"3", b"null", b"[" * 100_000, b"\xff\xfe"]
ODD_LEASES += [
    json.dumps({"host": "a", "pid": 1, "worker": "w", **odd}).encode()
    for odd in ({"worker": "../../precious"}, {"pid": "1"}, {"pid": 10**30}, {"pid": 0}, {"pid": -1}, {"pid": 1.5},
                {"pid": True}, {"worker": ["w"]}, {"host": {}}, {"deaths": "many"}, {"started": None},
                {"machine": 3}, {"command": 0})
]  # fmt: skip


@pytest.mark.parametrize("content", ODD_LEASES)
def test_a_lease_or_heartbeat_with_odd_content_has_no_holder(content):
    assert Holder.parse(content) is None


def test_a_lease_that_is_no_file_is_taken_over_after_patience(tmp_path):
    for run_id, make in (("pipe", os.mkfifo), ("link", lambda path: path.symlink_to("/dev/zero"))):
        (tmp_path / "runs" / run_id).mkdir(parents=True)
        make(tmp_path / "runs" / run_id / "lease.7")
    with worker(tmp_path) as a:
        assert a.acquire(["pipe", "link"]) == []
        assert until(lambda: sorted(a.acquire(["pipe", "link"])) == ["link", "pipe"]) > PATIENCE / 2


@pytest.mark.parametrize("content", [b"", b"[]"])
def test_a_garbled_lease_is_taken_over_after_patience(tmp_path, content):
    lease = tmp_path / "runs" / "r" / "lease.7"
    lease.parent.mkdir(parents=True)
    lease.write_bytes(content)
    with worker(tmp_path) as a:
        assert a.acquire(["r"]) == []
        assert a.holders(["r"])["r"].host == "unknown"
        assert until(lambda: a.acquire(["r"])) > PATIENCE / 2
        assert [p.name for p in lease.parent.iterdir()] == ["lease.8"]


def test_a_taker_withdraws_if_the_run_changed_hands_after_its_look(tmp_path, monkeypatch):
    """Between its look and its lease, a second worker takes and releases the run, and a third takes it."""
    with worker(tmp_path) as early, worker(tmp_path) as quick, worker(tmp_path) as third:
        dead = replace(third.me, worker="dead", started=1)
        lease = tmp_path / "runs" / "r" / "lease.1"
        lease.parent.mkdir(parents=True)
        lease.write_text(json.dumps(asdict(dead)))

        def create(path: Path, deaths: int) -> None:
            assert quick.acquire(["r"]) == ["r"]
            quick.release(["r"])
            assert third.acquire(["r"]) == ["r"]
            Leases._create(early, path, deaths)

        monkeypatch.setattr(early, "_create", create)
        assert early.acquire(["r"]) == []
        assert third.lost() == set()
        assert [p.name for p in lease.parent.iterdir()] == ["lease.1"]


def test_a_process_differs_from_an_earlier_one_with_its_pid():
    here = Holder.here()
    assert here.is_alive(here) is True
    assert replace(here, started=here.started + 1).is_alive(here) is False
    assert replace(here, machine="another boot").is_alive(here) is None
    assert here.is_alive(replace(here, machine="")) is None


def test_the_heartbeat_goes_on_after_a_failed_write(tmp_path):
    with worker(tmp_path) as a:
        (tmp_path / "workers").rename(tmp_path / "away")
        (tmp_path / "workers").touch()  # no file can be created in it
        time.sleep(3 * BEAT)
        (tmp_path / "workers").unlink()
        heartbeat = tmp_path / "workers" / f"{a.me.worker}.json"
        until(heartbeat.exists)
        assert heartbeat.is_file()


def test_a_new_worker_removes_heartbeats_of_dead_ones(tmp_path):
    with other_process(tmp_path, []) as killed:
        killed.kill()
    assert len(files(tmp_path)) == 1
    half_written = tmp_path / "workers" / ".somebody.json.0000000000000000"
    half_written.touch()
    os.utime(half_written, (0, 0))
    with worker_elsewhere(tmp_path) as a, worker(tmp_path) as b:
        assert files(tmp_path) == sorted(f"workers/{w.me.worker}.json" for w in (a, b))


def test_patience_is_at_least_two_beats(tmp_path):
    with pytest.raises(ConfigError, match="patience=1"):
        Leases(Store(tmp_path), beat_seconds=1, patience=1)


def test_a_lease_counts_the_workers_that_died_with_the_run(tmp_path):
    (tmp_path / "go").touch()
    for deaths in (0, 1):
        with other_process(tmp_path, ["r"]) as holder:
            assert json.loads(holder.stdout.readline()) == ["r"]
            holder.kill()
        with Leases(Store(tmp_path), BEAT, PATIENCE) as a:
            assert a.dead_holders(["r", "other"])["r"].deaths == deaths
            if deaths:
                Store(tmp_path).run("r").checkpoint.touch()
                assert a.dead_holders(["r"])["r"].deaths == 0  # it made progress
    with Leases(Store(tmp_path), BEAT, PATIENCE, command="another") as later:
        assert later.dead_holders(["r"]) == {}
        assert later.acquire(["r"]) == ["r"]
        (lease,) = (tmp_path / "runs" / "r").glob("lease.*")
        assert json.loads(lease.read_text())["deaths"] == 0
        later.release(["r"])
        assert later.dead_holders(["r"]) == {}
