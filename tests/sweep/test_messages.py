from __future__ import annotations

import os

import pytest

from bnstudy.sweep.messages import last_line, record_error, recorded_error


def test_a_recorded_error_is_that_of_its_command(tmp_path):
    path = tmp_path / "error.txt"
    record_error(path, "mine", "ValueError: why", "Traceback ...\n")
    assert path.read_text() == "command mine\nTraceback ...\nValueError: why\n"
    assert recorded_error(path, "mine") == last_line(path) == "ValueError: why"
    assert recorded_error(path, "min") == ""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: None])
def test_what_is_no_file_has_no_error(tmp_path, make):
    path = tmp_path / "error.txt"
    make(path)
    assert (recorded_error(path, "mine"), last_line(path)) == ("", "")
