from __future__ import annotations

import time

import pytest

from bnstudy.when import At, AtEnd, AtFractions, Every, LogSpaced, LogThenRegular


def log_spaced(points: int, total: int) -> set[int]:
    return {0, *(round(total ** (i / (points - 1))) for i in range(points))}


@pytest.mark.parametrize("total", [1, 2, 7, 30])
def test_many_points_are_those_of_the_definition(total: int) -> None:
    for points in (2, 3, total + 2, 3 * total, 5 * total, 200 * total):
        assert LogSpaced(points).resolve(total) == tuple(sorted(log_spaced(points, total) | {total}))
        regular = points - 1
        defined = {round(total * i / regular) for i in range(1, regular + 1)}
        defined |= log_spaced(6, max(1, total // regular))
        assert LogThenRegular(6, regular).resolve(total) == tuple(sorted(defined))


@pytest.mark.parametrize("when", [LogSpaced(10**12), LogThenRegular(10, 10**12), LogThenRegular(10**12, 1)])
def test_more_points_than_steps_take_no_longer(when: LogSpaced | LogThenRegular) -> None:
    begin = time.process_time()
    assert when.resolve(100) == tuple(range(101))
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(
    "when",
    [AtEnd(), At((0, 5, 900)), AtFractions((0, 0.1, 1)), Every(7), LogSpaced(20), LogThenRegular(), LogSpaced(999)],
)
@pytest.mark.parametrize("total", [1, 2, 10, 1000])
def test_no_more_steps_are_measured_than_estimated(when, total: int) -> None:
    assert len(when.resolve(total)) <= when.most(total) <= 2 * total + 5
