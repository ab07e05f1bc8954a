from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch

from bnstudy.store.activity import find_workers, folder_bytes, saved_step
from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
from bnstudy.train import checkpoint


def test_the_step_of_a_checkpoint_is_read_without_torch(tmp_path: Path):
    state = {"step": 1234, "tensors": {"w": torch.randn(3, 3)}, "optimizer": {"step": 7}, "record": [1.0, None]}
    checkpoint.save(tmp_path / "checkpoint.pt", "0" * 12, "00", state)
    assert saved_step(tmp_path / "checkpoint.pt") == 1234


def test_a_damaged_checkpoint_has_no_step(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    assert saved_step(path) is None
    path.write_bytes(b"bnstudy checkpoint 1\nrubbish")
    assert saved_step(path) is None
    path.unlink()
    path.symlink_to("/dev/zero")
    assert saved_step(path) is None


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path):
    content = pickle.dumps({"state": {"step": 5, "evil": Touch(tmp_path / "made")}})
    with zipfile.ZipFile(tmp_path / "checkpoint.pt", "w") as archive:
        archive.writestr("archive/data.pkl", content)
    assert saved_step(tmp_path / "checkpoint.pt") == 5
    assert not (tmp_path / "made").exists()


def test_a_worker_holds_the_runs_of_its_newest_leases(tmp_path: Path):
    store, ids = Store(tmp_path), ["a" * 12, "b" * 12, "c" * 12]
    with Leases(store) as leases:
        leases.acquire(ids[:2])
        (worker,) = find_workers(store, ids)
        assert worker.run_ids == tuple(ids[:2])
        assert (worker.holder.pid, worker.is_alive, worker.is_stale) == (leases.me.pid, True, False)
    assert find_workers(store, ids) == []


def test_the_size_of_a_folder_is_that_of_its_files_and_not_of_what_links_name(tmp_path: Path):
    (tmp_path / "run" / "inner").mkdir(parents=True)
    (tmp_path / "run" / "a").write_bytes(b"x" * 100)
    (tmp_path / "run" / "inner" / "b").write_bytes(b"x" * 20)
    assert folder_bytes(tmp_path / "run") == 120
    assert folder_bytes(tmp_path / "nowhere") == 0
