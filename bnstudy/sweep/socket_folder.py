"""Imported by the fork server only: at its end it removes the folder of its socket, which a killed command leaves."""

from __future__ import annotations

import atexit
import os
import shutil
from multiprocessing import forkserver
from pathlib import Path


def remove(server: int) -> None:
    """Remove the folder, but not from a process that the server has forked."""
    address = getattr(forkserver._forkserver, "_forkserver_address", None)
    if os.getpid() == server and address:
        shutil.rmtree(Path(address).parent, ignore_errors=True)


atexit.register(remove, os.getpid())
