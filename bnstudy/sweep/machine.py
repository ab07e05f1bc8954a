"""The machine that trains: its devices, how torch is set up on it, and which code runs."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

from bnstudy.sweep.forkserver import set_up
from bnstudy.sweep.settings import Settings
from bnstudy.validation import ConfigError


def resolve_device(settings: Settings) -> torch.device:
    """Raises ConfigError for CUDA where there is none."""
    count = torch.cuda.device_count()
    if settings.device == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(settings.device)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = "no CUDA device is found" if count == 0 else f"only {count} CUDA device(s) are found"
        raise ConfigError(f"device={settings.device} is not allowed: {there}; use device=auto or device=cpu.")
    return device


def prepare(settings: Settings, device: torch.device) -> None:
    """Set torch up so that the same command gives the same numbers."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # What inductor compiles is kept for the next command, with the results; but for a compiler's header in /tmp.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.cache.absolute() / "compiled" / processor()))
    set_up()
    # Where CUDA's compiler is installed and no GPU is, it says so in each worker.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def processor() -> str:
    """A name for what this machine's processor can do: what was compiled for another may be an illegal instruction."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else [platform.processor()]
    able = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}) or lines[:1]
    return hashlib.sha256("\n".join(able).encode()).hexdigest()[:8]


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@cache
def git_commit() -> str | None:
    """The commit of the checkout that the package runs from, with "+" if it has changes; None when installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes.stdout.strip() else "")
