"""The settings of a job: one table behind the panel, the API, the infotext and validation.

To add a setting, add a field to :class:`Settings` and its row to :data:`FIELDS`; the panel, the API, the
infotext and pasting follow from there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from asyndm_ext import mask_image
from asyndm_ext.masks import MaskOptions
from asyndm_ext.messages import is_number, is_text, listed, plain, shown
from asyndm_ext.objects import ObjectSpec, parse_objects, short
from asyndm_ext.schedule import CURVES

if TYPE_CHECKING:
    from asyndm_ext.rivals.choice import Rival

COMPARE_KEY = "AsynDM compare"
REGIONS = ("objects", "everything", "mask", "objects or mask", "objects and mask")
MASK_SOURCES = ("dynamic", "fixed")
PASSES = ("both", "first", "hires")
SHOWN = ("none", "mask", "clock", "filmstrip", "all")

_MISREAD = re.compile(r'".*"|\d+x\d+', re.DOTALL)
"""What the host writes into an infotext as it is and then reads as something else: quoted text, a size. (A value that
equals its key it leaves out.)"""


class SettingsError(ValueError):
    """A setting is wrong; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class Field:
    """A setting as people meet it.

    Attributes:
        name: key in the API and attribute of :class:`Settings`.
        label: in the panel, and behind "AsynDM " in the infotext.
        help: one sentence for the panel and the README.
        choices, limits, step: what is allowed.
        part: of a region, "objects" or "mask"; where a region is without it the setting is not used, so it has no
            control then and is not recorded. Empty: always used.
        advanced: folded away in the panel, and in the infotext only where it is not the default.
    """

    name: str
    label: str
    help: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    step: float = 0.05
    part: str = ""
    advanced: bool = False

    @property
    def named(self) -> str:
        """As messages name it: the panel's label, and the API's key where that is another word."""
        return self.label if self.label.lower() == self.name else f"{self.label} ({self.name})"

    @property
    def infotext_key(self) -> str:
        return f"AsynDM {self.label.lower()}"

    @property
    def default(self) -> Any:
        return getattr(Settings, self.name)

    @property
    def is_switch(self) -> bool:
        return isinstance(self.default, bool)


