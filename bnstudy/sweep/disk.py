"""Writing to a disk that is full, read-only or away for a while."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bnstudy.sweep.messages import Send
from bnstudy.sweep.signals import StopFlag
from bnstudy.sweep.stackable import one_line

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a worker no longer waits for the disk."""

PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT}
"""Errors of a whole disk, which may pass. Others, such as of a protected folder, concern one run."""


@dataclass
class Disk:
    """The disk of the store, as one worker sees it.

    is_lost: whether the worker waited in vain, so that it does not wait for each further run, too.
    """

    send: Send
    stop: StopFlag
    is_lost: bool = False

    def write(self, what: str, action: Callable[[], T]) -> T:
        """Call `action`, again and again while the disk takes nothing.

        Raises:
            OSError: the error does not pass, or lasts longer than PATIENCE.
            Interrupted: a signal came while it waited.
        """
        begin, announced = time.monotonic(), False
        while True:
            try:
                done = action()
            except OSError as error:
                passing = error.errno in PASSING
                if not passing or self.is_lost or time.monotonic() - begin > PATIENCE:
                    self.is_lost |= passing
                    raise
                why = reason(error)
            else:
                self.is_lost = False
                return done
            if not announced:
                self.send(f"{what} cannot be written ({why}): trying again for {PATIENCE:.0f} s.")
                announced = True
            self.stop.check()
            time.sleep(min(0.5, PATIENCE))


def reason(failure: Exception) -> str:
    """What the system says of a failed write; for a RuntimeError of torch.save, which does not, its message."""
    number = getattr(failure, "errno", None)
    return os.strerror(number) if number else one_line(failure)
