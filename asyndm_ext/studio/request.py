"""What stands on the page, as a job."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from asyndm_ext.embedded.sampling import SEEDS, VARIANTS, Job, Variant, automatic_objects
from asyndm_ext.embedded.vocabulary import Tokenizer
from asyndm_ext.objects import ObjectSpec
from asyndm_ext.settings import Settings

WITHOUT = ("hires", "adetailer", "show", "save_shown")
"""Settings that mean nothing here: there is one pass, and everything is shown."""


def find_objects(prompt: str) -> list[str]:
    """The objects of a prompt; for the chips, so that a word the model does not know is told while it is typed.

    Raises:
        ValueError: the model cannot read the prompt.
    """
    tokenizer = Tokenizer()
    tokenizer.encode(prompt)
    return automatic_objects(tokenizer.words(prompt))


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
    if not panel["enabled"]:
        return Job(settings=Settings(), **values), ("plain",)
    settings = {name: value for name, value in panel.items() if value is not None}
    written = Settings(**settings)
    if written.uses_objects and not written.objects:
        found = automatic_objects(Tokenizer().words(values["prompt"]))
        written = Settings(**{**settings, "objects": tuple(map(ObjectSpec, found))})
    return Job(settings=written, **values), VARIANTS
