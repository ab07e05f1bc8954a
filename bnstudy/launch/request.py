"""What a command line asks for: runs, the purpose they serve, and how and where to do them. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bnstudy.spec import ConfigError, RunSpec, Spec


@dataclass(frozen=True)
class Settings(Spec):
    """How and where runs are done: nothing here changes what a run is.

    cache_dir: decoded datasets; null for `<results_dir>/cache`.
    threads: CPU threads; null for torch's choice.
    checkpoint_seconds: an unfinished run is saved about this often.
    """

    device: str = "auto"
    engine: Literal["auto", "serial"] = "auto"
    compile: bool = False
    threads: int | None = None
    progress: bool = True
    checkpoint_seconds: float = 30.0
    results_dir: str = "results"
    cache_dir: str | None = None

    def check(self) -> None:
        self.require(bool(self.results_dir), "results_dir", "the name of a folder")
        allowed = re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)
        self.require(bool(allowed), "device", "auto, cpu, cuda or cuda:N")
        self.require(self.threads is None or self.threads >= 1, "threads", "at least 1, or null for torch's choice")
        self.require(self.checkpoint_seconds > 0, "checkpoint_seconds", "a number of seconds above 0")

    @property
    def results(self) -> Path:
        return Path(self.results_dir).expanduser()

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir).expanduser() if self.cache_dir else self.results / "cache"


@dataclass(frozen=True)
class Scale(Spec):
    """How big a study is to be; the studies say what each scale means for them."""

    group: ClassVar[str] = "scale"
    name: str
    about: str = ""


@dataclass(frozen=True)
class Study(Spec):
    """A sweep with a purpose.

    title: the question it asks.
    claims: names of the claims it bears on.
    sweep, scales: overrides as on the command line, the latter by scale.
    """

    group: ClassVar[str] = "study"
    name: str
    title: str
    claims: tuple[str, ...]
    sweep: dict[str, Any]
    scales: dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """A run, and the overrides that tell it from the others of its sweep."""

    spec: RunSpec
    name: str
    arm: str


@dataclass(frozen=True)
class Request:
    """What a command line asks for: runs, how to do them, and the study and scale they belong to, if any."""

    settings: Settings
    runs: tuple[PlannedRun, ...]
    study: Study | None = None
    scale: str = ""


@contextmanager
def naming(point: str) -> Iterator[None]:
    """Say at which point of a sweep a value is not allowed."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"At {point}: {error}" if point else str(error)) from None


def varying_names(points: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Each point's (name, arm): the overrides in which the points differ, the arm's without the seed."""
    constant = set.intersection(*map(set, points))
    differing = [[o for o in own if o not in constant] for own in points]
    return [(" ".join(own), " ".join(o for o in own if not o.startswith("seed="))) for own in differing]
