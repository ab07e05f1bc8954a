from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from bnstudy.store.columns import numbers, texts


@pytest.mark.parametrize("values", [[], [3], [1, 2, 2]])
def test_numbers_are_those_of_pyarrow(values):
    assert numbers(values, np.int64).equals(pa.array(values, pa.int64()))
    assert numbers(np.array(values, float)[::-1], np.float64).equals(pa.array([float(v) for v in values][::-1], "f8"))


@pytest.mark.parametrize("values", [[], [""], ["b", "ä", "", "b", "a"]])
def test_texts_are_those_of_pyarrow(values):
    assert texts(values).equals(pa.array(values, pa.string()).dictionary_encode())


def test_columns_need_no_pandas():
    code = (
        "import sys, numpy; from bnstudy.store.columns import *; numbers([1], numpy.int64), texts(['a']); "
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
