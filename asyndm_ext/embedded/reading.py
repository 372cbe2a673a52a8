"""A sentence of the small world back into what it says: the inverse of ``str(SceneText)``."""

from __future__ import annotations

import re

from asyndm_ext.embedded.scenes import COLOURS, COUNTS, RELATIONS, SHAPES, Group, SceneText

_NUMBERS = {"a": 1, "an": 1, **COUNTS}
_GROUP = re.compile(
    rf"(?P<number>{'|'.join(_NUMBERS)}) (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})(?P<plural>s?)"
)
_GROUND = re.compile(rf"(?P<rest>.*) on an? (?P<ground>{'|'.join(COLOURS)}) background")
_RELATION = re.compile(rf" (?P<relation>{'|'.join(RELATIONS)}) ")


def read_text(prompt: str) -> SceneText:
    """What a prompt says; letter case, commas and full stops make no difference.

    Raises:
        ValueError: the prompt is no sentence of this world.
    """
    rest = " ".join(re.split(r"[\s,.;]+", prompt.lower())).strip()
    ground = relation = None
    if match := _GROUND.fullmatch(rest):
        rest, ground = match["rest"], match["ground"]
    parts = rest.split(" and ")
    if match := _RELATION.search(rest):
        relation, parts = match["relation"], [rest[: match.start()], rest[match.end() :]]
    return SceneText(tuple(_group(part, prompt) for part in parts), relation, ground)


def _group(words: str, prompt: str) -> Group:
    match = _GROUP.fullmatch(words)
    if match is None or bool(match["plural"]) != (_NUMBERS[match["number"]] > 1):
        raise ValueError(
            f"cannot tell what {prompt!r} asks for: {words!r} is no object of the small world"
            " (a red circle, two blue squares)"
        )
    return Group(match["colour"], match["shape"], _NUMBERS[match["number"]])


def kind_of(text: SceneText) -> str:
    """Which of :data:`asyndm_ext.embedded.scenes.KINDS` a text is of."""
    counted = any(group.count > 1 for group in text.groups)
    if text.relation is not None:
        return "relation"
    if len(text.groups) == 1:
        return "counted" if counted else "one"
    if len(text.groups) == 2:
        return "counted and one" if counted else "two"
    return "three"
