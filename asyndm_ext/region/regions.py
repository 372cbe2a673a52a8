"""Which pixels lag behind: strength maps from attention (paper, Eq. 7), from a mask, or both.

A strength map ``(B,1,H,W)`` holds how slow each pixel is, a fraction in [0, 1]. Nothing downstream knows
whether it came from attention, from a painted mask or from a single number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from asyndm_ext.clock.distinct import numbers, numbers_of_few, spread
from asyndm_ext.model.patches import PATCH, patch_constant
from asyndm_ext.region.grid import enlarged
from asyndm_ext.region.masks import MaskOptions, object_weights, strength_of_cells
from asyndm_ext.region.strengths import Strengths
from asyndm_ext.settings import Settings


class NoAttention(RuntimeError):
    """The model call gave nothing that tells where the slow pixels are: a plain image must not pass for AsynDM."""


Shape = tuple[int, int, int, int]
See = Callable[[Tensor], object]

CELL = 4
"""Latent pixels along a side of one of the attention's cells."""
GRAIN = 1 / 16
"""How wide what the prompt does to a pixel is smoothed, of the picture's shorter side."""

# Progress is a sum of float64 shares.
_SLACK = 1e-9


class Region(Protocol):
    """What a run asks about the slow pixels. Progress is that of the host's schedule, fraction in [0, 1)."""

    def observe(self, maps: Tensor | None, progress: float) -> None:
        """Take the attention of the model call just made, ``(B,n,h,w)`` on any device, or None if there was none."""

    def strength(self, progress: float) -> Tensor:
        """The strength map for the transition that begins at this progress, ``(B,1,H,W)`` float64 on the CPU."""


class FixedRegion:
    """A strength map that stays: everything (the paper's DM_concave) or a given mask."""

    def __init__(self, strength: Tensor) -> None:
        self._strength = strength.double().cpu()

    @classmethod
    def everything(cls, shape: Shape, strength: float) -> FixedRegion:
        return cls(torch.full(shape, float(strength), dtype=torch.float64))

    def observe(self, maps: Tensor | None, progress: float = 0.0) -> None:
        pass

    def strength(self, progress: float = 0.0) -> Tensor:
        return self._strength


class _Look(Protocol):
    """What one look says."""

    def strength(self, strengths: Tensor) -> Tensor:
        """The strength map ``(B,1,H,W)`` for these strengths of the objects."""


class _Given:
    """A strength map that is none of the objects'."""

    def __init__(self, strength: Tensor) -> None:
        self._map = strength

    def strength(self, strengths: Tensor) -> Tensor:
        return self._map


class _Mask:
    """Where the objects are in one look at the attention, read when it is first asked for: that has to wait for the
    device, and a solver with two model calls in a step asks after one of them only.

    Args:
        maps: the attention ``(B,n,h,w)``, checked if it is on the CPU; or None: not looked yet, every pixel is as slow
            as the slowest object.
        options: how it becomes a mask.
        shape: of the strength map, ``(B,1,H,W)``.
        see: called once with how much each cell belongs to each object, ``(B,n,h,w)``.
    """

    def __init__(self, maps: Tensor | None, options: MaskOptions, shape: Shape, see: See | None = None) -> None:
        self._maps, self._options, self._shape, self._see = maps, options, shape, see
        self._weights: Tensor | None = None
        self._made: tuple[Tensor, Tensor] | None = None

    def strength(self, strengths: Tensor) -> Tensor:
        """The strength map; the same tensor for the same strengths ``(n,)`` or ``(B,n)``."""
        if self._made is None or self._made[0] is not strengths:
            self._made = strengths, self._strength(strengths)
        return self._made[1]

    def _strength(self, strengths: Tensor) -> Tensor:
        if self._maps is not None:
            maps = self._maps if self._maps.device.type == "cpu" else checked(self._maps)
            self._weights = object_weights(maps.double(), self._options)
            self._maps = None
            if self._see is not None:
                self._see(self._weights)
        if self._weights is None:
            return strengths.amax(-1).view(-1, 1, 1, 1).expand(self._shape).clone()
        strength = strength_of_cells(self._weights, strengths)
        # Where nothing is soft it has the objects' own strengths and 0.
        cells = numbers_of_few(strength, [0.0, *strengths.flatten().tolist()]) or numbers(strength)
        where, block = enlarged(cells.where, (self._shape[-2], self._shape[-1]))
        return spread(cells.values, where, block)


