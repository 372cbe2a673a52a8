"""Prompts of the little world by kind, to measure with: how usual is what they ask for?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.grounds import GROUNDS
from asyndm_ext.world.kinds import KINDS
from asyndm_ext.world.light import LIGHTS
from asyndm_ext.world.scenes import never_things, thing_of
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.words import MOST, SceneText


def text_of_kind(kind: str, rng: np.random.Generator) -> SceneText:
    """A text of one of :data:`KINDS`."""
    animal = str(rng.choice(list(ANIMALS)))
    home = ANIMALS[animal].home
    elsewhere = [ground for ground in GROUNDS if ground != home]
    half = bool(rng.random() < 0.5)
    if kind == "counted":
        ground = str(rng.choice(list(GROUNDS))) if half else None
        return SceneText(animal, int(rng.integers(2, MOST + 1)), ground=ground)
    if kind == "placed":
        light = str(rng.choice(list(LIGHTS))) if half else None
        return SceneText(animal, ground=str(rng.choice(elsewhere)), light=light)
    uses = bool(rng.random() < 0.75)
    if kind == "painted":
        return SceneText(animal, thing=str(rng.choice(list(THINGS))), uses=uses, paint=str(rng.choice(list(PAINTS))))
    if kind == "usual":
        return SceneText(animal, thing=thing_of(home), uses=uses, ground=home if half else None)
    if kind == "unusual":
        never = never_things(animal)
        seen = [thing for thing in THINGS if thing not in never and thing != thing_of(home)]
        thing = str(rng.choice(never if rng.random() < 0.5 else seen))
        return SceneText(animal, thing=thing, uses=uses, ground=str(rng.choice(elsewhere)) if half else None)
    raise ValueError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}")


def wrong_texts(text: SceneText, rng: np.random.Generator) -> list[SceneText]:
    """The text with one thing changed at a time: animal, number, thing, use, colour, ground, light."""

    def other(names: Iterable[str], than: str | None) -> str:
        return str(rng.choice([name for name in names if name != than]))

    wrong = [replace(text, animal=other(ANIMALS, text.animal)), replace(text, count=text.count % MOST + 1)]
    if text.thing is not None:
        wrong += [replace(text, thing=other(THINGS, text.thing)), replace(text, uses=not text.uses)]
    if text.paint is not None:
        wrong.append(replace(text, paint=other(PAINTS, text.paint)))
    if text.ground is not None:
        wrong.append(replace(text, ground=other(GROUNDS, text.ground)))
    if text.light is not None:
        wrong.append(replace(text, light=other(LIGHTS, text.light)))
    return wrong
