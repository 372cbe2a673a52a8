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


def with_article(phrase: str) -> str:
    """ "a shark", "an owl"."""
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
        parts.append(with_article(one) if text.count == 1 else f"{NUMBERS[text.count]} {many}")
    if text.thing is not None:
        thing = THINGS[text.thing]
        if text.animal is not None:
            parts.append(pick(thing.used if text.uses else BESIDE[:2]))
        parts.append(with_article(" ".join(filter(None, (text.paint, pick(thing.names))))))
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
_CALLED = {"animal": "animal", "thing": "thing", "paint": "colour", "ground": "place", "light": "time of day"}
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
_MEANING = sorted({word for phrase in PHRASES for word in phrase})
"""Those that name something."""


class UnknownWord(ValueError):
    """A word outside the world; the message names the nearest ones."""


def split(prompt: str) -> list[str]:
    """The words of a prompt, without punctuation."""
    return "".join(c if c.isalnum() else " " for c in prompt.lower()).split()


def check_words(words: Iterable[str]) -> None:
    """Raises UnknownWord for the first word that is not in the world."""
    for word in words:
        if word not in WORDS:
            near = nearest(word)
            told = f" Did you mean {' or '.join(near)}?" if near else ""
            raise UnknownWord(f"The little world does not know the word {word!r}.{told}")


_KIN: dict[str, str] = {
    "lion": "tiger leopard cheetah panther jaguar",
    "polar bear": "grizzly panda koala",
    "cow": "bull ox horse pony donkey pig sheep goat deer zebra elephant giraffe hippo rhino",
    "rabbit": "hare mouse hamster squirrel",
    "fox": "wolf",
    "whale": "dolphin orca seal octopus",
    "shark": "fish",
    "owl": "bird parrot eagle chicken duck swan",
    "turtle": "tortoise crocodile frog snake lizard dinosaur dragon",
    "bike": "motorbike motorcycle scooter skateboard unicycle tricycle cycle",
    "car": "bus truck van taxi lorry train",
    "boat": "ship yacht canoe kayak raft surfboard",
    "balloon": "plane airplane rocket spaceship helicopter",
    "sled": "skis snowboard sleigh",
    "two": "couple pair both several many",
    "three": "four five six seven eight nine ten 4 5 6 7 8 9 10",
    "red": "orange pink purple",
    "sea": "river lake pond pool",
    "city": "house building room park downtown",
    "meadow": "garden farm hill mountain",
    "forest": "jungle tree trees wood",
    "desert": "moon mars",
    "beach": "coast island",
    "snow": "arctic antarctica winter",
    "street": "highway path",
    "dusk": "evening sundown dawn sunrise twilight",
    "night": "midnight moonlight dark",
    "day": "morning noon daylight daytime",
    "on": "atop over onto above",
    "beside": "behind alongside left right",
    "riding": "rides ride cycling pedalling biking",
}
"""Words that newcomers try, by the word of the world that comes nearest in sense."""
_NEAREST = {word: kin for kin, words in _KIN.items() for word in words.split()}


def nearest(word: str) -> list[str]:
    """Words of the world that may be meant by one that is not: near in sense, or spelt nearly so."""
    for one in (word, word.removesuffix("s")):
        if one in _NEAREST:
            return [_NEAREST[one]]
    cutoff = 0.7 if len(word) > 3 else 0.6
    for words in (_MEANING, WORDS):
        alike = {
            one: difflib.SequenceMatcher(None, one, word).ratio() for one in words if abs(len(one) - len(word)) < 3
        }
        best = max(alike.values(), default=0.0)
        if best >= cutoff:
            near = [one for one, like in alike.items() if like >= max(cutoff, best - 0.1)]
            return sorted(near, key=lambda one: (-alike[one], abs(len(one) - len(word))))[:3]
    return []


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
        ValueError: it names no animal, more than one of a kind, or a colour that is no thing's.
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
                f"The little world draws one {_CALLED[name]} at a time; this prompt has"
                f" {getattr(text, name)} and {value}."
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
    if text.paint and (text.thing is None or places["paint"].stop != places["thing"].start):
        raise ValueError(
            "In the little world only things are painted, and the colour stands right before them: write something"
            " like 'a shark riding a red bike'."
        )
    return Reading(text, places)
