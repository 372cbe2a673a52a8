"""Regions: when a mask takes effect, masks that are given, both together, and for how long."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from asyndm_ext.region.regions import (
    AverageAttention,
    Between,
    FixedRegion,
    MaskedRegion,
    NoAttention,
    ObjectRegion,
    PerPatch,
    region_for,
)
from asyndm_ext.settings import Settings


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
    region = ObjectRegion((2, 1, 8, 12), strengths)
    maps = torch.full((2, 2, 2, 3), 0.01)
    maps[0, 0, 0, :2] = 0.9  # object 1 in the two left cells of image 1
    maps[0, 1, 0, 1:] = 0.9  # object 2 overlaps in the middle
    maps[1, 0, 1, 0] = 0.9
    maps[1, 1, 0, 2] = 0.9
    region.observe(maps)
    cells = region.strength()[:, 0, ::4, ::4].tolist()
    assert cells == [[[0.4, 0.7, 0.7], [0, 0, 0]], [[0, 0, 0.7], [0.4, 0, 0]]]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_missing_or_broken_attention_is_an_error(poison: float) -> None:
    region = ObjectRegion((1, 1, 16, 24), torch.tensor([0.7]))
    with pytest.raises(RuntimeError, match="attention to the objects cannot be read"):
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


def test_a_held_mask_stays() -> None:
    region = ObjectRegion((1, 1, 16, 24), [0.7], hold_after=0.5)
    for progress, corner, wanted in (
        (0.0, (0, 0), (0, 0)),
        (0.4, (1, 5), (1, 5)),
        (0.5, (3, 2), (1, 5)),
        (0.9, (2, 2), (1, 5)),
    ):
        region.observe(hot_corner(*corner), progress)
        assert torch.equal(region.strength(progress), corner_map(*wanted, 0.7)), progress
    first = ObjectRegion((1, 1, 16, 24), [0.7], hold_after=0.0)
    for corner in ((0, 3), (1, 1)):
        first.observe(hot_corner(*corner), 0.0)
    assert torch.equal(first.strength(), corner_map(0, 3, 0.7)), "0 holds the first mask"


def test_the_average_of_a_plain_pass() -> None:
    region = AverageAttention((1, 1, 16, 24))
    with pytest.raises(RuntimeError, match="no model call"):
        _ = region.maps
    for corner in ((0, 0), (0, 0), (1, 1)):
        region.observe(hot_corner(*corner), 0.3)
        assert float(region.strength().abs().max()) == 0
    assert float(region.maps[0, 0, 0, 0]) == pytest.approx((2 * 0.9 + 0.01) / 3)
    assert float(region.maps[0, 0, 1, 1]) == pytest.approx((0.9 + 2 * 0.01) / 3)
    with pytest.raises(NoAttention, match="attention to the objects cannot be read"):
        region.observe(None, 0.5)


def test_objects_together_with_a_mask() -> None:
    mask = torch.zeros(1, 1, 16, 24, dtype=torch.float64)
    mask[..., :8, :] = 0.5
    objects = ObjectRegion((1, 1, 16, 24), [0.6])
    objects.observe(hot_corner(1, 2), 0.0)
    either = MaskedRegion(objects, mask, 0.8, "or").strength(0.0)
    assert float(either[0, 0, 4, 8]) == 0.6 and float(either[0, 0, 0, 0]) == 0.4 and float(either[0, 0, 9, 0]) == 0
    both = MaskedRegion(objects, mask, 0.8, "and").strength(0.0)
    assert (
        float(both[0, 0, 4, 8]) == 0.3 and float(both[0, 0, 0, 0]) == 0 and float(both.sum()) == pytest.approx(16 * 0.3)
    )


def test_between_two_points_of_the_progress() -> None:
    region = Between(FixedRegion.everything((1, 1, 2, 2), 0.7), 0.25, 0.75)
    present = [progress for progress in (0, 0.2, 0.25, 0.5, 0.7, 0.75, 1.0) if region.strength(progress).any()]
    assert present == [0.25, 0.5, 0.7]
    to_the_end = Between(FixedRegion.everything((1, 1, 2, 2), 0.7), 0.5, 1.0)
    assert to_the_end.strength(1.0).any() and not to_the_end.strength(0.4).any()


class TestRegionFor:
    shape = (2, 1, 16, 24)
    mask = torch.linspace(0, 1, 16 * 24, dtype=torch.float64).view(1, 1, 16, 24)

    def strength(self, maps: Tensor | None = None, **settings: object) -> Tensor:
        region = region_for(Settings(**settings), self.shape, [0.5, 0.7], self.mask)
        region.observe(maps, 0.0)
        assert region.strength(0.0).shape == self.shape
        return region.strength(0.0)

    def maps(self) -> Tensor:
        return torch.cat([torch.cat([hot_corner(0, 0), hot_corner(0, 1)], dim=1), hot_corner(2, 2).expand(1, 2, 4, 6)])

    def test_everything_and_mask_need_no_attention(self) -> None:
        assert self.strength(region="everything", strength=0.4).unique().tolist() == [0.4]
        assert torch.equal(self.strength(region="mask", strength=0.4), (self.mask * 0.4).expand(self.shape))

    def test_objects(self) -> None:
        found = self.strength(self.maps())
        assert found[0, 0, ::4, ::4][0, :3].tolist() == [0.5, 0.7, 0.0]
        assert found[1, 0, ::4, ::4].nonzero().tolist() == [[2, 2]] and float(found[1].max()) == 0.7

    def test_objects_with_mask(self) -> None:
        objects = self.strength(self.maps())
        own = (self.mask * 0.4).expand(self.shape)
        either = self.strength(self.maps(), region="objects or mask", strength=0.4)
        assert torch.equal(either, torch.maximum(objects, own))
        both = self.strength(self.maps(), region="objects and mask", strength=0.4)
        assert torch.equal(both, objects * self.mask)

    def test_fixed_mask(self) -> None:
        region = region_for(Settings(), self.shape, [0.5, 0.7], average=self.maps())
        assert torch.equal(region.strength(0.0), self.strength(self.maps()))
        region.observe(hot_corner(3, 3).expand(2, 2, 4, 6), 0.0)
        assert torch.equal(region.strength(0.0), self.strength(self.maps()))

    def test_options_reach_the_masks(self) -> None:
        soft = self.strength(self.maps(), soft=True, threshold=2.0)
        assert 0 < float(soft.min()) < 0.1, "soft: everything is a little slow"
        assert float((self.strength(self.maps(), min_area=0.5) > 0).double().mean()) >= 0.5

    def test_start_and_end(self) -> None:
        region = region_for(Settings(region="everything", start=0.5, end=0.8), self.shape)
        assert [bool(region.strength(progress).any()) for progress in (0.0, 0.5, 0.8)] == [False, True, False]


def test_per_patch_levels_a_mask_and_passes_attention_on() -> None:
    """For networks that take one timestep per 2x2 pixels; an odd last column is a patch of its own."""
    mask = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.5]], dtype=torch.float64).view(1, 1, 2, 3)
    expected = torch.tensor([[0.5, 0.5, 0.75], [0.5, 0.5, 0.75]], dtype=torch.float64).view(1, 1, 2, 3)
    assert torch.equal(PerPatch(FixedRegion(mask)).strength(0.0), expected)
    inner = ObjectRegion((1, 1, 4, 4), [1.0])
    region = PerPatch(inner)
    region.observe(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), 0.1)
    assert torch.equal(region.strength(0.1), inner.strength()), "attention of tokens is constant per patch already"
    assert float(region.strength(0.1).sum()) == 4
