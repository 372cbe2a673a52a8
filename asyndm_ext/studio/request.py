"""What stands on the page, as a job."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from asyndm_ext.embedded.job import VARIANTS, Job, Variant, automatic_objects
from asyndm_ext.embedded.limits import SEEDS
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.settings import Settings

DRAWING = ("prompt", "seed", "steps", "solver", "scheduler", "guidance", "width", "height")
"""Names of the controls that are not the panel's, as in :class:`Job`."""
WITHOUT = ("hires", "adetailer", "show", "save_shown", "compare_plain")
"""Settings that mean nothing here: there is one pass, and everything is shown and compared."""


def find_objects(prompt: str) -> list[str]:
    """The objects of a prompt; for the chips, so that a word the model does not know is told while it is typed.

    Raises:
        ValueError: the model cannot read the prompt.
    """
    return automatic_objects(prompt) if prompt.strip() else []


def random_seed() -> int:
    return random.SystemRandom().randrange(SEEDS)


def job_from(drawing: Mapping[str, Any], panel: Mapping[str, Any]) -> tuple[Job, tuple[Variant, ...]]:
    """The job, and the clocks it is to be drawn on: the plain one alone while the panel is switched off.

    Args:
        drawing: :class:`Job`'s fields by name, but for the settings. A seed of -1 is a random one.
        panel: the panel's controls by name; None is a setting's default.

    Raises:
        ValueError: something is wrong; the message says what.
    """
    values = dict(drawing)
    values["prompt"] = " ".join((values["prompt"] or "").split())
    if values["seed"] in (None, -1):
        values["seed"] = random_seed()
    for name in ("seed", "steps", "width", "height"):
        values[name] = _whole(name, values[name])
    if values["guidance"] is None:
        raise ValueError("guidance has no value: write a number, or press the arrow beside it")
    if not panel["enabled"]:
        return Job(settings=Settings(), **values), ("plain",)
    settings = {name: value for name, value in panel.items() if value is not None}
    written = Settings(**settings)
    if written.uses_words and not written.objects:
        found = automatic_objects(values["prompt"])
        written = Settings(**{**settings, "objects": tuple(map(ObjectSpec, found))})
    return Job(settings=written, **values), VARIANTS


def _whole(name: str, value: Any) -> int:
    """A number field's value, which is None while the field is empty."""
    if value is None:
        raise ValueError(f"{name} has no value: write a number, or press the arrow beside it")
    if value != int(value):
        raise ValueError(f"{name} must be a whole number, got {value:g}")
    return int(value)
