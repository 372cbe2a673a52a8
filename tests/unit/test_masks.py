"""Eq. 7 and its variants: thresholds, soft masks, smoothing, areas, overlaps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from asyndm_ext.region.masks import MaskOptions, object_weights, smooth, strength_of_cells


def threshold_maps(maps: Tensor, threshold: float) -> Tensor:
    weights = object_weights(maps, MaskOptions(threshold))
    assert set(weights.unique().tolist()) <= {0.0, 1.0}
    return weights.bool()


@st.composite
def attention(draw: st.DrawFn) -> Tensor:
    """Maps ``(B,n,h,w)`` of positive numbers, none twice, as attention is."""
    shape = [draw(st.integers(1, high)) for high in (2, 3, 6, 6)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    return torch.rand(shape, generator=generator, dtype=torch.float64) + 1e-3


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


def test_where_objects_overlap_the_stronger_wins() -> None:
    weights = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 1]]).double().view(1, 3, 1, 5)
    won = strength_of_cells(weights, torch.tensor([0.4, 0.7, 0.6], dtype=torch.float64))
    assert won.flatten().tolist() == [0.7, 0.4, 0.7, 0.0, 0.7]


def test_soft_objects_overlap_by_their_larger_strength() -> None:
    weights = torch.tensor([[[[0.5, 1.0]], [[0.9, 0.1]]]], dtype=torch.float64)
    strength = strength_of_cells(weights, torch.tensor([0.8, 0.6], dtype=torch.float64))
    assert strength.flatten().tolist() == pytest.approx([0.54, 0.8])


# -- soft


def test_soft_is_half_at_the_threshold_and_full_at_twice_of_it() -> None:
    maps = torch.tensor([[[[0.5, 1.0], [1.5, 5.0]]]], dtype=torch.float64)  # mean 2
    assert object_weights(maps, MaskOptions(0.5, soft=True)).flatten().tolist() == [0.25, 0.5, 0.75, 1.0]
    assert object_weights(maps, MaskOptions(1.0, soft=True)).flatten().tolist() == [0.125, 0.25, 0.375, 1.0]


@given(attention(), st.floats(0.2, 3))
def test_soft_and_binary_agree_about_half(maps: Tensor, threshold: float) -> None:
    soft = object_weights(maps, MaskOptions(threshold, soft=True))
    assert float(soft.min()) >= 0 and float(soft.max()) <= 1
    binary = object_weights(maps, MaskOptions(threshold)).bool()
    assert torch.equal(soft >= 0.5, binary)


# -- smoothing


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
def test_smoothing_is_a_gaussian_away_from_the_border(sigma: float) -> None:
    generator = torch.Generator().manual_seed(5)
    maps = torch.rand(1, 1, 40, 48, generator=generator, dtype=torch.float64)
    smoothed, expected = smooth(maps, sigma)[0, 0].numpy(), gaussian_filter(maps[0, 0].numpy(), sigma, truncate=9)
    assert abs(smoothed - expected)[16:-16, 16:-16].max() < 1e-7


@given(attention(), st.floats(0.1, 4))
def test_smoothing_averages(maps: Tensor, sigma: float) -> None:
    smoothed = smooth(maps, sigma)
    assert bool((smoothed <= maps.amax(dim=(-2, -1), keepdim=True) + 1e-12).all())
    assert bool((smoothed >= maps.amin(dim=(-2, -1), keepdim=True) - 1e-12).all())
    assert torch.allclose(smooth(torch.full_like(maps, 0.3), sigma), torch.full_like(maps, 0.3)), "no dark border"


def test_smoothing_takes_away_lone_cells() -> None:
    maps = torch.full((1, 1, 9, 9), 0.1, dtype=torch.float64)
    maps[..., 1, 1] = 0.5
    maps[..., 4:8, 4:8] = 0.4
    assert object_weights(maps, MaskOptions(1.2))[0, 0, 1, 1] == 1
    smoothed = object_weights(maps, MaskOptions(1.2, smoothing=1.0))[0, 0]
    assert smoothed[1, 1] == 0 and smoothed[5, 5] == smoothed[6, 6] == 1


# -- areas


@given(attention(), st.floats(0.2, 4), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_an_object_keeps_within_its_areas(maps: Tensor, threshold: float, a: float, b: float, soft: bool) -> None:
    low, high = sorted((a, b))
    cells = maps.shape[-1] * maps.shape[-2]
    weights = object_weights(maps, MaskOptions(threshold, soft, 0.0, low, high))
    member = (weights >= 0.5) if soft else weights.bool()
    counts = member.sum(dim=(-2, -1))
    fewest, most = math.ceil(low * cells), max(math.floor(high * cells), 1)
    assert bool((counts >= min(fewest, most)).all()) and bool((counts <= max(most, fewest)).all())
    free = threshold_maps(maps, threshold)
    allowed = (free.sum(dim=(-2, -1)) >= fewest) & (free.sum(dim=(-2, -1)) <= most)
    assert torch.equal(member[allowed], free[allowed]), "within the areas the threshold alone decides"
    # Whatever moves the threshold, the cells with the most attention come first.
    for image, mask in zip(maps.flatten(0, 1), member.flatten(0, 1), strict=True):
        if bool(mask.any()) and not bool(mask.all()):
            assert float(image[mask].min()) > float(image[~mask].max())


@pytest.mark.parametrize(("low", "high", "cells"), [(0, 1, 3), (0, 0.9, 3), (0, 0.25, 2), (0.5, 1, 4), (0.25, 0.5, 3)])
def test_an_area_that_is_not_asked_for_moves_nothing(low: float, high: float, cells: int) -> None:
    maps = torch.tensor([[[[9.0, 8.0, 7.0, 2.0], [1.0, 0.5, 0.4, 0.1]]]], dtype=torch.float64)  # mean 3.5: three cells
    mask = threshold_maps(maps, 1.0)
    assert mask.sum() == 3
    areas = object_weights(maps, MaskOptions(min_area=low, max_area=high))
    assert areas.sum() == cells
    assert areas.flatten()[:cells].tolist() == [1.0] * cells, "those with the most attention"


def test_areas_at_their_ends() -> None:
    maps = torch.tensor([[[[9.0, 8.0, 7.0, 2.0], [1.0, 0.5, 0.4, 0.1]]]], dtype=torch.float64)
    one = object_weights(maps, MaskOptions(4.0, min_area=0.1))
    assert one.flatten().tolist() == [1.0] + [0.0] * 7, "no cell reaches the threshold, and one is asked for"
    all_of_it = object_weights(maps, MaskOptions(0.01, soft=True, min_area=0.5))
    assert float(all_of_it.min()) == 1.0, "the whole picture is allowed, so the threshold stays below all of it"


def test_by_default_a_mask_is_the_papers() -> None:
    maps = torch.tensor([[[[1.0, 1.9, 2.0], [2.1, 2.5, 2.5]]]], dtype=torch.float64)  # mean 2
    assert object_weights(maps, MaskOptions()).flatten().tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    everywhere = torch.full((1, 1, 3, 3), 0.2, dtype=torch.float64)
    assert object_weights(everywhere, MaskOptions()).sum() == 9, "no largest area"
    lone = torch.zeros(1, 1, 30, 30, dtype=torch.float64)
    lone[..., 7, 7] = 1.0
    assert object_weights(lone, MaskOptions()).sum() == 1, "no smallest area and no smoothing"


def test_an_absent_object_has_no_smallest_area() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    assert object_weights(maps, MaskOptions(min_area=0.5)).sum() == 0