@dataclass(frozen=True)
class Settings:
    """A validated set of settings. Raises :class:`SettingsError` on construction from bad values.

    Attributes:
        enabled: off means that nothing at all happens.
        objects: words of the prompt whose pixels lag; empty: found automatically.
        strength: fraction in [0, 1]; 0 is the host's own schedule.
        curve: concave scheduler.
        threshold: a pixel belongs to an object where its attention is at least this multiple of the mean.
        region: which pixels lag: "objects" (Eq. 7), "everything" (the paper's DM_concave), "mask", or both.
        mask: a picture in base64, white is slow; empty: the inpaint mask.
        mask_invert: black is slow.
        mask_source: "dynamic": objects are found anew at every step; "fixed": in a plain pass before.
        soft: slowness in proportion to attention.
        smoothing: of the attention, in cells of the attention's grid.
        min_area, max_area: how much of the picture an object covers, fractions.
        start, end: between which parts of the steps pixels lag, fractions.
        hold_after: from this part of the steps on the masks stay as they are, fraction.
        hires: in which passes of hires fix.
        adetailer: also in the passes that ADetailer makes itself.
        show: pictures of what was done, beside the results.
        save_shown: write those into the folder of the results as well.
        compare: another method to hold AsynDM against, which guides in its place or, with a strength, beside it: for
            the evaluation, through the API alone. A name, or ``{"method": name, option: value}``.
    """

    enabled: bool = False
    objects: tuple[ObjectSpec, ...] = ()
    strength: float = 0.7
    curve: str = "quadratic"
    threshold: float = 1.0
    region: str = "objects"
    mask: str = ""
    mask_invert: bool = False
    mask_source: str = "dynamic"
    soft: bool = False
    smoothing: float = 0.0
    min_area: float = 0.0
    max_area: float = 1.0
    start: float = 0.0
    end: float = 1.0
    hold_after: float = 1.0
    hires: str = "both"
    adetailer: bool = False
    show: str = "none"
    save_shown: bool = False
    compare: Rival | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.enabled, bool):
            raise SettingsError(f"AsynDM: enabled must be true or false, but it is {shown(self.enabled)}")
        for spec in FIELDS:
            value = getattr(self, spec.name)
            if spec.is_switch and not isinstance(value, bool):
                raise SettingsError(f"AsynDM: {spec.named} must be true or false, but it is {shown(value)}")
            if spec.choices and value not in spec.choices:
                allowed = ", ".join(map(repr, spec.choices))
                raise SettingsError(f"AsynDM: {spec.named} must be one of {allowed}, but it is {shown(value)}")
            if spec.limits is not None:
                object.__setattr__(self, spec.name, _number(spec, value))
        for low, high in (("min_area", "max_area"), ("start", "end")):
            least, most = getattr(self, low), getattr(self, high)
            if least >= most:
                raise SettingsError(
                    f"AsynDM: {_named(low)} must be less than {_named(high)}, but they are {least:g} and {most:g}"
                )
        if self.compare is not None:
            object.__setattr__(self, "compare", _rival(self.compare))
        try:
            object.__setattr__(self, "objects", parse_objects(self.objects))
            if not is_text(self.mask):
                raise ValueError(f"the mask must be a picture in base64, but it is {shown(self.mask)}")
            if self.mask and self.uses_mask:
                mask_image.decode(self.mask)
        except ValueError as error:
            raise SettingsError(f"AsynDM: {error}") from error

    # -- what follows from them

    @property
    def uses_objects(self) -> bool:
        return "objects" in self.region

    @property
    def uses_mask(self) -> bool:
        return "mask" in self.region

    def uses(self, spec: Field) -> bool:
        """Whether the region has the part that a setting is about."""
        return spec.part in self.region

    @property
    def mask_options(self) -> MaskOptions:
        return MaskOptions(self.threshold, self.soft, self.smoothing, self.min_area, self.max_area)

    @property
    def strongest(self) -> float:
        """The largest strength that any pixel can have."""
        own = [spec.strength for spec in self.objects if spec.strength is not None]
        if self.region == "objects" and len(own) == len(self.objects) > 0:
            return max(own)
        return max([self.strength, *own]) if self.uses_objects else self.strength

    # -- reading and writing

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The API's dictionary, any part of it. Without the key ``enabled`` it counts as enabled: who sends
        settings wants them used.

        Raises:
            SettingsError: unknown key, wrong type, value out of range.
        """
        known = [f.name for f in fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise SettingsError(f"AsynDM: there is no setting {listed(unknown)}. The settings are {', '.join(known)}")
        return cls(**{"enabled": True, **values})

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> Settings:
        """The script's arguments as the host hands them over: the panel's values in order, or a dictionary first."""
        if args and isinstance(args[0], Mapping):
            return cls.from_dict(args[0])
        names = [f.name for f in fields(cls)]
        given = dict(zip(names, args, strict=False))
        return cls(**{name: value for name, value in given.items() if value is not None})

    def infotext(self) -> dict[str, str]:
        """Infotext entries, one key per setting that the region uses: objects only where the user named them, advanced
        ones only where they are not the default, the mask as the beginning of its SHA-256."""
        entries = {}
        for spec in filter(self.uses, FIELDS):
            value = getattr(self, spec.name)
            if spec.name == "objects":
                text = ", ".join(map(str, value))
                if len(value) == 1 and (_MISREAD.fullmatch(text) or text == spec.infotext_key):
                    text += ","  # makes the host quote it; the empty name after it counts for nothing
            elif spec.name == "mask":
                text = hashlib.sha256(value.encode()).hexdigest()[:10] if value else ""
            elif spec.advanced and value == spec.default:
                text = ""
            else:
                text = short(value) if isinstance(value, float) else str(value)
            if text:
                entries[spec.infotext_key] = text
        if self.compare is not None:
            entries[COMPARE_KEY] = str(self.compare)
        return entries

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        compare = values.pop("compare")
        if compare is not None:
            values["compare"] = {"method": compare.name, **compare.options}
        return {**values, "objects": [str(spec) for spec in self.objects]}


FIELDS: tuple[Field, ...] = (
    Field(
        "objects",
        "Objects",
        "Words of the prompt, separated by commas, whose pixels lag behind. cat:0.5 sets a strength of its own, cat#2 "
        "means the second cat. Empty: found automatically, in English prompts.",
        part="objects",
    ),
    Field("strength", "Strength", "How far the objects lag behind. 0: not at all.", limits=(0.0, 1.0)),
    Field("curve", "Curve", "The concave scheduler that the objects follow.", choices=CURVES),
    Field(
        "threshold",
        "Threshold",
        "A pixel belongs to an object where its attention is at least this many times the average. Higher: smaller.",
        limits=(0.1, 5.0),
        part="objects",
    ),
    Field(
        "region",
        "Region",
        "Which pixels lag: the objects', those under the mask, inside either or inside both; or everything (the "
        "concave schedule alone, for comparison).",
        choices=REGIONS,
    ),
    Field(
        "mask",
        "Mask",
        "White is slow, grey in between. Paint on a picture or upload a black and white one of any size. Empty: in "
        "img2img the inpaint mask.",
        part="mask",
    ),
    Field("mask_invert", "Invert mask", "The pixels outside the mask lag instead.", part="mask", advanced=True),
    Field(
        "mask_source",
        "Mask source",
        "Dynamic: the objects are looked for at every step. Fixed: in a plain pass before, which doubles the time.",
        choices=MASK_SOURCES,
        part="objects",
        advanced=True,
    ),
    Field(
        "soft",
        "Soft objects",
        "Slow in proportion to the attention (half at the threshold, fully at twice of it), not all or nothing.",
        part="objects",
        advanced=True,
    ),
    Field(
        "smoothing",
        "Smoothing",
        "Smooths the attention over so many of its cells (a cell is 32 pixels wide in SD) before it becomes a mask.",
        limits=(0.0, 4.0),
        step=0.25,
        part="objects",
        advanced=True,
    ),
    Field(
        "min_area",
        "Smallest area",
        "An object covers at least this part of the picture.",
        limits=(0.0, 1.0),
        part="objects",
        advanced=True,
    ),
    Field(
        "max_area",
        "Largest area",
        "An object covers at most this part of the picture.",
        limits=(0.0, 1.0),
        part="objects",
        advanced=True,
    ),
    Field(
        "start",
        "Start",
        "Pixels begin to lag at this part of the steps.",
        limits=(0.0, 1.0),
        advanced=True,
    ),
    Field(
        "end",
        "End",
        "Pixels catch up again from this part of the steps on.",
        limits=(0.0, 1.0),
        advanced=True,
    ),
    Field(
        "hold_after",
        "Hold masks after",
        "From this part of the steps on the masks stay as they are.",
        limits=(0.0, 1.0),
        part="objects",
        advanced=True,
    ),
    Field(
        "hires",
        "Passes",
        "With hires fix: in both passes, in the first or in the hires pass only.",
        choices=PASSES,
        advanced=True,
    ),
    Field(
        "adetailer",
        "In ADetailer",
        "Also in ADetailer's own passes (its setting for script names must list asyndm).",
        advanced=True,
    ),
    Field(
        "show",
        "Show",
        "Pictures after the results: the slow pixels over the image (mask), the pixels' clocks where they are furthest "
        "apart (clock), both over the steps (filmstrip).",
        choices=SHOWN,
        advanced=True,
    ),
    Field("save_shown", "Save shown", "Save these pictures too, in the folder of the results.", advanced=True),
)


def is_enabled(args: Sequence[Any]) -> bool:
    """Whether a job's arguments ask for AsynDM at all; cheap, and never raises.

    Anything else than a clear "off" counts as on, so that a malformed request fails with a message
    instead of giving a plain image.
    """
    first = args[0] if args else False
    if isinstance(first, Mapping):
        first = first.get("enabled", True)
    return first is not False and first is not None  # 0 equals False, and is none of the two


def _rival(value: Any) -> Rival:
    from asyndm_ext.rivals.choice import Rival  # solvers and networks, which no job without it needs

    try:
        return value if isinstance(value, Rival) else Rival.read(value)
    except ValueError as error:
        raise SettingsError(f"AsynDM: compare: {error}") from error


def _named(name: str) -> str:
    return next(spec.named for spec in FIELDS if spec.name == name)


def _number(spec: Field, value: Any) -> float:
    assert spec.limits is not None
    low, high = spec.limits
    if not is_number(value):
        raise SettingsError(f"AsynDM: {spec.named} must be a number from {low:g} to {high:g}, but it is {shown(value)}")
    if not low <= value <= high:
        raise SettingsError(f"AsynDM: {spec.named} must lie between {low:g} and {high:g}, but it is {shown(value)}")
    return plain(value)
