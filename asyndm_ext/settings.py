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

from asyndm_ext.clock.curves import CURVES
from asyndm_ext.messages import is_number, is_text, listed, plain, shown
from asyndm_ext.presets import preset
from asyndm_ext.prompt.objects import ObjectSpec, parse_objects, short, written
from asyndm_ext.region import mask_image
from asyndm_ext.region.masks import MaskOptions
from asyndm_ext.region.turns import ORDERS

if TYPE_CHECKING:
    from asyndm_ext.rivals.choice import Rival

COMPARE_KEY = "AsynDM other method"
REGIONS = ("objects", "everything", "mask", "objects or mask", "objects and mask")
MASK_SOURCES = ("dynamic", "fixed", "guidance")
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
        advanced: in the infotext only where it is not the default; most of these are folded away in the panel.
        words: it is about objects that words of the prompt tell apart.
    """

    name: str
    label: str
    help: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    step: float = 0.05
    part: str = ""
    advanced: bool = False
    words: bool = False

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
        mask_source: "dynamic": objects are found anew at every step; "fixed": in a plain pass before; "guidance": no
            objects, but where the prompt makes a difference to the model's answer.
        soft: slowness in proportion to attention.
        smoothing: of the attention, in cells of the attention's grid.
        min_area, max_area: how much of the picture an object covers, fractions.
        start, end: between which parts of the steps pixels lag, fractions.
        hold_after: from this part of the steps on the masks stay as they are, fraction.
        hires: in which passes of hires fix.
        adetailer: also in the passes that ADetailer makes itself.
        show: pictures of what was done, beside the results.
        save_shown: write those into the folder of the results as well.
        order: which object is drawn first; an order in ``objects`` counts before it.
        compare_plain: also make the plain pictures of the same seeds.
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
    order: str = "together"
    compare_plain: bool = False
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

    @property
    def uses_words(self) -> bool:
        """Whether the objects are those that words of the prompt tell."""
        return self.uses_objects and self.mask_source != "guidance"

    @property
    def uses_guidance(self) -> bool:
        """Whether the objects' place is taken by where the prompt makes a difference."""
        return self.uses_objects and self.mask_source == "guidance"

    def uses(self, spec: Field) -> bool:
        """Whether the region has the part that a setting is about."""
        return spec.part in self.region and (self.uses_words or not spec.words)

    @property
    def mask_options(self) -> MaskOptions:
        return MaskOptions(self.threshold, self.soft, self.smoothing, self.min_area, self.max_area)

    @property
    def strongest(self) -> float:
        """The largest strength that any pixel can have."""
        own = [spec.strength for spec in self.objects if spec.strength is not None] if self.uses_words else []
        if self.region == "objects" and own and len(own) == len(self.objects):
            return max(own)
        return max([self.strength, *own])

    # -- reading and writing

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The API's dictionary, any part of it. Without the key ``enabled`` it counts as enabled: who sends
        settings wants them used. The key ``preset`` names some that those beside it win over.

        Raises:
            SettingsError: unknown key, wrong type, value out of range, unknown preset.
        """
        values = dict(values)
        named = values.pop("preset", None)
        if named is not None:
            try:
                values = {**preset(named).settings, **values}
            except ValueError as error:
                raise SettingsError(f"AsynDM: {error}") from error
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
                text = ", ".join(written(value))
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
        return {**values, "objects": written(self.objects)}


FIELDS: tuple[Field, ...] = (
    Field(
        "objects",
        "Objects",
        "Words of the prompt, separated by commas, whose pixels lag behind. Left empty, they are found by "
        "themselves in an English prompt. cat:0.5 gives the cat a strength of its own, cat#2 is the second cat, and "
        "bike > cat draws the bike first.",
        part="objects",
        words=True,
    ),
    Field(
        "strength",
        "Strength",
        "How far the objects lag behind. At 0 they do not, and the picture is the ordinary one.",
        limits=(0.0, 1.0),
    ),
    Field(
        "curve",
        "Curve",
        "The line along which the objects go from noise to picture: late at first, then catching up.",
        choices=CURVES,
    ),
    Field(
        "threshold",
        "Threshold",
        "A pixel belongs to an object where its attention to the object's word is at least this many times the "
        "average. A higher threshold makes objects smaller.",
        limits=(0.1, 5.0),
        part="objects",
    ),
    Field(
        "region",
        "Region",
        "Which pixels lag: those of the objects, those under the mask, those inside either or inside both. With "
        "everything, all pixels lag alike, which is there for comparison.",
        choices=REGIONS,
    ),
    Field(
        "mask",
        "Mask",
        "White lags, black does not, and grey lags in between. Paint on a picture, or upload a black and white "
        "one of any size. Left empty, img2img uses its inpaint mask.",
        part="mask",
    ),
    Field(
        "mask_invert",
        "Invert mask",
        "The pixels outside the mask lag instead of those inside it.",
        part="mask",
        advanced=True,
    ),
    Field(
        "mask_source",
        "Mask source",
        "Dynamic: the objects are looked for at every step. Fixed: in a plain pass before, which doubles the time. "
        "Guidance: no objects, but where the prompt makes a difference.",
        choices=MASK_SOURCES,
        part="objects",
        advanced=True,
    ),
    Field(
        "soft",
        "Soft objects",
        "Pixels lag in proportion to their attention: half at the threshold, fully at twice the threshold. "
        "Without it, a pixel either lags or does not.",
        part="objects",
        advanced=True,
    ),
    Field(
        "smoothing",
        "Smoothing",
        "Blurs the attention over this many of its cells before it becomes a mask. In SD, a cell is 32 pixels wide.",
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
        "Pixels begin to lag once this part of the steps is over; 0.5 is half way.",
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
        "Hires fix has two passes. AsynDM works in both, only in the first, or only in the hires pass.",
        choices=PASSES,
        advanced=True,
    ),
    Field(
        "adetailer",
        "In ADetailer",
        "AsynDM also works where ADetailer repaints a part. ADetailer's setting for script names has to list asyndm.",
        advanced=True,
    ),
    Field(
        "show",
        "Show",
        "Adds pictures after the results. mask: which pixels lagged. clock: how much noise each pixel had left, "
        "at the step where they were furthest apart. filmstrip: both, step by step.",
        choices=SHOWN,
        advanced=True,
    ),
    Field("save_shown", "Save shown", "Saves these pictures too, in the folder of the results.", advanced=True),
    Field(
        "order",
        "Order",
        "Together: all objects lag alike. In turn: the first one in the prompt is drawn first, then the next. An order "
        "in Objects (bike > cat) counts in place of the prompt's.",
        choices=ORDERS,
        part="objects",
        advanced=True,
        words=True,
    ),
    Field(
        "compare_plain",
        "Compare with plain",
        "Also makes the plain picture with the same seed, and shows both with a slider between them. This takes "
        "twice the time.",
        advanced=True,
    ),
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
