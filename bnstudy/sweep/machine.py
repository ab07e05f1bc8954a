"""The machine that trains: its devices, and torch's settings."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from contextlib import suppress

import torch

from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError

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
    keep_freed_memory()
    # If CUDA's compiler is installed but there is no GPU, it warns in each worker.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False  # torch's default rounds the factors of convolutions to 10 bits


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a step frees for the next one.

    Otherwise glibc returns it to the system, and each page of it has to be made anew at its first use.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
            mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
