from __future__ import annotations

import threading

import pytest

from bnstudy.store.files import write_atomic, write_text


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


def test_readers_never_see_a_partial_file(tmp_path):
    path, texts, contents = tmp_path / "file", ["a" * 100_000, "b" * 100_000], set()
    write_text(path, texts[0])
    writer = threading.Thread(target=lambda: [write_text(path, texts[i % 2]) for i in range(100)])
    writer.start()
    while writer.is_alive():
        contents.add(path.read_text())
    assert contents <= set(texts)
