"""The settings of a job: one table behind the panel, the API, the infotext and validation.

To add a setting, add a field to :class:`Settings` and its row to :data:`FIELDS`; the panel, the API, the
infotext and pasting follow from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from asyndm_ext.prompt import parse_objects
from asyndm_ext.schedule import CURVES

REGIONS = ("objects", "everything")


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
    """

    name: str
    label: str
    help: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    step: float = 0.05

    @property
    def infotext_key(self) -> str:
        return f"AsynDM {self.label.lower()}"


@dataclass(frozen=True)
class Settings:
    """A validated set of settings. Raises :class:`SettingsError` on construction from bad values.

    Attributes:
        enabled: off means that nothing at all happens.
        objects: words of the prompt whose pixels lag; empty: found automatically.
        strength: fraction in [0, 1]; 0 is the host's own schedule.
        curve: concave scheduler.
        threshold: a pixel belongs to an object where its attention is at least this multiple of the mean.
        region: "objects" (Eq. 7) or "everything" (the paper's DM_concave).
    """

    enabled: bool = False
    objects: tuple[str, ...] = field(default=())
    strength: float = 0.7
    curve: str = "quadratic"
    threshold: float = 1.0
    region: str = "objects"

    def __post_init__(self) -> None:
        if not isinstance(self.enabled, bool):
            raise SettingsError(f"AsynDM: enabled must be true or false, got {self.enabled!r}")
        for spec in FIELDS:
            value = getattr(self, spec.name)
            if spec.choices and value not in spec.choices:
                raise SettingsError(
                    f"AsynDM: {spec.name} must be one of {', '.join(map(repr, spec.choices))}, got {value!r}"
                )
            if spec.limits is not None:
                object.__setattr__(self, spec.name, _number(spec, value))
        try:
            objects = parse_objects(list(self.objects) if isinstance(self.objects, tuple) else self.objects)
        except ValueError as error:
            raise SettingsError(f"AsynDM: {error}") from error
        object.__setattr__(self, "objects", tuple(objects))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The API's dictionary, any part of it. Without the key ``enabled`` it counts as enabled: who sends
        settings wants them used.

        Raises:
            SettingsError: unknown key, wrong type, value out of range.
        """
        known = [f.name for f in fields(cls)]
        unknown = [str(key) for key in values if key not in known]
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise SettingsError(f"AsynDM: unknown setting {names}; known are {', '.join(known)}")
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
        """Infotext entries, one key per setting; objects only where the user named them."""
        entries = {}
        for spec in FIELDS:
            value = getattr(self, spec.name)
            if spec.name == "objects":
                if value:
                    entries[spec.infotext_key] = ", ".join(value)
            else:
                entries[spec.infotext_key] = f"{value:g}" if isinstance(value, float) else str(value)
        return entries

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {**asdict(self), "objects": list(self.objects)}


FIELDS: tuple[Field, ...] = (
    Field(
        "objects",
        "Objects",
        "Words of the prompt, separated by commas, whose pixels lag behind. Empty: found automatically.",
    ),
    Field("strength", "Strength", "How far the objects lag behind. 0: not at all.", limits=(0.0, 1.0)),
    Field("curve", "Curve", "The concave scheduler that the objects follow.", choices=CURVES),
    Field(
        "threshold",
        "Threshold",
        "A pixel belongs to an object where its attention is at least this many times the average. Higher: smaller.",
        limits=(0.1, 5.0),
    ),
    Field(
        "region",
        "Region",
        "Which pixels lag: those of the objects, or everything (the concave schedule alone, for comparison).",
        choices=REGIONS,
    ),
)


def is_enabled(args: Sequence[Any]) -> bool:
    """Whether a job's arguments ask for AsynDM at all; cheap, and never raises.

    Anything else than a clear "off" counts as on, so that a malformed request fails with a message
    instead of giving a plain image.
    """
    first = args[0] if args else False
    if isinstance(first, Mapping):
        return first.get("enabled", True) not in (False, None)
    return first not in (False, None)


def _number(spec: Field, value: Any) -> float:
    assert spec.limits is not None
    low, high = spec.limits
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SettingsError(f"AsynDM: {spec.name} must be a number from {low:g} to {high:g}, got {value!r}")
    if not low <= value <= high:
        raise SettingsError(f"AsynDM: {spec.name} must lie between {low:g} and {high:g}, got {value:g}")
    return float(value)
