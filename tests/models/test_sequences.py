import torch

from bnstudy.models.sequences import read_tokens, token_sizes


def test_a_token_is_a_row_or_some_pixels_in_reading_order():
    x = torch.arange(24.0).view(1, 2, 3, 4)
    rows, present = read_tokens(x)
    assert rows.shape[1:] == token_sizes((2, 3, 4)) == (3, 8)
    assert rows[0, 1].tolist() == [4, 16, 5, 17, 6, 18, 7, 19]
    assert present.all()
    pairs, _ = read_tokens(x, chunk=2)
    assert pairs.shape[1:] == token_sizes((2, 3, 4), chunk=2) == (6, 4)
    assert pairs[0, 1].tolist() == [2, 14, 3, 15]


def test_a_token_with_a_missing_pixel_is_absent_and_reads_as_0():
    x = torch.ones(2, 1, 3, 4)
    x[1, :, 2:] = torch.nan
    rows, present = read_tokens(x)
    assert present.tolist() == [[True] * 3, [True, True, False]]
    assert rows[1].sum() == 8
