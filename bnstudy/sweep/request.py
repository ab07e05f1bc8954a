"""What a command line asks for: runs, the purpose they serve, and how and where to do them. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bnstudy.run import RunSpec
from bnstudy.sweep.settings import Launcher, Settings, StudySpec
from bnstudy.validation import ConfigError


@dataclass(frozen=True)
class PlannedRun:
    """A run, and the overrides that tell it from the others of its sweep."""

    spec: RunSpec
    name: str
    arm: str


@dataclass(frozen=True)
class Request:
    """What a command line asks for: runs, how to do them, and the study and scale they belong to, if any.

    part: whether more will follow, from a sweeper that looks at results and tells of them itself.
    arguments: of the command line, as typed.
    members: of several studies at once, what each asks for; `runs` are then those of all.
    """

    settings: Settings
    runs: tuple[PlannedRun, ...]
    study: StudySpec | None = None
    scale: str = ""
    launcher: Launcher = field(default_factory=Launcher)
    part: bool = False
    members: tuple[Request, ...] = ()
    arguments: tuple[str, ...] = ()


def together(requests: Sequence[Request]) -> list[Request]:
    """One request for all that are to be done in the same way: like runs of several studies are trained at once."""
    alike: dict[str, list[Request]] = {}
    for request in requests:
        alike.setdefault(repr((request.settings, request.launcher)), []).append(request)
    return [_joined(members) if len(members) > 1 else members[0] for members in alike.values()]


def _joined(members: Sequence[Request]) -> Request:
    named = [(member.study.name, run) for member in members if member.study for run in member.runs]
    runs = [replace(run, name=f"{study}: {run.name}", arm=study) for study, run in named]
    return replace(members[0], runs=tuple(runs), study=None, members=tuple(members))


@contextmanager
def naming(point: str) -> Iterator[None]:
    """Say at which point of a sweep a value is not allowed."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"At {point}: {error}" if point else str(error)) from None


def varying_names(points: Sequence[Sequence[str]], fixed: Collection[str] | None = None) -> list[tuple[str, str]]:
    """Each point's (name, arm): the overrides in which the points differ, the arm's without the seed.

    fixed: the overrides in which they do not, where the points are not all there are.
    """
    constant = set.intersection(*map(set, points)) if fixed is None else fixed
    differing = [[o for o in own if o not in constant] for own in points]
    return [(" ".join(own), " ".join(o for o in own if not o.startswith("seed="))) for own in differing]
