"""Eq. 7: thresholds, overlaps, enlargement at any size, and when a mask takes effect."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from asyndm_ext.regions import FixedRegion, ObjectRegion, downsampling, enlarge, resolve_overlaps, threshold_maps


def strided(size: int, times: int) -> int:
    """Rows left by that many 3x3 convolutions of stride 2 and padding 1."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


def test_the_rule_of_thumb_is_the_convolution() -> None:
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    for size in range(1, 40):
        assert conv(torch.zeros(1, 1, size, 4)).shape[2] == strided(size, 1)


# -- threshold


def test_threshold_is_a_multiple_of_the_spatial_mean() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 2.0]], [[0.0, 0.0], [0.0, 8.0]]]])  # means 2 and 2
    assert threshold_maps(maps, 1.0).tolist() == [[[[False, True], [True, True]], [[False, False], [False, True]]]]
    assert threshold_maps(maps, 1.25).tolist() == [[[[False, False], [True, False]], [[False, False], [False, True]]]]
    assert threshold_maps(maps, 0.5)[0, 0].all()
    assert not threshold_maps(maps, 4.5).any()


def test_threshold_looks_at_each_image_and_object_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand(3, 2, 4, 6, generator=generator)
    together = threshold_maps(maps, 1.2)
    for b in range(3):
        for n in range(2):
            mean = sum(maps[b, n].flatten().tolist()) / 24
            expected = [[value >= 1.2 * mean for value in row] for row in maps[b, n].tolist()]
            assert together[b, n].tolist() == expected
    assert torch.equal(threshold_maps(maps * torch.tensor([1e-6, 1e3]).view(1, 2, 1, 1), 1.2), together)


def test_an_object_without_any_attention_is_nowhere() -> None:
    # A row whose text lacks the object has zeros: 0 >= 1 * mean must not make the whole picture slow.
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, 0, 1, 1] = 0.5
    masks = threshold_maps(maps, 1.0)
    assert masks[0, 0].sum() == 1
    assert masks[0, 1].sum() == 0


# -- overlaps


def test_the_stronger_object_wins_and_the_first_on_a_tie() -> None:
    masks = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 1]]).bool().view(1, 3, 1, 5)
    won = resolve_overlaps(masks, torch.tensor([0.4, 0.7, 0.7]))
    assert won.view(3, 5).int().tolist() == [[0, 1, 0, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]]


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(
            st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.7, 1.0]), min_size=n, max_size=n),
            st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=12, max_size=12),
        )
    )
)
def test_every_covered_cell_has_one_winner(drawn: tuple[list[float], list[list[bool]]]) -> None:
    strengths, cells = drawn
    masks = torch.tensor(cells).T.reshape(1, len(strengths), 3, 4)
    won = resolve_overlaps(masks, torch.tensor(strengths, dtype=torch.float64)).view(len(strengths), 12).T.tolist()
    for present, winner in zip(cells, won, strict=True):
        candidates = [i for i, on in enumerate(present) if on]
        expected = [False] * len(strengths)
        if candidates:
            expected[max(candidates, key=lambda i: (strengths[i], -i))] = True
        assert winner == expected


# -- enlargement


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


# -- regions


def hot_corner(row: int, column: int, h: int = 4, w: int = 6) -> Tensor:
    maps = torch.full((1, 1, h, w), 0.01)
    maps[..., row, column] = 0.9
    return maps


def corner_map(row: int, column: int, strength: float) -> Tensor:
    expected = torch.zeros(1, 1, 16, 24, dtype=torch.float64)
    expected[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = strength
    return expected


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_lag_delays_the_mask_by_whole_steps(lag: int) -> None:
    region = ObjectRegion((1, 1, 16, 24), torch.tensor([0.7], dtype=torch.float64), lag=lag)
    everything = torch.full((1, 1, 16, 24), 0.7, dtype=torch.float64)
    corners = [(0, 0), (1, 5), (3, 2), (2, 2)]
    wanted = [everything] * lag + [corner_map(*corner, 0.7) for corner in corners]
    assert torch.equal(region.strength(), everything)
    for step, corner in enumerate(corners):
        region.observe(hot_corner(*corner))
        found = region.strength()
        assert found.dtype == torch.float64
        assert torch.equal(found, wanted[step]), f"step {step}"


def test_initial_strength_is_the_strongest_or_as_given() -> None:
    strengths = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64)
    assert ObjectRegion((2, 1, 8, 8), strengths).strength().unique().tolist() == [0.9]
    assert ObjectRegion((2, 1, 8, 8), strengths, initial=0.0).strength().unique().tolist() == [0.0]


def test_objects_keep_their_strengths_and_images_their_maps() -> None:
    strengths = torch.tensor([0.4, 0.7], dtype=torch.float64)
    region = ObjectRegion((2, 1, 8, 12), strengths, threshold=1.0)
    maps = torch.full((2, 2, 2, 3), 0.01)
    maps[0, 0, 0, :2] = 0.9  # object 1 in the two left cells of image 1
    maps[0, 1, 0, 1:] = 0.9  # object 2 overlaps in the middle
    maps[1, 0, 1, 0] = 0.9
    maps[1, 1, 0, 2] = 0.9
    region.observe(maps)
    cells = region.strength()[:, 0, ::4, ::4].tolist()
    assert cells == [[[0.4, 0.7, 0.7], [0, 0, 0]], [[0, 0, 0.7], [0.4, 0, 0]]]
    assert region.masks is not None and region.masks.sum(dim=1).max() == 1


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_missing_or_broken_attention_is_an_error(poison: float) -> None:
    region = ObjectRegion((1, 1, 16, 24), torch.tensor([0.7]))
    with pytest.raises(RuntimeError, match="no cross-attention"):
        region.observe(None)
    maps = hot_corner(1, 1)
    maps[0, 0, 0, 0] = poison
    with pytest.raises(RuntimeError, match="not finite"):
        region.observe(maps)
    assert region.strength().unique().tolist() == pytest.approx([0.7]), "an unusable map changes nothing"


def test_fixed_regions_never_change() -> None:
    given_map = torch.rand(1, 1, 4, 4)
    region = FixedRegion(given_map)
    region.observe(hot_corner(0, 0))
    region.observe(None)
    assert torch.equal(region.strength(), given_map.double())
    everything = FixedRegion.everything((2, 1, 3, 3), 0.6).strength()
    assert everything.shape == (2, 1, 3, 3) and everything.unique().tolist() == [0.6]
