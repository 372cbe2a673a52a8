"""Maps of few numbers: worked out once for each number, and known beside the maps that are made of them."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asyndm_ext.clock import distinct as module
from asyndm_ext.clock.distinct import (
    PIXEL,
    elementwise,
    numbers,
    numbers_of_few,
    occurring,
    of_pairs,
    repeated,
    spread,
)
from asyndm_ext.clock.schedule import CURVES, PixelClock, next_height
from asyndm_ext.model.timesteps import TimestepTable


def some(shape: tuple[int, ...], numbers: int, seed: int = 0) -> Tensor:
    """A map of cells of three pixels in a row, of a few numbers that are no short fractions."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, numbers, shape, generator=draw).double().div(numbers + 0.3).repeat_interleave(3, dim=-1)


def pairwise(work: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return of_pairs(work, numbers(x), numbers(y)).map()


def is_true(x: Tensor) -> None:
    """What is said of a map is what torch finds by sorting all of it."""
    found = numbers(x)
    expected, expected_where = torch.unique(x, return_inverse=True)
    assert torch.equal(found.values, expected) and torch.equal(found.pixels.long(), expected_where)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 1, 9, 13)])
def test_the_distinct_numbers_of_a_map(shape: tuple[int, ...]) -> None:
    x = some(shape, 5)
    for order in (x, x.flip(-1), x.transpose(0, -1)):
        is_true(order)
        values, where, block = numbers(order)
        assert torch.equal(values[where.long()], order) and block == PIXEL


def rising(v: Tensor) -> Tensor:
    return v**2 + 1


def falling(v: Tensor) -> Tensor:
    return 1 / (v + 1)


def coarse(v: Tensor) -> Tensor:
    return (v * 3).round()


@pytest.mark.parametrize("work", [rising, falling, coarse, torch.clone])
def test_elementwise_is_the_work_itself_and_its_numbers_are_known(work, monkeypatch) -> None:
    x = some((2, 1, 6, 5), 7)
    made = elementwise(work, x)
    assert torch.equal(made, work(x))
    is_true(made)
    monkeypatch.setattr(torch, "unique_consecutive", None)  # nothing is sorted out again
    numbers(made)


def test_a_map_that_nothing_changes_stays_the_same_one() -> None:
    x = some((1, 1, 4, 4), 3)
    assert elementwise(torch.abs, x) is x


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_pairwise_is_the_work_itself(first: int, second: int, seed: int) -> None:
    x, y = some((2, 1, 5, 4), first, seed), some((2, 1, 5, 4), second, seed + 1)
    made = pairwise(lambda a, b: a * 3 + b.sqrt(), x, y)
    assert torch.equal(made, x * 3 + y.sqrt())
    is_true(made)


def test_many_different_numbers_are_not_crossed() -> None:
    """Every pixel a number of its own: there are more pairs than pixels, and the work is done on the maps."""
    x, y = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    shapes = []

    def work(a: Tensor, b: Tensor) -> Tensor:
        shapes.append(a.shape)
        return a + b

    assert torch.equal(pairwise(work, x, y), x + y) and shapes == [x.shape]


def test_a_map_that_was_changed_in_place_is_sorted_out_anew() -> None:
    made = spread(torch.tensor([2.0, 1.0]), torch.tensor([0, 1, 1], dtype=torch.int32))
    is_true(made)
    made[0] = 7
    is_true(made)


def test_in_inference_mode_too() -> None:
    """Forge samples in it."""
    with torch.inference_mode():
        made = elementwise(rising, some((1, 1, 4, 4), 3))
        is_true(made)
        assert made in module._known


def test_what_is_known_goes_with_the_map() -> None:
    gc.collect()
    before = len(module._known)
    x = some((1, 1, 4, 4), 3)
    made = elementwise(rising, x)
    assert len(module._known) == before + 2
    del made, x
    gc.collect()
    assert len(module._known) == before


def test_what_occurs() -> None:
    assert occurring(np.array([[5, 2], [2, 9]], dtype=np.int32), 12).tolist() == [2, 5, 9]


@pytest.mark.parametrize("block", [PIXEL, (2, 3)])
def test_the_map_of_numbers(block: tuple[int, int]) -> None:
    cells = some((2, 1, 3, 2), 5)
    found = numbers(cells)._replace(block=block)
    made = found.map()
    assert torch.equal(made, cells.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1))
    assert numbers(made) is found, "its numbers are known"


KNOWN = [0.0, 0.4, 0.7]


@given(st.lists(st.sampled_from(KNOWN), min_size=6, max_size=6))
def test_a_map_of_a_few_known_numbers(told: list[float]) -> None:
    """Those that occur nowhere are none of its numbers."""
    x = torch.tensor(told, dtype=torch.float64).view(1, 1, 2, 3)
    found = numbers_of_few(x, [0.7, *KNOWN])
    assert found is not None
    expected = numbers(x)
    assert torch.equal(found.values, expected.values) and torch.equal(found.where, expected.where)
    assert found.where.dtype == torch.int32 and found.block == PIXEL


