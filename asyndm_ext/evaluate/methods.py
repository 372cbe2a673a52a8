"""What is compared: ways to make a picture of the same prompt from the same noise.

A method is one of :data:`KINDS`, its settings, and the conditions under which the host samples. It is held
against the plain pictures made under the same conditions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from asyndm_ext.prompt.objects import ObjectSpec, short
from asyndm_ext.region.turns import IN_TURN, LAST_FIRST
from asyndm_ext.rivals import OPTIONS, read_option

KINDS: dict[str, str] = {
    "plain": "the host's own picture",
    "concave": "every pixel is slow (the paper's DM_concave)",
    "asyndm": "the objects' pixels are slow, looked for at every step",
    "fixed": "the same with a fixed mask, from a plain pass",
    "zigzag": "Z-Sampling: each step goes forth, back without guidance, and forth again; three times the model calls",
    "seg": "smoothed energy guidance, with CFG; one and a half times the model calls",
    "s-cfg": "semantic-aware guidance: as much of it for every word's part",
    "cfg++": "CFG++: guides by a share, and puts back the unguided noise",
    "asyndm+seg": "AsynDM and SEG together",
    "asyndm+s-cfg": "AsynDM and S-CFG together",
    "asyndm+cfg++": "AsynDM and CFG++ together",
    "rest": "everything but the objects is slow",
    "half": "half of the picture is slow, whatever it shows",
    "in turn": "the objects are drawn one after the other, the first one of the prompt first",
    "last first": "the same from the last one to the first",
    "guidance": "the pixels where the prompt makes a difference are slow",
}
USUAL = ("plain", "concave", "asyndm", "fixed")
"""The paper's four."""
_TOGETHER = "asyndm+"
FILE = "file"
"""As a strength: each object's own, from the prompts' files, where they have it."""
CONTROLS = ("rest", "half")
"""These no WebUI can carry out. (CFG++ is a sampler of its own there, the other methods go with the key "compare".)"""
CONDITIONS = ("solver", "scheduler", "steps", "guidance")
VARIED = (
    "strength",
    "curve",
    "threshold",
    "soft",
    "smoothing",
    "min_area",
    "max_area",
    "start",
    "end",
    "hold_after",
)
"""AsynDM's settings that can be varied; :data:`_FOR_ALL_PIXELS` are those that mean something where all are slow."""
_FOR_ALL_PIXELS = ("strength", "curve", "start", "end")
_OPTIONS = tuple(name for options in OPTIONS.values() for name in options)
"""Of the rivals; they can be varied, too."""


@dataclass(frozen=True)
class Method:
    """A way to make a picture.

    Attributes:
        kind: one of :data:`KINDS`.
        conditions: the host's, names of :data:`CONDITIONS` to values.
        settings: those that this kind has use for: names of :data:`VARIED`, or a rival's options, to values.
        label: for people: what distinguishes it from the run's other methods.
    """

    kind: str
    conditions: tuple[tuple[str, Any], ...]
    settings: tuple[tuple[str, Any], ...] = ()
    label: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """Names it in the results; the same in every run."""
        return " ".join([self.kind, *(f"{name}={_written(value)}" for name, value in self.settings + self.conditions)])

    @property
    def slug(self) -> str:
        """For file names."""
        return f"{self.kind}-{hashlib.sha256(self.id.encode()).hexdigest()[:8]}"

    @property
    def host(self) -> dict[str, Any]:
        """The conditions as a dictionary."""
        return dict(self.conditions)

    @property
    def base(self) -> str:
        """The kind of clock: "plain", or one of AsynDM's."""
        return "plain" if self.kind in OPTIONS else self.kind.split("+")[0] if self.rival else self.kind

    @property
    def rival(self) -> str:
        """The other method that is used, a name of :data:`asyndm_ext.rivals.OPTIONS`; "": none."""
        name = self.kind.removeprefix(_TOGETHER)
        return name if name in OPTIONS else ""

    @property
    def rival_options(self) -> dict[str, Any]:
        """Its options that are not at their defaults."""
        return {name: value for name, value in self.settings if name in _OPTIONS}

    @property
    def takes_file_strengths(self) -> bool:
        """Whether each object has the strength that its file says."""
        return ("strength", FILE) in self.settings

    def objects(self, named: Iterable[ObjectSpec]) -> tuple[ObjectSpec, ...]:
        """A prompt's objects as this method takes them."""
        if self.takes_file_strengths:
            return tuple(named)
        return tuple(ObjectSpec(spec.name, None, spec.occurrence) for spec in named)

    def asyndm(self) -> dict[str, Any]:
        """AsynDM's settings as the API takes them; empty: AsynDM is off."""
        if self.base == "plain":
            return {}
        own = {
            name: value
            for name, value in self.settings
            if name in VARIED and (name, value) != ("strength", FILE)  # its default is for objects without one
        }
        if self.kind == "concave":
            own["region"] = "everything"
        if self.kind in ("fixed", "guidance"):
            own["mask_source"] = self.kind
        if self.kind in ("in turn", "last first"):
            own["order"] = IN_TURN if self.kind == "in turn" else LAST_FIRST
        return own


