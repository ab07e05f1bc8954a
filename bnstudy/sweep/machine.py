"""The machine that trains: its devices and torch's settings."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path

import torch

from bnstudy.sweep.forkserver import set_compiler_threads
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
    # Compiled code is kept for the next command, with the results, except a compiler's header in /tmp.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.cache.absolute() / "compiled" / processor()))
    set_compiler_threads()
    # If CUDA's compiler is installed but there is no GPU, it warns in each worker.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def processor() -> str:
    """A name for the processor's features: code compiled for another processor may hold illegal instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else [platform.processor()]
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}) or lines[:1]
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:8]
