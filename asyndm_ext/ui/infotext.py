"""What a job writes into the infotext, and how it is read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asyndm_ext.prompt import automatic_objects
from asyndm_ext.settings import FIELDS, Settings, SettingsError

FOUND_KEY = "AsynDM found"
PREFIX = "AsynDM"


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
    if settings.region == "objects" and not settings.objects:
        found = [", ".join(automatic_objects(prompt)) or None for prompt in p.all_prompts]
        p.extra_generation_params[FOUND_KEY] = found


def note_found(p: Any, names: Sequence[Sequence[str]]) -> None:
    """Put what was really found in this batch's images in the place of what was expected; one list per image."""
    expected = p.extra_generation_params.get(FOUND_KEY)
    if not isinstance(expected, list):
        return
    first = p.iteration * p.batch_size
    for image, own in enumerate(names):
        if first + image < len(expected):
            expected[first + image] = ", ".join(name for name in own if name)


def forget(p: Any) -> None:
    """Remove our entries."""
    for key in [key for key in p.extra_generation_params if key.split(" ")[0] == PREFIX]:
        del p.extra_generation_params[key]


def pasted(name: str) -> Callable[[dict[str, Any]], Any]:
    """How a control reads its value from a parsed infotext; an infotext without AsynDM switches it off."""
    if name == "enabled":
        return lambda params: _strength_key() in params
    spec = next(field for field in FIELDS if field.name == name)

    def read(params: dict[str, Any]) -> Any:
        if _strength_key() not in params:
            return None  # leave the control as it is
        value = params.get(spec.infotext_key)
        if name == "objects":
            return value or ""
        if value is None:
            return None
        if spec.limits is not None:
            try:
                return float(value)
            except ValueError:
                return None
        return value if value in spec.choices else None

    return read


def _strength_key() -> str:
    return next(field for field in FIELDS if field.name == "strength").infotext_key
