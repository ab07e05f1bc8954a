from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bnstudy.stats.tests import holm, sign_flip_p
from tests.stats.test_intervals import sample


@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_the_sign_flip_test_is_scipys(n: int) -> None:
    d = sample(n)
    expected = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    assert sign_flip_p(d) == pytest.approx(expected)


def test_the_smallest_p_is_two_in_two_to_the_n() -> None:
    assert sign_flip_p(np.arange(1, 11)) == 2 / 2**10


def test_ties_count_as_equally_far_despite_rounding() -> None:
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0


def test_many_differences_are_tested_with_a_sample_of_signs() -> None:
    d = sample(40, 0.3)
    assert sign_flip_p(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=0.2)
    assert sign_flip_p(d) == sign_flip_p(d)
    assert sign_flip_p(np.ones(40)) > 0


def test_holm_agrees_with_a_calculation_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
