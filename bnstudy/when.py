"""At which steps of a run something is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bnstudy.validation import Spec


@dataclass(frozen=True)
class When(Spec):
    """At which updates something is measured. Update 0 is before training; the last is always among them."""

    def updates(self, total: int) -> tuple[int, ...]:
        """The sorted, distinct numbers of updates done, within 0..total, at which to measure."""
        return tuple(sorted({u for u in self._inner(total) if 0 <= u <= total} | {total}))

    def _inner(self, total: int) -> Iterable[int]:
        raise NotImplementedError


@dataclass(frozen=True)
class AtEnd(When):
    """After the last update only."""

    def _inner(self, total: int) -> Iterable[int]:
        return (total,)


@dataclass(frozen=True)
class At(When):
    """At the listed updates."""

    listed: tuple[int, ...] = (0,)

    def _inner(self, total: int) -> Iterable[int]:  # noqa: ARG002
        return self.listed


@dataclass(frozen=True)
class AtShares(When):
    """At these shares of the training, rounded to updates: 0 is before it, 1 after it."""

    shares: tuple[float, ...] = (0.0, 0.1, 1.0)

    def check(self) -> None:
        self.require(all(0 <= share <= 1 for share in self.shares), "shares", "shares of the training, each in [0, 1]")

    def _inner(self, total: int) -> Iterable[int]:
        return (round(share * total) for share in self.shares)


@dataclass(frozen=True)
class Every(When):
    """Every `interval` updates, from update 0."""

    interval: int = 100

    def check(self) -> None:
        self.require(self.interval >= 1, "interval", "at least 1")

    def _inner(self, total: int) -> Iterable[int]:
        return range(0, total + 1, self.interval)


@dataclass(frozen=True)
class LogSpaced(When):
    """Update 0 and about `points` updates spaced evenly on a log axis from 1 to the last."""

    points: int = 20

    def check(self) -> None:
        self.require(self.points >= 2, "points", "at least 2")

    def _inner(self, total: int) -> Iterable[int]:
        return (0, *(round(total ** (i / (self.points - 1))) for i in range(self.points)))


@dataclass(frozen=True)
class LogThenRegular(When):
    """Dense early, when most happens, then regular: about `early` log-spaced updates within the first
    1/`regular` of the training and `regular` evenly spaced ones."""

    early: int = 10
    regular: int = 20

    def check(self) -> None:
        self.require(self.early >= 2, "early", "at least 2")
        self.require(self.regular >= 1, "regular", "at least 1")

    def _inner(self, total: int) -> Iterable[int]:
        first = max(1, total // self.regular)
        yield from LogSpaced(self.early)._inner(first)
        yield from (round(total * i / self.regular) for i in range(1, self.regular + 1))
