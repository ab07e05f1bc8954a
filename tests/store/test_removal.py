from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import pytest

from bnstudy.store import removal
from bnstudy.store.leases import Leases
from bnstudy.store.removal import empty_trash, remove_runs
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError
from tests import synthetic
from tests.synthetic import Run

DONE, OPEN = Run(total=40), Run(seed=1, total=40)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "results")
    synthetic.write(found.results_dir, [DONE])
    found.begin(OPEN.run_id, OPEN.spec)
    return found


def elsewhere(store: Store) -> Leases:
    """A worker whose files look like those of another machine, with the unfinished run."""
    leases = Leases(store, 0.02, 0.2)
    leases.me = replace(leases.me, machine="another boot pid:[1]")
    leases.acquire([OPEN.run_id])
    return leases


def make_silent(store: Store, leases: Leases) -> None:
    beat = store.results_dir / "workers" / f"{leases.me.worker}.json"
    os.utime(beat, (beat.stat().st_mtime - 300,) * 2)


def test_runs_are_removed_with_all_of_their_files(store: Store):
    assert remove_runs(store, [DONE.run_id], [OPEN.run_id, "0" * 12]) == ([DONE.run_id, OPEN.run_id], [])
    assert list((store.results_dir / "runs").iterdir()) == []
    assert not (store.results_dir / "trash").exists()
    assert list((store.results_dir / "workers").iterdir()) == []


def test_a_run_that_a_worker_trains_stays(store: Store):
    with Leases(store) as worker:
        worker.acquire([OPEN.run_id])
        assert remove_runs(store, [DONE.run_id], [OPEN.run_id]) == ([DONE.run_id], [OPEN.run_id])
        assert worker.lost() == set()
    assert store.has_begun(OPEN.run_id)


def test_a_run_that_was_finished_meanwhile_stays(store: Store):
    assert remove_runs(store, [], [DONE.run_id]) == ([], [DONE.run_id])
    assert store.check(DONE.run_id)


def test_a_silent_worker_elsewhere_is_watched_before_its_runs_are_removed(store: Store):
    make_silent(store, elsewhere(store))
    watched: list[float] = []
    assert remove_runs(store, [], [OPEN.run_id], watched.append, patience=0.2) == ([OPEN.run_id], [])
    assert watched == [pytest.approx(0.4)]


def test_a_worker_elsewhere_that_beats_again_keeps_its_runs(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(removal, "LOOK_SECONDS", 0.01)
    worker = elsewhere(store)
    make_silent(store, worker)

    def beat_again(seconds: float) -> None:  # noqa: ARG001
        Thread(target=worker._beat).start()

    assert remove_runs(store, [], [OPEN.run_id], beat_again, patience=2.0) == ([], [OPEN.run_id])
    assert store.has_begun(OPEN.run_id)


def test_a_killed_removal_leaves_no_half_of_a_run(store: Store, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove_runs(store, [DONE.run_id], [])
    assert store.begun() == [OPEN.run_id]
    assert len(list((store.results_dir / "trash").iterdir())) == 1
    assert empty_trash(store)
    assert not empty_trash(store)
    assert not (store.results_dir / "trash").exists()


def test_a_run_is_removed_also_if_another_command_has_just_emptied_the_trash(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    rename, emptied = Path.rename, []

    def rename_later(folder: Path, to: Path) -> Path:
        if not emptied:
            emptied.append(empty_trash(store))
        return rename(folder, to)

    monkeypatch.setattr(Path, "rename", rename_later)
    assert remove_runs(store, [DONE.run_id], []) == ([DONE.run_id], [])
    assert emptied == [True]
    assert store.begun() == [OPEN.run_id]


def test_trash_gets_a_run_while_it_is_emptied(store: Store, monkeypatch: pytest.MonkeyPatch):
    trash, rmtree = store.results_dir / "trash", removal.shutil.rmtree
    (trash / "old").mkdir(parents=True)

    def rmtree_and_add(path: Path) -> None:
        rmtree(path)
        (trash / "new").mkdir(exist_ok=True)

    monkeypatch.setattr(removal.shutil, "rmtree", rmtree_and_add)
    assert empty_trash(store)
    assert [path.name for path in trash.iterdir()] == ["new"]


def test_a_worker_asks_again_for_a_run_that_is_removed_while_it_takes_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    with Leases(store) as worker:
        create = worker._create
        with monkeypatch.context() as patch:
            patch.setattr(worker, "_create", lambda *own: (remove_runs(store, [], [OPEN.run_id]), create(*own)))
            assert list(worker.acquire([OPEN.run_id])) == []
        assert list(worker.acquire([OPEN.run_id])) == [OPEN.run_id]


@pytest.mark.parametrize("name", ["trash", "runs"])
def test_nothing_is_removed_through_a_link(store: Store, tmp_path: Path, name: str):
    outside = tmp_path / "outside"
    if (store.results_dir / name).exists():
        (store.results_dir / name).rename(outside)
    else:
        outside.mkdir()
    (outside / "precious").write_text("mine")
    (store.results_dir / name).symlink_to(outside)
    with pytest.raises(ConfigError, match="symbolic link"):
        remove_runs(store, [DONE.run_id], [])
    assert (outside / "precious").exists()


def test_a_link_in_a_run_is_removed_and_its_target_stays(store: Store, tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (store.run(DONE.run_id).folder / "link").symlink_to(tmp_path / "precious")
    assert remove_runs(store, [DONE.run_id], [])[0] == [DONE.run_id]
    (store.results_dir / "trash").mkdir()
    (store.results_dir / "trash" / "link").symlink_to(tmp_path / "precious")
    assert empty_trash(store)
    assert (tmp_path / "precious" / "file").exists()
