"""Writes to a disk that is full, read-only or away, for a while or for ever."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from bnstudy.sweep import disk
from bnstudy.sweep.disk import Disk, reason
from bnstudy.sweep.signals import Interrupted, StopFlag


def failing(*numbers: int) -> Iterator[None]:
    """An action that fails with these errors in turn, then returns."""
    for number in numbers:
        yield OSError(number, os.strerror(number))
    while True:
        yield None


class Action:
    def __init__(self, *numbers: int) -> None:
        self.calls, self._errors = 0, failing(*numbers)

    def __call__(self) -> str:
        self.calls += 1
        if error := next(self._errors):
            raise error
        return "done"


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def store_disk(messages, monkeypatch) -> Disk:
    monkeypatch.setattr(disk.time, "sleep", lambda _: None)
    return Disk(messages.append, StopFlag(""))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_write_is_tried_until_the_disk_takes_it_and_the_wait_is_said_once(store_disk, messages, number):
    action = Action(number, number, number)
    assert store_disk.write("The results of seed=3", action) == "done"
    assert action.calls == 4
    assert messages == [f"The results of seed=3 cannot be written ({os.strerror(number)}): trying again for 60 s."]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG])
def test_an_error_of_one_folder_is_raised_at_once(store_disk, messages, number):
    action = Action(number)
    with pytest.raises(OSError, match=os.strerror(number)):
        store_disk.write("The results", action)
    assert (action.calls, messages) == (1, [])


def test_a_disk_that_stays_full_is_waited_for_once_until_it_takes_something(store_disk, messages, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(disk.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(disk.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    full = [errno.ENOSPC] * 1000
    with pytest.raises(OSError, match="No space left"):
        store_disk.write("The results", Action(*full))
    assert disk.PATIENCE < now[0] < disk.PATIENCE + 2
    second = Action(*full)
    with pytest.raises(OSError, match="No space left"):
        store_disk.write("The results", second)
    assert second.calls == 1
    assert store_disk.write("The results", Action()) == "done"
    assert store_disk.write("The results", Action(errno.ENOSPC)) == "done"
    assert len(messages) == 2


def test_a_signal_ends_the_wait(store_disk):
    store_disk.stop.signum = 15
    with pytest.raises(Interrupted):
        store_disk.write("The results", Action(errno.ENOSPC))


def test_the_reason_is_what_the_system_says():
    assert reason(OSError(errno.ENOSPC, "bytes to file. Detail: [errno 28]")) == "No space left on device"
    assert reason(RuntimeError("unexpected pos 64\nat ...")) == "RuntimeError: unexpected pos 64"
