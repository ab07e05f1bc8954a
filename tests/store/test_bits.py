from __future__ import annotations

import numpy as np
import pytest

from bnstudy.store.bits import pack_bits, unpack_bits


@pytest.mark.parametrize("n", [1, 7, 8, 9, 359, 10_000])
def test_unpacked_bits_are_those_that_were_packed(n: int) -> None:
    bits = np.random.default_rng(n).random(n) < 0.7
    assert unpack_bits(pack_bits(bits), n).tolist() == bits.tolist()
    assert len(pack_bits(bits)) <= 4 * (n // 24 + 1)


def test_the_first_bit_is_the_highest_of_the_first_byte() -> None:
    assert pack_bits(np.array([True, *[False] * 7, False, True])) == "gEA="  # 1000 0000, 0100 0000


@pytest.mark.parametrize(("text", "n"), [("gEA=", 8), ("gEA=", 17), ("gEA", 10), ("g*A=", 10), ("", 1), ("gEÄ=", 10)])
def test_a_text_of_another_length_or_alphabet_is_refused(text: str, n: int) -> None:
    with pytest.raises(ValueError, match=r"hold|base64|padding|ASCII"):
        unpack_bits(text, n)
