"""The steps of a run at which something is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bnstudy.validation import Spec


@dataclass(frozen=True)
class When(Spec):
    """The steps at which something is measured. Step 0 is before training; the last step is always included."""

    def resolve(self, total: int) -> tuple[int, ...]:
        """The numbers of steps done, sorted and within 0..total, at which to measure in a run of `total` steps."""
        return tuple(sorted({step for step in self._steps(total) if 0 <= step <= total} | {total}))

    def most(self, total: int) -> int:  # noqa: ARG002
        """An upper bound of the number of steps that `resolve` returns, without listing them.

        A user's class may leave it at 1, and is then not checked.
        """
        return 1

    def _steps(self, total: int) -> Iterable[int]:
        raise NotImplementedError


@dataclass(frozen=True)
class AtEnd(When):
    """After the last step only."""

    def most(self, total: int) -> int:  # noqa: ARG002
        return 1

    def _steps(self, total: int) -> Iterable[int]:
        return (total,)


@dataclass(frozen=True)
class At(When):
    """At these steps."""

    steps: tuple[int, ...] = (0,)

    def most(self, total: int) -> int:  # noqa: ARG002
        return len(self.steps) + 1

    def _steps(self, total: int) -> Iterable[int]:  # noqa: ARG002
        return self.steps


@dataclass(frozen=True)
class AtFractions(When):
    """At these fractions of training, rounded to steps: 0 is before training, 1 after it."""

    fractions: tuple[float, ...] = (0.0, 0.1, 1.0)

    def check(self) -> None:
        in_range = all(0 <= fraction <= 1 for fraction in self.fractions)
        self.require(in_range, "fractions", "fractions of training, each in [0, 1]")

    def most(self, total: int) -> int:  # noqa: ARG002
        return len(self.fractions) + 1

    def _steps(self, total: int) -> Iterable[int]:
        return (round(fraction * total) for fraction in self.fractions)


@dataclass(frozen=True)
class Every(When):
    """Every `interval` steps, from step 0."""

    interval: int = 100

    def check(self) -> None:
        self.require(self.interval >= 1, "interval", "at least 1")

    def most(self, total: int) -> int:
        return total // self.interval + 2

    def _steps(self, total: int) -> Iterable[int]:
        return range(0, total + 1, self.interval)


@dataclass(frozen=True)
class LogSpaced(When):
    """Step 0, and about `points` steps spaced evenly on a log axis from step 1 to the last."""

    points: int = 20

    def check(self) -> None:
        self.require(self.points >= 2, "points", "at least 2")

    def most(self, total: int) -> int:
        return min(self.points, total) + 2

    def _steps(self, total: int) -> Iterable[int]:
        if self.points > 2 + 1.1 * total * math.log(total + 1):  # the last points are less than a step apart
            return range(total + 1)
        return (0, *(round(total ** (i / (self.points - 1))) for i in range(self.points)))


@dataclass(frozen=True)
class LogThenRegular(When):
    """Often at the start, when most changes, then regularly: about `early` log-spaced steps in the first 1/`regular`
    of training, and `regular` evenly spaced steps."""

    early: int = 10
    regular: int = 20

    def check(self) -> None:
        self.require(self.early >= 2, "early", "at least 2")
        self.require(self.regular >= 1, "regular", "at least 1")

    def most(self, total: int) -> int:
        return min(self.early, total) + min(self.regular, total) + 2

    def _steps(self, total: int) -> Iterable[int]:
        first, regular = max(1, total // self.regular), min(self.regular, total)
        yield from LogSpaced(self.early)._steps(first)
        yield from (round(total * i / regular) for i in range(1, regular + 1))
