"""The machine that trains: its devices, torch's settings, and the folder of compiled programs.

Compiled programs are executed when they are loaded. So they are never kept in the store, which may come from somebody
else, but in the user's cache folder, if nobody else can write there.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path

import torch

from bnstudy.sweep.forkserver import set_compiler_threads
from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError

_log = logging.getLogger(__name__)

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""The user's own choice of a folder for compiled programs, which torch reads."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""

MOST_KEPT = 2**30
"""Bytes of freed memory that a process keeps."""

LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest piece that it keeps; glibc allows no more."""


def resolve_device(settings: Settings) -> torch.device:
    """Raises ConfigError if there is no such CUDA device."""
    count = torch.cuda.device_count()
    if settings.device == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(settings.device)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = "no CUDA device is found" if count == 0 else f"only {count} CUDA device(s) are found"
        raise ConfigError(f"device={settings.device} is not allowed: {there}; use device=auto or device=cpu.")
    return device


def set_up_torch(settings: Settings, device: torch.device) -> None:
    """Configure torch so that the same command gives the same numbers."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.compile is not False and CACHE_VARIABLE not in os.environ:
        os.environ[CACHE_VARIABLE] = str(compiled_programs())
    set_compiler_threads()
    keep_freed_memory()
    # If CUDA's compiler is installed but there is no GPU, it warns in each worker.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a step frees for the next one.

    Otherwise glibc returns it to the system, and each page of it has to be made anew at its first use.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
            mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def compiled_programs() -> Path:
    """The folder of compiled programs: kept for later commands, or if that is not safe, until the process ends."""
    try:
        return own_cache() / processor()
    except OSError:
        folder = tempfile.mkdtemp(prefix="bnstudy-compiled-")
        Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=0)  # unlike atexit, also in a worker process
        return Path(folder)


def check_compiled_programs() -> None:
    """Say why compiled programs are not kept, if they are not."""
    try:
        _ = CACHE_VARIABLE in os.environ or own_cache()
    except OSError as error:
        _log.warning("Compiled programs are not kept for later commands: %s.", error)


def own_cache() -> Path:
    """The user's folder for compiled programs: `$XDG_CACHE_HOME/bnstudy/compiled`, or in `~/.cache`.

    Raises:
        OSError: it cannot be made, or somebody else can write there.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = home if home.is_absolute() else Path(os.path.expanduser("~/.cache")).absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    above = home.stat()
    if above.st_uid not in (0, os.getuid()):
        raise OSError(f"{home} belongs to another user")
    if above.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not above.st_mode & stat.S_ISVTX:
        raise OSError(f"others can replace folders in {home}, unless you type chmod go-w {home}")
    for folder in (home / "bnstudy", home / "bnstudy" / "compiled"):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(f"{folder} is not a folder")
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(f"{folder} may be written by others: it must be yours, with mode 700")
    if not os.access(folder, os.W_OK):
        raise OSError(f"{folder} cannot be written")
    return folder


def processor() -> str:
    """A name for the processor's features: code compiled for another processor may hold illegal instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else [platform.processor()]
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}) or lines[:1]
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:8]
