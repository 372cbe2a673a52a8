"""Which pixels a cell stands for: enlargement at any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from asyndm_ext.region.grid import distinct, downsampling, enlarge


def strided(size: int, times: int) -> int:
    """Rows left by that many 3x3 convolutions of stride 2 and padding 1."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


def test_the_rule_of_thumb_is_the_convolution() -> None:
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    for size in range(1, 40):
        assert conv(torch.zeros(1, 1, size, 4)).shape[2] == strided(size, 1)


@pytest.mark.parametrize("size", [(65, 97), (64, 64), (104, 152), (128, 192), (33, 49), (5, 9)])
def test_a_hot_cell_covers_the_pixels_that_the_network_put_there(size: tuple[int, int]) -> None:
    h, w = strided(size[0], 2), strided(size[1], 2)
    for row, column in [(0, 0), (h - 1, w - 1), (h // 2, w // 3), (0, w - 1), (h - 1, 0)]:
        cells = torch.zeros(1, 1, h, w)
        cells[..., row, column] = 1
        hot = enlarge(cells, size)
        assert hot.shape == (1, 1, *size)
        expected = torch.zeros(size)
        expected[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
        assert torch.equal(hot[0, 0], expected)


@given(st.integers(1, 300), st.integers(0, 3))
def test_cells_are_where_strided_convolutions_look(size: int, times: int) -> None:
    """A delta convolution of stride 2 keeps every other row, so cell c stands for rows f*c to f*c+f-1."""
    kept = list(range(size))
    for _ in range(times):
        kept = kept[::2]
    factor = 2**times
    assert kept == [factor * c for c in range(strided(size, times))]
    if len(kept) > 1:
        assert downsampling(size, len(kept)) == factor
    enlarged = enlarge(torch.tensor(kept).view(-1, 1), (size, 1)).flatten().tolist()
    assert enlarged == [row - row % factor for row in range(size)]


@given(st.integers(1, 40), st.integers(1, 40))
def test_square_latents_enlarge_like_the_authors(h: int, w: int) -> None:
    cells = torch.arange(h * w, dtype=torch.float32).view(1, 1, h, w)
    size = (4 * h, 4 * w)
    assert torch.equal(enlarge(cells, size), nn.functional.interpolate(cells, size, mode="nearest"))


@pytest.mark.parametrize(("size", "small"), [(65, 16), (64, 48), (64, 43), (10, 4), (64, 64), (3, 5)])
def test_sizes_of_other_networks_stay_inside(size: int, small: int) -> None:
    # Networks that round down or resize freely: whatever factor is found, every row has a cell, in order.
    rows = enlarge(torch.arange(small).view(-1, 1), (size, 1)).flatten()
    assert rows[0] == 0
    assert int(rows.min()) >= 0 and int(rows.max()) < small
    assert bool((rows[1:] >= rows[:-1]).all())


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 1, 9, 13)])
def test_the_distinct_numbers_of_a_map(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 5, shape, generator=draw).double().div(3).repeat_interleave(3, dim=-1)
    for order in (x, x.flip(-1), x.transpose(0, -1)):
        values, where = distinct(order)
        expected, expected_where = torch.unique(order, return_inverse=True)
        assert torch.equal(values, expected) and torch.equal(where, expected_where)
        assert torch.equal(values[where], order)
