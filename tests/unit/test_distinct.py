"""Maps of few numbers: worked out once for each number, and known beside the maps that are made of them."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asyndm_ext.clock import distinct as module
from asyndm_ext.clock.distinct import distinct, elementwise, occurring, pairwise, spread
from asyndm_ext.clock.schedule import CURVES, PixelClock, next_height


def some(shape: tuple[int, ...], numbers: int, seed: int = 0) -> Tensor:
    """A map of cells of three pixels in a row, of a few numbers that are no short fractions."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, numbers, shape, generator=draw).double().div(numbers + 0.3).repeat_interleave(3, dim=-1)


def is_true(x: Tensor) -> None:
    """What is said of a map is what torch finds by sorting all of it."""
    values, where = distinct(x)
    expected, expected_where = torch.unique(x, return_inverse=True)
    assert torch.equal(values, expected) and torch.equal(where.long(), expected_where)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 1, 9, 13)])
def test_the_distinct_numbers_of_a_map(shape: tuple[int, ...]) -> None:
    x = some(shape, 5)
    for order in (x, x.flip(-1), x.transpose(0, -1)):
        is_true(order)
        values, where = distinct(order)
        assert torch.equal(values[where.long()], order)


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
    distinct(made)


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
    index, used = occurring(torch.tensor([[5, 2], [2, 9]], dtype=torch.int32), 12)
    assert used.tolist() == [2, 5, 9] and index.tolist() == [[1, 0], [0, 2]]


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
