"""What a job writes into the infotext, and how it is read back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from asyndm_ext.messages import plain
from asyndm_ext.prompt import automatic_objects
from asyndm_ext.settings import FIELDS, Field, Settings, SettingsError

FOUND_KEY = "AsynDM found"
NOTE_KEY = "AsynDM note"
PREFIX = "AsynDM"


class PerImage(list[str | None]):
    """An entry that differs from image to image; the host looks it up by the image's number. Images that other machines
    add to the job have numbers beyond its end, and no entry. (A function would do as well, but is no JSON: whole jobs
    are sent to those machines.)"""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index) if isinstance(index, slice) or index < len(self) else None


def record(p: Any, args: Sequence[Any]) -> None:
    """Write the settings of an enabled job into its infotext; remove ours from a disabled one.

    XYZ cells share one dictionary, so leftovers of another cell have to go. Settings that are wrong are not
    reported here: the host would swallow it. The sampling function reads them again and stops the job.
    """
    forget(p)
    try:
        settings = Settings.from_args(args)
    except SettingsError:
        return
    p.extra_generation_params.update(settings.infotext())
    if settings.uses_objects and not settings.objects:
        found = PerImage(", ".join(automatic_objects(prompt)) or None for prompt in p.all_prompts)
        p.extra_generation_params[FOUND_KEY] = found


def begin_pass(p: Any, settings: Settings, names: Sequence[Sequence[str]] | None) -> None:
    """What is known when a pass begins: the settings are in use after all (a pass before it may have had to go
    without), and what was really found in this batch's images takes the place of what was expected.

    Args:
        names: of the objects, one list per image; None where the region has none.
    """
    p.extra_generation_params.update(settings.infotext())
    if not getattr(p, "is_hr_pass", False):
        p.extra_generation_params.pop(NOTE_KEY, None)
    expected = p.extra_generation_params.get(FOUND_KEY)
    if names is None or not isinstance(expected, list):
        return
    first = p.iteration * p.batch_size
    for image, own in enumerate(names):
        if first + image < len(expected):
            expected[first + image] = ", ".join(own)


def note(p: Any, text: str) -> None:
    """Say something about the pictures, in the infotext and below them."""
    p.extra_generation_params[NOTE_KEY] = text
    p.comment(f"AsynDM: {text}.")


def not_applied(p: Any, reason: str) -> None:
    """Say that a pass was sampled without AsynDM although it was enabled."""
    if getattr(p, "is_hr_pass", False):
        note(p, f"not applied in the hires pass: {reason}")
        return
    forget(p)
    p.extra_generation_params[PREFIX] = f"not applied: {reason}"
    p.comment(f"AsynDM was enabled but not applied: {reason}.")


def why_not_applied(p: Any) -> str | None:
    """What :func:`not_applied` has said of a job."""
    return p.extra_generation_params.get(PREFIX)


def refused(p: Any, message: str) -> None:
    """Say that nothing is drawn, and why."""
    forget(p)
    p.extra_generation_params[PREFIX] = f"not drawn: {message.removeprefix('AsynDM: ')}"
    p.comment(message)


def forget(p: Any) -> None:
    """Remove our entries."""
    for key in [key for key in p.extra_generation_params if key.split(" ")[0] == PREFIX]:
        del p.extra_generation_params[key]


@functools.cache
def pasted(name: str) -> Callable[[dict[str, Any]], Any]:
    """How a control reads its value from a parsed infotext; an infotext without AsynDM switches it off.

    A setting that the infotext does not name had its default. The mask itself is not in there: its control stays.
    Always the same function for a name: the host finds the controls of two tabs that belong together by it.
    """
    if name == "enabled":
        return lambda params: _strength_key() in params
    spec = next(field for field in FIELDS if field.name == name)

    def read(params: dict[str, Any]) -> Any:
        if _strength_key() not in params or name == "mask":
            return None  # leave the control as it is
        text = params.get(spec.infotext_key)
        if text is None:
            return ", ".join(map(str, spec.default)) if name == "objects" else spec.default
        return _value(spec, text)

    return read


def _value(spec: Field, text: str) -> Any:
    """The control's value, or None where the text is none."""
    if spec.is_switch:
        return {"true": True, "false": False}.get(text.lower())
    if spec.limits is not None:
        low, high = spec.limits
        try:
            number = float(text)
        except ValueError:
            return None
        return plain(number) if low <= number <= high else None
    return text if not spec.choices or text in spec.choices else None


def _strength_key() -> str:
    return next(field for field in FIELDS if field.name == "strength").infotext_key
