"""Axes for the X/Y/Z plot: one for every setting but the plain picture (a cell has one), the presets, and the paper's
comparison. Without the plot script itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

from asyndm_ext.messages import plain
from asyndm_ext.presets import NAMES as PRESET_NAMES
from asyndm_ext.presets import preset as find_preset
from asyndm_ext.region import mask_image
from asyndm_ext.settings import FIELDS, Field, Settings, SettingsError

PREFIX = "[AsynDM]"

COMPARISON: dict[str, dict[str, Any]] = {
    "plain": {"enabled": False},
    "concave": {"enabled": True, "region": "everything"},
    "AsynDM": {"enabled": True, "region": "objects", "mask_source": "dynamic"},
    "fixed mask": {"enabled": True, "region": "objects", "mask_source": "fixed"},
}
"""What the paper compares: DM, DM_concave, AsynDM, and its ablation with the mask of a plain pass."""

SWITCH = ("True", "False")


@dataclass(frozen=True)
class Axis:
    """An axis of the plot.

    Attributes:
        label: in the plot's list of axes.
        kind: of the values, ``float`` or ``str``; the plot converts what is typed.
        read: from a value to the settings that it stands for; raises ValueError for one that stands for nothing.
        choices: all values, where they can be listed.
        switches: says itself whether AsynDM is on. The other axes switch it on: who varies a setting wants it used.
        yields: what another axis has set stays, whichever of the two comes first.
        show: a value as the legend shows it; None: label and value.
    """

    label: str
    kind: type
    read: Callable[[Any], dict[str, Any]]
    choices: tuple[str, ...] = ()
    switches: bool = False
    yields: bool = False
    show: Callable[[Any], str] | None = None

    def settings(self, value: Any) -> dict[str, Any]:
        """The settings that a value stands for. Raises SettingsError, which names the axis and what is allowed."""
        try:
            changes = self.read(value)
            Settings.from_dict(changes)
        except ValueError as error:
            reason = str(error).removeprefix("AsynDM: ")
            name = self.label.removeprefix(f"{PREFIX} ")
            raise SettingsError(f"AsynDM: the axis {name} cannot take {_short(value)}: {reason}") from error
        return changes

    def changed(
        self, args: Sequence[Any], value: Any, keep_switch: bool = False, chosen: Collection[str] = ()
    ) -> list[Any]:
        """A script's arguments (the panel's values in order, or a dictionary first) as this value changes them.

        Args:
            keep_switch: another axis has said already whether AsynDM is on.
            chosen: what other axes have set already.
        """
        changes = self.settings(value)
        if self.yields:
            changes = {name: new for name, new in changes.items() if name not in chosen}
        if not self.switches and not keep_switch:
            changes = {"enabled": True, **changes}
        return replaced(args, changes)


def replaced(args: Sequence[Any], changes: Mapping[str, Any]) -> list[Any]:
    """A script's arguments, equally many, with some settings changed."""
    if args and isinstance(args[0], Mapping):
        return [{**args[0], **changes}, *args[1:]]
    names = [field.name for field in fields(Settings)]
    given = list(args)
    for name, value in changes.items():
        given[names.index(name)] = value
    return given


def axes(read_mask: Callable[[str], str]) -> list[Axis]:
    """All axes.

    Args:
        read_mask: from what people write on the mask's axis to the picture in base64.
    """
    comparison = Axis(f"{PREFIX} Comparison", str, _comparison, tuple(COMPARISON), switches=True, show=str)
    enabled = Axis(f"{PREFIX} Enabled", str, lambda text: {"enabled": _switch(text)}, SWITCH, switches=True)
    preset = Axis(f"{PREFIX} Preset", str, _preset, PRESET_NAMES, yields=True, show=str)
    return [comparison, enabled, preset, *(_axis(spec, read_mask) for spec in FIELDS if spec.name != "compare_plain")]


def read_mask(text: str, files: bool) -> str:
    """A picture in base64 as it is, and the name of a picture's file as the picture in base64.

    Args:
        files: whether people may name files on this machine.

    Raises:
        ValueError: neither, or :func:`mask_image.read` refuses it.
    """
    if not text:
        return text
    if not files or not os.path.isfile(text):
        mask_image.decode(text)
        return text
    return mask_image.encode(mask_image.read(text))


def _axis(spec: Field, read_mask: Callable[[str], str]) -> Axis:
    label, name = f"{PREFIX} {spec.label}", spec.name
    if name == "mask":
        return Axis(label, str, lambda text: {name: read_mask(text)}, show=lambda text: f"{label}: {_short(text)}")
    if spec.is_switch:
        return Axis(label, str, lambda text: {name: _switch(text)}, SWITCH)
    if spec.limits is not None:  # rounded as the legend does it: a range's steps add up to 0.30000000000000004
        return Axis(
            label, float, lambda value: {name: _rounded(value)}, show=lambda value: f"{label}: {_rounded(value)}"
        )
    return Axis(label, str, lambda text: {name: text}, spec.choices)


def _with_number(label: str, value: float) -> str:
    return f"{label}: {_rounded(value)}"


def _rounded(value: float) -> float:
    return plain(round(value, 8))


def _switch(text: str) -> bool:
    known = {"true": True, "false": False}
    if text.strip().lower() not in known:
        raise ValueError("it must be True or False")
    return known[text.strip().lower()]


def _comparison(text: str) -> dict[str, Any]:
    for name, changes in COMPARISON.items():
        if name.casefold() == text.strip().casefold():
            return dict(changes)
    raise ValueError(f"it must be one of {', '.join(map(repr, COMPARISON))}")


def _preset(text: str) -> dict[str, Any]:
    return dict(find_preset(text).settings)


def _short(value: Any) -> str:
    """A value in a message or a legend; a picture in base64 as the beginning of its SHA-256, a long path as its end."""
    text = str(plain(value) if isinstance(value, float) else value)
    if len(text) <= 60:
        return text
    name = PurePath(text).name
    is_file = len(text) < 1000 and "." in name and len(name) <= 60  # base64 has no dots
    return f"…/{name}" if is_file else hashlib.sha256(text.encode()).hexdigest()[:10]
