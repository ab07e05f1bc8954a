from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bnstudy.store.files import is_plain_file, remove_abandoned, write_atomic, write_text


def test_an_interrupted_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    write_text(path, "first")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_atomic(path, fail)
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: (synced.append("named"), replace(path, target)))
    write_text(tmp_path / "file", "text")
    [temporary, named] = synced
    assert (temporary.parent, temporary.name[:6], named) == (tmp_path, ".file.", "named")


def test_only_a_file_itself_is_a_plain_file(tmp_path):
    plain, pipe, link = (tmp_path / name for name in ("plain", "pipe", "link"))
    plain.touch()
    os.mkfifo(pipe)
    link.symlink_to(plain)
    paths = (plain, pipe, link, tmp_path, tmp_path / "gone", plain / "below")
    assert [is_plain_file(path) for path in paths] == [True, False, False, False, False, False]


def test_only_old_temporary_files_are_abandoned(tmp_path):
    temporaries = []
    write_atomic(tmp_path / "index.html", lambda temporary: (temporaries.append(temporary), temporary.touch()))
    [temporary] = temporaries
    temporary.touch()  # as if its writer had been killed
    remove_abandoned(tmp_path)
    assert temporary.exists()
    os.utime(temporary, (0, 0))
    for name in (".hidden", ".config.json", "index.html", ".index.html.0123"):  # not ours
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    remove_abandoned(tmp_path)
    assert not temporary.exists()
    assert len([*tmp_path.iterdir()]) == 4


def test_readers_never_see_a_partial_file(tmp_path):
    path, texts, contents = tmp_path / "file", ["a" * 100_000, "b" * 100_000], set()
    write_text(path, texts[0])
    writer = threading.Thread(target=lambda: [write_text(path, texts[i % 2]) for i in range(100)])
    writer.start()
    while writer.is_alive():
        contents.add(path.read_text())
    assert contents <= set(texts)
