"""The request of a command line: runs, their study, and how and where to train them. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bnstudy.run import RunSpec
from bnstudy.sweep.settings import Launcher, Settings, StudySpec
from bnstudy.validation import ConfigError


@dataclass(frozen=True)
class PlannedRun:
    """A run, named by the overrides in which it differs from the others; `arm` is its name without the seed."""

    spec: RunSpec
    name: str
    arm: str


@dataclass(frozen=True)
class Request:
    """The runs that a command line requests, the settings, and the study and scale, if any.

    arguments: of the command line, as typed.
    variant_of: the name of the study that the arguments change.
    members: the requests of several studies; `runs` holds the runs of all.
    """

    settings: Settings
    runs: tuple[PlannedRun, ...]
    study: StudySpec | None = None
    scale: str = ""
    launcher: Launcher = field(default_factory=Launcher)
    members: tuple[Request, ...] = ()
    arguments: tuple[str, ...] = ()
    variant_of: str = ""

    @property
    def option(self) -> str:
        """The name of the study before the arguments changed it; empty for none."""
        return self.variant_of or (self.study.name if self.study else "")


def together(requests: Sequence[Request]) -> list[Request]:
    """Join requests with the same settings, so that equal kinds of runs of several studies are trained at once."""
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(repr((request.settings, request.launcher)), []).append(request)
    return [join(members) if len(members) > 1 else members[0] for members in groups.values()]


def join(members: Sequence[Request]) -> Request:
    """One request with the runs of all these studies."""
    named = [(member.option, run) for member in members for run in member.runs]
    runs = tuple(replace(run, name=f"{study}: {run.name}", arm=study) for study, run in named)
    return replace(members[0], runs=runs, study=None, members=tuple(members))


@contextmanager
def naming(point: str) -> Iterator[None]:
    """Add the point of the sweep to the message of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"At {point}: {error}" if point else str(error)) from None


def varying_names(points: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Each point's (name, arm): the overrides in which the points differ, the arm's without the seed."""
    constant = set.intersection(*map(set, points))
    differing = [[o for o in overrides if o not in constant] for overrides in points]
    return [(" ".join(own), " ".join(o for o in own if not o.startswith("seed="))) for own in differing]
