"""Compiled programs are executed, so they are loaded only from where nobody but the user can write."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnstudy.sweep import machine
from bnstudy.sweep.machine import compiled_programs, own_cache, set_up_torch
from bnstudy.sweep.settings import Settings

CPU = torch.device("cpu")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is restored
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    return tmp_path / "home"


def test_compiled_programs_are_in_the_users_cache_folder_and_never_in_the_store(home, tmp_path):
    set_up_torch(Settings(results_dir=str(tmp_path / "results")), CPU)
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == home / "bnstudy" / "compiled"
    assert not (tmp_path / "results").exists()
    assert {path.stat().st_mode & 0o777 for path in (home / "bnstudy", home / "bnstudy/compiled")} == {0o700}
    assert compiled_programs() == compiled_programs()


def test_the_users_own_choice_of_the_folder_stays(home, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    set_up_torch(Settings(), CPU)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"
    assert not home.exists()


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_without_an_absolute_xdg_folder_it_is_in_the_home(home, monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(home))
    assert own_cache() == home / ".cache/bnstudy/compiled"


def make_writable_by_others(home: Path) -> None:
    (home / "bnstudy").mkdir(parents=True)
    (home / "bnstudy").chmod(0o777)


def make_writable_by_the_group(home: Path) -> None:
    (home / "bnstudy/compiled").mkdir(parents=True)
    (home / "bnstudy/compiled").chmod(0o770)


def make_link(home: Path) -> None:
    target = home.parent / "planted"
    (target / "compiled").mkdir(parents=True)
    home.mkdir()
    (home / "bnstudy").symlink_to(target)


def make_file(home: Path) -> None:
    home.write_text("")


def make_replaceable(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)


def make_replaceable_by_the_group(home: Path) -> None:
    home.mkdir()
    home.chmod(0o770)


@pytest.mark.parametrize(
    "make",
    [
        make_writable_by_others,
        make_writable_by_the_group,
        make_link,
        make_file,
        make_replaceable,
        make_replaceable_by_the_group,
    ],
)
def test_a_cache_folder_that_is_not_safe_is_not_used_and_said(home, caplog, make):
    make(home)
    with pytest.raises(OSError, match="home"):
        own_cache()
    first, second = compiled_programs(), compiled_programs()
    assert first != second
    assert first.stat().st_mode & 0o777 == 0o700
    assert home not in first.parents
    machine.check_compiled_programs()
    assert "Compiled programs are not kept for later commands" in caplog.text


def test_a_shared_folder_in_which_nobody_replaces_anothers_is_used(home):
    home.mkdir()
    home.chmod(0o1777)
    assert own_cache() == home / "bnstudy/compiled"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder to another user")
def test_a_cache_folder_in_a_folder_of_another_user_is_not_used(home):
    home.mkdir()
    os.chown(home, 12345, -1)
    with pytest.raises(OSError, match="belongs to another user"):
        own_cache()


@pytest.mark.usefixtures("home")
def test_a_cache_folder_of_another_user_is_not_used(monkeypatch):
    own_cache()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(OSError, match=r"must be yours"):
        own_cache()


FREED = """
import resource
import torch
from bnstudy.sweep.machine import keep_freed_memory

def pages() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.zeros(2**18) for _ in range(100)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(pages(), pages())
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator")
def test_memory_that_a_step_frees_is_kept_for_the_next():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert second < first / 10


def show_folder() -> None:
    folder = compiled_programs()
    (folder / "x").touch()
    print(folder, flush=True)


IN_A_WORKER = """
from bnstudy.sweep.forkserver import context
from tests.sweep.test_machine import show_folder
if __name__ == "__main__":
    process = context().Process(target=show_folder)
    process.start()
    process.join()
"""


@pytest.mark.parametrize("code", ["from tests.sweep.test_machine import show_folder; show_folder()", IN_A_WORKER])
def test_a_temporary_folder_is_gone_when_the_process_ends(home, tmp_path, code):
    make_file(home)
    script = tmp_path / "script.py"
    script.write_text(code)
    folder = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.strip()
    assert "bnstudy-compiled-" in folder
    assert not Path(folder).exists()