def _written(value: Any) -> str:
    return short(value) if isinstance(value, float) else str(value)


def check_usual(methods: Iterable[Method]) -> None:
    """Raises ValueError for a method that a WebUI cannot carry out."""
    for method in methods:
        if method.kind in CONTROLS:
            raise ValueError(
                f"the method {method.kind!r} is a control of the little world and the exact one; leave out --url, or it"
            )


def read_value(name: str, text: str) -> Any:
    """A value of :data:`VARIED`, or of a rival's option, as it is written on the command line.

    Raises:
        ValueError: no such setting, or it cannot have this value.
    """
    if name in _OPTIONS:
        return read_option(name, text)
    from asyndm_ext.settings import FIELDS, Settings  # needs torch, and the names above are for the command's help

    known = {spec.name: spec for spec in FIELDS if spec.name in VARIED}
    if name not in known:
        raise ValueError(f"{name!r} cannot be varied; these can: {', '.join((*VARIED, *_OPTIONS))}")
    value: Any = text
    if known[name].is_switch:
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {text!r}")
        value = text == "true"
    elif known[name].limits is not None:
        value = float(text)
    Settings.from_dict({name: value})
    return value


def lay_out(
    kinds: Sequence[str],
    settings: Mapping[str, Sequence[Any]],
    conditions: Mapping[str, Sequence[Any]],
    grid: bool = False,
    plain_guidance: Sequence[float] = (),
) -> list[Method]:
    """All methods of a run, plain pictures first under each set of conditions.

    Args:
        kinds: of :data:`KINDS`; "plain" is always there.
        settings, conditions: names to the values to try, the first of them the central one.
        grid: every value with every other; otherwise one at a time is moved away from its central value.
        plain_guidance: more CFG scales for plain pictures alone, under the central conditions.

    Raises:
        ValueError: unknown kind or setting, or a combination of settings that AsynDM refuses.
    """
    from asyndm_ext.settings import Settings

    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"unknown method {', '.join(map(repr, unknown))}; known are {', '.join(KINDS)}")
    axes = {**settings, **conditions}
    centre = {name: values[0] for name, values in axes.items()}
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if grid else _star(axes)
    found: dict[str, Method] = {}
    for point in points:
        host = tuple((name, point[name]) for name in CONDITIONS)
        for kind in dict.fromkeys(["plain", *kinds]):
            used = _used(kind)
            own = tuple((name, point[name]) for name in settings if name in used)
            moved = [name for name, value in (*own, *host) if value != centre[name]]
            method = Method(kind, host, own, " ".join([kind, *(f"{n} {_written(point[n])}" for n in moved)]))
            Settings.from_dict(method.asyndm())
            found.setdefault(method.id, method)
    for guidance in plain_guidance:
        method = plain_at({name: centre[name] for name in CONDITIONS}, guidance=guidance)
        found.setdefault(method.id, method)
    by_conditions = list(dict.fromkeys(method.conditions for method in found.values()))
    return sorted(found.values(), key=lambda method: by_conditions.index(method.conditions))


def _used(kind: str) -> Sequence[str]:
    """The settings that a kind has use for."""
    if kind in ("plain", "concave"):
        return () if kind == "plain" else _FOR_ALL_PIXELS
    rival = kind.removeprefix(_TOGETHER)
    return (*(() if kind in OPTIONS else VARIED), *OPTIONS.get(rival, ()))


def plain_at(conditions: Mapping[str, Any], **moved: Any) -> Method:
    """Plain pictures under these conditions, some of them moved."""
    new = {name: moved.get(name, conditions[name]) for name in CONDITIONS}
    label = " ".join(["plain", *(f"{n} {_written(value)}" for n, value in new.items() if value != conditions[n])])
    return Method("plain", tuple(new.items()), (), label)


def _star(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    centre = {name: values[0] for name, values in axes.items()}
    return [centre] + [{**centre, name: value} for name, values in axes.items() for value in values[1:]]


def plain_of(method: Method, methods: Iterable[Method]) -> Method:
    """The plain method under the same conditions."""
    return next(other for other in methods if other.kind == "plain" and other.conditions == method.conditions)
