"""How a scene is told in English, and how a prompt is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.things import PAINTS, THINGS

PLACES: dict[str, tuple[str, ...]] = {
    "sea": ("in the sea", "in the ocean", "on the water"),
    "meadow": ("on a meadow", "in a field", "on the grass"),
    "desert": ("in the desert", "on a sand dune"),
    "snow": ("in the snow", "on the ice"),
    "street": ("on a street", "on the road"),
    "city": ("in the city", "in a town"),
    "forest": ("in a forest", "in the woods"),
    "beach": ("on a beach", "at the shore"),
}
"""Grounds in prompts; the first of each is the usual one."""
TIMES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "on a sunny day"),
    "dusk": ("at dusk", "at sunset"),
    "night": ("at night", "under the stars"),
}
NUMBERS = {1: "a", 2: "two", 3: "three"}
BESIDE = ("beside", "next to", "and")
MOST = 3
"""The most animals in a scene."""


@dataclass(frozen=True)
class SceneText:
    """What a prompt says. None is what it leaves open.

    Attributes:
        animal: key of :data:`~asyndm_ext.world.animals.ANIMALS`, or None for a thing alone.
        count: how many of them.
        thing: key of :data:`~asyndm_ext.world.things.THINGS`.
        uses: the animal rides it, sits in it, stands under or in front of it; otherwise it is beside it.
        paint: the thing's colour.
        ground, light: keys.
    """

    animal: str | None
    count: int = 1
    thing: str | None = None
    uses: bool = False
    paint: str | None = None
    ground: str | None = None
    light: str | None = None

    def __str__(self) -> str:
        """The prompt in its usual words."""
        return sentence(self)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def sentence(text: SceneText, choose: Iterable[float] = ()) -> str:
    """The text in words; ``choose``: fractions that pick among synonyms (the usual words where there are none left)."""
    chance = iter(choose)

    def pick(names: Sequence[str]) -> str:
        return names[int(next(chance, 0.0) * len(names))]

    parts = []
    if text.animal is not None:
        names = ANIMALS[text.animal].names
        one, many = names[int(next(chance, 0.0) * len(names))]
        parts.append(_article(one) if text.count == 1 else f"{NUMBERS[text.count]} {many}")
    if text.thing is not None:
        thing = THINGS[text.thing]
        if text.animal is not None:
            parts.append(pick(thing.used if text.uses else BESIDE[:2]))
        parts.append(_article(" ".join(filter(None, (text.paint, pick(thing.names))))))
    if text.ground is not None:
        parts.append(pick(PLACES[text.ground]))
    if text.light is not None:
        parts.append(pick(TIMES[text.light]))
    return " ".join(parts)


# --- reading --------------------------------------------------------------------------------------------------------

_PLAIN = {
    "in",
    "on",
    "at",
    "by",
    "under",
    "beside",
    "next",
    "to",
    "front",
    "of",
    "and",
    "with",
    "near",
    "during",
    "inside",
}
_DOING = {"riding", "driving", "sailing", "flying", "is", "sitting", "standing"}
_LEADS = _PLAIN | _DOING
_ARTICLES = {"a", "an", "the", "one", "some"}
_NUMBERS = {"two": 2, "three": 3, "2": 2, "3": 3}
COUNTED = frozenset(_ARTICLES | set(_NUMBERS))
"""Words that say how many."""
_BESIDE = {"beside", "next", "near", "and", "with"}


def _phrases() -> dict[tuple[str, ...], tuple[str, object]]:
    """Every phrase of words with a meaning: kind and value."""
    found: dict[tuple[str, ...], tuple[str, object]] = {}
    for key, animal in ANIMALS.items():
        for one, many in animal.names:
            found[tuple(one.split())] = ("animal", key)
            found[tuple(many.split())] = ("animals", key)
    for key, thing in THINGS.items():
        for name in thing.names:
            found[tuple(name.split())] = ("thing", key)
    for paint in PAINTS:
        found[(paint,)] = ("paint", paint)
    for key, ways in PLACES.items():
        for way in ways:
            found[tuple(word for word in way.split() if word not in _LEADS | _ARTICLES)] = ("ground", key)
    for key, ways in TIMES.items():
        for way in ways:
            found[tuple(word for word in way.split() if word not in _LEADS | _ARTICLES)] = ("light", key)
    return found


PHRASES = _phrases()
WORDS: tuple[str, ...] = tuple(
    sorted({word for phrase in PHRASES for word in phrase} | _LEADS | _ARTICLES | set(_NUMBERS))
)
"""All words that a prompt may use."""


class UnknownWord(ValueError):
    """A word outside the world; the message names the nearest ones."""


def split(prompt: str) -> list[str]:
    """The words of a prompt, without punctuation."""
    return "".join(c if c.isalnum() else " " for c in prompt.lower()).split()


def check_words(words: Iterable[str]) -> None:
    """Raises UnknownWord for the first word that is not in the world."""
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, 3, 0.6)
            told = f" Did you mean {' or '.join(near)}?" if near else ""
            raise UnknownWord(f"The little world does not know the word {word!r}.{told}")


@dataclass(frozen=True)
class Reading:
    """A prompt that was read.

    Attributes:
        text: what it says.
        places: of the animal, the thing, the ground and the light: which of the prompt's words name it.
    """

    text: SceneText
    places: dict[str, range]


def read(prompt: str) -> Reading:
    """Read a prompt.

    Raises:
        UnknownWord: it has a word that is not in the world.
        ValueError: it names no animal, or more than one of a kind.
    """
    words = split(prompt)
    check_words(words)
    text, places, number, between = SceneText(None), {}, 1, []
    i = 0
    while i < len(words):
        span = next((n for n in (3, 2, 1) if tuple(words[i : i + n]) in PHRASES and i + n <= len(words)), 0)
        if not span:
            number = _NUMBERS.get(words[i], number)
            between += [words[i]] if words[i] in _LEADS else []
            i += 1
            continue
        kind, value = PHRASES[tuple(words[i : i + span])]
        name = "animal" if kind == "animals" else kind
        if getattr(text, name) not in (None, value):
            raise ValueError(
                f"The little world draws one {name} at a time; this prompt has {getattr(text, name)} and {value}."
            )
        text = replace(text, **{name: value})  # type: ignore[arg-type]
        if name == "animal":
            text = replace(text, count=number if kind == "animals" else 1)
            between = []
        if name == "thing" and text.animal is not None:
            text = replace(text, uses=bool(between) and not _BESIDE & set(between))
        places[name] = range(i, i + span)
        i += span
    if text.animal is None:
        raise ValueError(
            "The prompt names no animal, and every picture of the little world has one: write something like"
            " 'a shark riding a bike'."
        )
    return Reading(text, places)
