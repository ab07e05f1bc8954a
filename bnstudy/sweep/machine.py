"""The machine that trains: its devices, and torch's settings."""

from __future__ import annotations

import logging
import os

import torch

from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError


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
    # If CUDA's compiler is installed but there is no GPU, it warns in each worker.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