class ObjectRegion:
    """The pixels of the prompt's objects, found anew from the attention of every step (Eq. 7).

    Args:
        shape: of the strength map, ``(B,1,H,W)``.
        strengths: of the objects; numbers stay as they are over the steps.
        options: how attention becomes a mask.
        lag: how many steps old the mask is that steers a transition. 0: the attention of the step that is
            being finished. 1: the authors' loop, which decides the next levels before it calls the model.
        initial: strength of every pixel as long as no mask exists.
        hold_after: from this progress on (fraction) the last mask stays; 1: never.
        see: called with the objects' cells ``(B,n,h,w)`` of every mask that is used.
    """

    def __init__(
        self,
        shape: Shape,
        strengths: Strengths | Tensor | Sequence[float],
        options: MaskOptions = MaskOptions(),  # noqa: B008 (immutable)
        lag: int = 0,
        initial: float | None = None,
        hold_after: float = 1.0,
        see: See | None = None,
    ) -> None:
        self.shape = shape
        self.strengths = Strengths.of(strengths)
        self.options = options
        self.hold_after = hold_after
        self._see = see
        first: _Look = _Mask(None, options, shape)
        if initial is not None:
            first = _Given(torch.full(shape, initial, dtype=torch.float64))
        self._masks = [first] * (lag + 1)
        self._seen = False

    def observe(self, maps: Tensor | None, progress: float = 0.0) -> None:
        """Raises NoAttention when the model call gave no attention."""
        maps = looked_at(maps)
        held = self._seen and self.hold_after < 1 and progress >= self.hold_after - _SLACK
        newest = self._masks[-1] if held else _Mask(maps, self.options, self.shape, self._see)
        self._seen = True
        self._masks = [*self._masks[1:], newest]

    def strength(self, progress: float = 0.0) -> Tensor:
        return self._masks[0].strength(self.strengths.at(progress))


class GuidanceRegion(ObjectRegion):
    """The pixels where the prompt makes a difference, found anew in every step: there the answers with the prompt and
    without it are at least so many times as far apart as they are on average.

    Args:
        shape: of the strength map, ``(B,1,H,W)``.
        strength: of these pixels, fraction.
        options: how the difference ``(B,1,H,W)`` becomes a mask; smoothed in cells as wide as the attention's.
        hold_after: as of :class:`ObjectRegion`.
    """

    def __init__(self, shape: Shape, strength: float, options: MaskOptions, hold_after: float = 1.0) -> None:
        # What single pixels say is noise.
        smoothing = math.hypot(GRAIN * min(shape[-2:]), CELL * options.smoothing)
        super().__init__(shape, [strength], replace(options, smoothing=smoothing), hold_after=hold_after)

    def observe(self, maps: Tensor | None, progress: float = 0.0) -> None:
        """Raises NoAttention when the model call gave no answer without the prompt."""
        if maps is None:
            raise NoAttention(
                "the mask source 'guidance' compares the model's answers with the prompt and without it, and there is "
                "none without it (at CFG scale 1 nobody asks for it); take a higher CFG scale or another mask source"
            )
        super().observe(maps, progress)


class FixedObjects:
    """The same with masks that stay, from the attention ``(B,n,h,w)`` of a plain pass."""

    def __init__(
        self, shape: Shape, strengths: Strengths, maps: Tensor, options: MaskOptions, see: See | None = None
    ) -> None:
        self._strengths, self._mask = strengths, _Mask(maps, options, shape, see)

    def observe(self, maps: Tensor | None, progress: float = 0.0) -> None:
        pass

    def strength(self, progress: float = 0.0) -> Tensor:
        return self._mask.strength(self._strengths.at(progress))


class AverageAttention:
    """Nothing is slow, and the attention is averaged over all calls: the plain pass before a fixed mask."""

    def __init__(self, shape: Shape) -> None:
        self._still = FixedRegion.everything(shape, 0.0)
        self._sum: Tensor | None = None
        self._calls = 0

    def observe(self, maps: Tensor | None, progress: float = 0.0) -> None:
        maps = looked_at(maps).float()
        self._sum = maps if self._sum is None else self._sum + maps
        self._calls += 1

    def strength(self, progress: float = 0.0) -> Tensor:
        return self._still.strength()

    @property
    def maps(self) -> Tensor:
        """The average ``(B,n,h,w)``. Raises RuntimeError before the first call."""
        if self._sum is None:
            raise RuntimeError("no model call was made, so there is no attention to average")
        return checked(self._sum / self._calls)


