"""What is known of how the results were made: seconds of each part, machine, versions, commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bnstudy.store.files import conf_dir, write_json
from bnstudy.store.identity import SCHEMA, digest

ROOT = Path(__file__).parents[2]
WORK, PUBLISHED = Path("results/trained"), Path("results/published")
"""Where the parts are trained, which git ignores, and what is published of them."""
RECORD = "parts.json"
VERSIONS = ("torch", "numpy", "scipy", "pandas", "pyarrow", "matplotlib")


@dataclass
class PartRecord:
    """How a part was trained.

    settings: `settings_of` its commands when it was last finished. seconds: of all its commands, over all times
    that it was started. remark: what else a reader must know of these seconds, written by hand after the last start.
    """

    done: bool = False
    settings: str = ""
    started: int = 0
    seconds: float = 0.0
    remark: str = ""
    commands: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def note(self, commands: Sequence[str]) -> None:
        """Take down where the part is trained now."""
        self.started += 1
        self.commands = [*commands]
        for known, value in (
            (self.commits, describe_commit()),
            (self.machines, describe_machine()),
            (self.versions, describe_versions()),
        ):
            if value not in known:
                known.append(value)


class Record:
    """The file `RECORD` of the work: a record of each part, saved after each command. It is published as well."""

    def __init__(self, work: Path) -> None:
        self.path = work / RECORD
        stored: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.parts = {name: PartRecord(**values) for name, values in stored.items()}

    def of(self, name: str) -> PartRecord:
        return self.parts.setdefault(name, PartRecord())

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {name: asdict(part) for name, part in self.parts.items()})

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts.values())


def settings_of(commands: Sequence[Sequence[str]]) -> str:
    """A digest of commands and of all configs: other settings plan other runs."""
    configs = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in conf_dir().rglob("*.yaml")}
    return digest([SCHEMA, [list(words) for words in commands], configs])


def describe_commit() -> str:
    """`"1a2b3c..."`, and whether files differ from it; "unknown" outside of a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "bnstudy", "conf", "hydra_plugins")
        return git("rev-parse", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_machine() -> str:
    """`"2 cores of Intel(R) Xeon(R) CPU @ 2.20GHz, 8 GiB, Linux x86_64"`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cores} cores of {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or "an unknown processor")


def describe_versions() -> str:
    """`"bnstudy 0.1.0, Python 3.12.3, torch 2.11.0, ..."`."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("bnstudy", *VERSIONS))
    return f"Python {platform.python_version()}, {packages}"
