from __future__ import annotations

import math

import pytest

from bnstudy.claims.numbers import round_together, same_decimals, two_digits


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.87, "2.9"), (0.0421, "0.042"), (418, "420"), (9.96, "10"), (0, "0"), (1e-7, "1e-07"), (math.nan, "-")],
)
def test_a_number_has_two_significant_digits(value, text):
    assert two_digits(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((2.87, 2.5, 3.4), ["2.9", "2.5", "3.4"]),
        ((418, 381, 455), ["420", "380", "460"]),
        ((0.942, 0.9, 0.98), ["0.94", "0.90", "0.98"]),
        ((0.4, -0.4, 1.2), ["0.4", "-0.4", "1.2"]),
        ((-0.002, -1.3, 1.4), ["0.0", "-1.3", "1.4"]),  # no minus before a zero
        ((98.5, 98.2, 98.8), ["98.5", "98.2", "98.8"]),  # an interval that two digits would hide
        ((12, 0.2, 700), ["12", "0.20", "700"]),  # no ratio of 0
        ((12, 4.904, 27.3), ["12", "4.9", "27"]),  # no bound of one digit
        ((0.74, 0.0078, 1.46), ["0.74", "0.0078", "1.5"]),
        ((-13.7, -100, 3.04), ["-14", "-100", "3"]),  # 0 is within the interval
        ((5.4, -0.11, 11), ["5.4", "-0.1", "11.0"]),
        ((5, -0.01, 10), ["5", "0", "10"]),
        ((2.008, -0.071, 5.01), ["2.0", "-0.1", "5.0"]),
        ((1.2, -math.inf, math.inf), ["1.2", "-", "-"]),
    ],
)
def test_an_estimate_and_its_interval_have_the_same_decimals(values, texts):
    assert round_together(*values) == texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.0403, 0.023, 0.00898), ["0.0403", "0.0230", "0.0090"]),
        ((23.7, 37.14, math.nan, 0), ["23.7", "37.1", "-", "0.0"]),
        ((1234, 56), ["1234", "56"]),
        ((3e-9, 12.3), ["3e-09", "12.3"]),  # too far apart for one number of decimals
        ((math.nan,), ["-"]),
    ],
)
def test_a_column_has_the_same_decimals(values, texts):
    assert same_decimals(values) == texts