class MaskedRegion:
    """Another region together with a mask: inside either of them ("or"), or where both are ("and").

    Args:
        region: the other one.
        mask: ``(B,1,H,W)``, fraction in [0, 1].
        strength: of the mask by itself, fraction.
        how: "or": the stronger of both; "and": the region's strength times the mask.
    """

    def __init__(self, region: Region, mask: Tensor, strength: float, how: Literal["or", "and"]) -> None:
        self._region, self._how = region, how
        self._mask = mask.double().cpu()
        self._own = self._mask * strength

    def observe(self, maps: Tensor | None, progress: float) -> None:
        self._region.observe(maps, progress)

    def strength(self, progress: float) -> Tensor:
        other = self._region.strength(progress)
        return torch.maximum(other, self._own) if self._how == "or" else other * self._mask


class Between:
    """A region that is there from one point of the progress to another; before and after, nothing is slow.

    A pixel that has lagged catches up evenly until the end.
    """

    def __init__(self, region: Region, start: float, end: float) -> None:
        self._region, self._start, self._end = region, start, end

    def observe(self, maps: Tensor | None, progress: float) -> None:
        self._region.observe(maps, progress)

    def strength(self, progress: float) -> Tensor:
        strength = self._region.strength(progress)
        before = progress < self._start - _SLACK
        after = self._end < 1 and progress >= self._end - _SLACK
        return torch.zeros_like(strength) if before or after else strength


class PerPatch:
    """A region for a network that takes one timestep per patch of latent pixels: every patch at its mean strength.

    Args:
        region: where the slow pixels are.
        patch: side of a patch in latent pixels.
    """

    def __init__(self, region: Region, patch: int = PATCH) -> None:
        self._region = region
        self._patch = patch

    def observe(self, maps: Tensor | None, progress: float) -> None:
        self._region.observe(maps, progress)

    def strength(self, progress: float) -> Tensor:
        return patch_constant(self._region.strength(progress), self._patch)


def looked_at(maps: Tensor | None) -> Tensor:
    """:func:`checked` on the CPU at once; elsewhere later, when it is read. Raises NoAttention for what is missing."""
    return checked(maps) if maps is None or maps.device.type == "cpu" else maps


def checked(maps: Tensor | None) -> Tensor:
    """The attention in float32 on the CPU.

    Raises:
        NoAttention: it is missing.
        RuntimeError: it is not finite.
    """
    if maps is None:
        raise NoAttention(
            "the network's attention to the objects cannot be read: another extension changes the attention, or the "
            "text that it gets"
        )
    maps = maps.float().cpu()
    if not math.isfinite(float(maps.sum())):  # none is below 0
        raise RuntimeError("the captured cross-attention is not finite (NaN in the model?)")
    return maps


def region_for(
    settings: Settings,
    shape: Shape,
    strengths: Strengths | Sequence[float] | None = None,
    mask: Tensor | None = None,
    average: Tensor | None = None,
    see: See | None = None,
) -> Region:
    """The region that the settings ask for.

    Args:
        settings: a job's.
        shape: of the strength map, ``(B,1,H,W)``.
        strengths: of the objects; needed where the region is one of objects that words tell.
        mask: fractions ``(1,1,H,W)`` or ``(B,1,H,W)``; needed where the region has one.
        average: attention of a plain pass ``(B,n,h,w)``, which makes a fixed mask; without, masks are dynamic.
        see: called with the objects' cells ``(B,n,h,w)`` of every mask that is used.
    """
    region: Region
    if settings.uses_objects:
        options = settings.mask_options
        if settings.uses_guidance:
            region = GuidanceRegion(shape, settings.strength, options, settings.hold_after)
        else:
            assert strengths is not None
            own = Strengths.of(strengths)
            if average is not None:
                region = FixedObjects(shape, own, average, options, see)
            else:
                region = ObjectRegion(shape, own, options, hold_after=settings.hold_after, see=see)
        if settings.uses_mask:
            assert mask is not None
            how: Literal["or", "and"] = "and" if " and " in settings.region else "or"
            region = MaskedRegion(region, mask.expand(shape), settings.strength, how)
    elif settings.uses_mask:
        assert mask is not None
        region = FixedRegion(mask.expand(shape) * settings.strength)
    else:
        region = FixedRegion.everything(shape, settings.strength)
    if settings.start > 0 or settings.end < 1:
        region = Between(region, settings.start, settings.end)
    return region