@pytest.mark.parametrize("other", [0.5, -0.1, 0.8, float("nan")])
def test_a_map_with_another_number(other: float) -> None:
    x = torch.tensor([[0.0, 0.4], [other, 0.7]], dtype=torch.float64)
    assert numbers_of_few(x, KNOWN) is None


def test_a_map_of_too_many_known_numbers() -> None:
    many = [0.05 * one for one in range(12)]
    assert numbers_of_few(torch.tensor([many[:2]], dtype=torch.float64), many) is None


@pytest.mark.parametrize("curve", CURVES)
def test_the_clock_is_the_closed_form_of_every_pixel(curve: str) -> None:
    """To the bit, with strengths that change from step to step."""
    shape, steps = (2, 1, 12, 12), 9
    clock = PixelClock(shape, steps, curve)
    height, remaining = torch.ones(shape, dtype=torch.float64), 1.0
    for step in range(steps):
        strength = some((2, 1, 12, 4), 4, seed=step)
        height = next_height(curve, height, remaining, 1 / steps, strength)
        assert torch.equal(clock.advance(strength), height)
        remaining = (steps - step - 1) / steps


# -- cells of several pixels


BLOCKS = st.sampled_from([(1, 1), (2, 2), (4, 2), (1, 4)])


@given(block=BLOCKS, seed=st.integers(0, 99))
def test_a_map_of_cells_stays_one(block: tuple[int, int], seed: int) -> None:
    """And has the pixels that it would have without them."""
    cells = some((2, 1, 3, 4), 5, seed)
    found = numbers(cells)
    made = spread(found.values, found.where, block)
    assert torch.equal(made, cells.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1))
    is_true(made)
    for work in (rising, falling, coarse):
        after = elementwise(work, made)
        assert torch.equal(after, work(made)) and numbers(after).block == block
        is_true(after)


def map_of_cells(block: tuple[int, int], count: int, seed: int) -> Tensor:
    """Of 8 x 12 pixels and so many numbers at most."""
    draw = torch.Generator().manual_seed(seed)
    cells = numbers(torch.randint(0, count, (1, 1, 8 // block[0], 12 // block[1]), generator=draw) / (count + 0.3))
    return spread(cells.values, cells.where, block)


@given(one=BLOCKS, other=BLOCKS, first=st.integers(1, 9), second=st.integers(1, 9), seed=st.integers(0, 99))
def test_two_maps_of_cells(one: tuple[int, int], other: tuple[int, int], first: int, second: int, seed: int) -> None:
    """Of the same size or not, of one number each, or of so many that they are not crossed."""
    x, y = map_of_cells(one, first, seed), map_of_cells(other, second, seed + 1)
    made = pairwise(lambda a, b: a * 3 + b.sqrt(), x, y)
    assert torch.equal(made, x * 3 + y.sqrt())
    is_true(made)
    if one == other or 1 in (len(x.unique()), len(y.unique())):
        finest = min((numbers(m).block for m in (x, y) if len(m.unique()) > 1), default=numbers(made).block)
        assert numbers(made).block == finest


def test_a_table_of_timesteps_that_are_made_of_levels() -> None:
    """Worked out for the distinct levels only; of two that round to the same timestep there is one row."""
    asked = []

    def timestep(levels: Tensor) -> Tensor:
        asked.append(levels.shape)
        return 1000 - 300 * levels.float()

    level = some((2, 1, 5, 4), 6)
    level[0, 0, 0, 0] += 1e-6
    made, expected = TimestepTable.from_map(level, 0.25, timestep), TimestepTable.from_map(1000 - 300 * level, 0.25)
    assert asked == [(7,)]
    assert torch.equal(made.values, expected.values) and made.counts == expected.counts and sum(made.counts) <= 12
    assert torch.equal(made.index, expected.index) and made.cells.dtype == torch.int32


@pytest.mark.parametrize("block", [(1, 1), (4, 4), (2, 8)])
def test_a_table_of_cells_is_that_of_the_pixels(block: tuple[int, int]) -> None:
    """At feature maps of every size, odd ones too."""
    cells = numbers((some((2, 1, 5, 4), 9) * 900).round())
    of_cells = TimestepTable.from_map(spread(cells.values, cells.where, block), 0.25)
    full = repeated(cells.values[cells.where.long()], block)
    of_pixels = TimestepTable.from_map(full, 0.25)
    assert of_cells.block == block and of_pixels.block == PIXEL and of_cells.size == full.shape[-2:]
    assert torch.equal(of_cells.values, of_pixels.values) and of_cells.counts == of_pixels.counts
    assert torch.equal(of_cells.index, of_pixels.index)
    size = full.shape[-2:]
    for halvings in range(5):
        for more in (0, 1):
            h, w = (-(-side // 2**halvings) + more for side in size)
            assert torch.equal(of_cells.index_at(h, w), of_pixels.index_at(h, w)), (h, w)
