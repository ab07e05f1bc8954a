from __future__ import annotations

import numpy as np
import pytest

from bnstudy.stats.corrections import holm


def rejected_by_steps(p: list[float], alpha: float) -> set[int]:
    """Holm's procedure as it is described: the smallest p against alpha / m, the next against alpha / (m - 1), ..."""
    found = set()
    for left, i in zip(range(len(p), 0, -1), sorted(range(len(p)), key=p.__getitem__), strict=True):
        if p[i] > alpha / left:
            break
        found.add(i)
    return found


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_holm_rejects_the_same_hypotheses_as_its_steps(alpha: float) -> None:
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 30):
        p = [*(rng.random(m) ** 4), 0.003, 0.003]
        assert {i for i, adjusted in enumerate(holm(p)) if adjusted <= alpha} == rejected_by_steps(p, alpha)


def test_holm_agrees_with_a_calculation_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
