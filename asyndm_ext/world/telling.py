"""What the judge sees, in words: what is in a picture, what is wrong with it, and what changed between two.

Also the list of all words for whoever writes a prompt. Imports no torch.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.words import BESIDE, MOST, NUMBERS, PLACES, TIMES, SceneText, with_article

if TYPE_CHECKING:
    from asyndm_ext.world.judge import Seen, Verdict

EXAMPLES = (
    "a shark riding a bike",
    "two penguins beside a red boat at dusk",
    "a cow in a yellow balloon in the snow at night",
)

# --- a picture ------------------------------------------------------------------------------------------------------


def counted(kind: str, number: int, paint: str | None = None) -> str:
    """ "a shark", "two red bikes", "more than three owls"."""
    name = " ".join(filter(None, (paint, _names(kind)[number > 1])))
    if number == 1:
        return with_article(name)
    return f"{NUMBERS[number] if number <= MOST else f'more than {NUMBERS[MOST]}'} {name}"


def _names(kind: str) -> tuple[str, str]:
    """Of one, and of several."""
    return ANIMALS[kind].names[0] if kind in ANIMALS else (kind, f"{kind}s")


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def told(
    seen: Seen, text: SceneText | None = None, *, paint: bool = True, ground: bool = True, light: bool = True
) -> str:
    """What is in a picture: "a shark riding a red bike in the sea by day", "a cow and no tent", "no animal".

    Args:
        seen: by the judge.
        text: what was asked for; what of it is missing is named.
        paint, ground, light: whether the thing's colour, the place and the time of day are told.
    """
    animals = {kind: n for kind, n in seen.counts.items() if kind in ANIMALS}
    things = {kind: n for kind, n in seen.counts.items() if kind in THINGS}
    colour = seen.paint if paint and list(things.values()) == [1] else None
    parts = [counted(kind, n) for kind, n in animals.items()] + [counted(kind, n, colour) for kind, n in things.items()]
    if len(animals) == 1 and list(things.values()) == [1]:
        (thing,) = things
        parts = [f"{parts[0]} {THINGS[thing].used[0] if seen.uses else BESIDE[0]} {parts[1]}"]
    asked = [] if text is None else [(text.animal, text.count), (text.thing, 1)]
    missing = [_no(kind, n) for kind, n in asked if kind and kind not in seen.counts]
    if not animals and (text is None or text.animal is None):
        missing.append("no animal")
    where = [PLACES[seen.ground][0]] if ground else []
    when = [TIMES[seen.light][0]] if light else []
    return " ".join([listed(parts + missing), *where, *when])


def faults(seen: Seen, text: SceneText, verdict: Verdict) -> list[str]:
    """What is wrong, point by point: "no bike", "two sharks", "a cat instead of a dog", "not in the snow"."""
    found, also = [], []
    for kinds, asked, number, right in (
        (ANIMALS, text.animal, text.count, verdict.animal),
        (THINGS, text.thing, 1, verdict.thing),
    ):
        if right:
            continue
        others = [counted(kind, n) for kind, n in seen.counts.items() if kind in kinds and kind != asked]
        if asked and asked not in seen.counts:
            found.append(f"{listed(others)} instead of {counted(asked, number)}" if others else _no(asked, number))
            continue
        also += others
        if asked and seen.counts[asked] != number:
            found.append(_not_so_many(asked, seen.counts[asked], number))
    if also:
        found.append(f"also {listed(also)}")
    if verdict.uses is False and text.thing:
        found.append("beside it" if text.uses else f"{THINGS[text.thing].used[0]} it")
    if verdict.paint is False:
        found.append(f"not {text.paint}")
    if verdict.ground is False and text.ground:
        found.append(f"not {PLACES[text.ground][0]}")
    if verdict.light is False and text.light:
        found.append(f"not {TIMES[text.light][0]}")
    return found


def _no(kind: str, number: int) -> str:
    return f"no {_names(kind)[number > 1]}"


def _not_so_many(kind: str, number: int, asked: int) -> str:
    if number > asked:
        return counted(kind, number)
    return f"only one {kind}" if number == 1 else f"only {counted(kind, number)}"


@dataclass(frozen=True)
class Opinion:
    """What the judge says about a picture that was to show what ``text`` says."""

    seen: Seen
    text: SceneText
    verdict: Verdict

    @property
    def right(self) -> bool:
        return self.verdict.exact

    @property
    def faults(self) -> list[str]:
        return faults(self.seen, self.text, self.verdict)

    def __str__(self) -> str:
        """ "right", or "wrong: no bike, not at night"."""
        return "right" if self.right else f"wrong: {', '.join(self.faults)}"


# --- two pictures ---------------------------------------------------------------------------------------------------

_POINTS = ("paint", "ground", "light")


def change(before: Opinion, after: Opinion) -> tuple[str, str] | None:
    """What two pictures of a text show where it is not the same, in words; None where the judge sees no difference.

    Colour, place and time of day are told where the text names them, or where they alone differ.
    """
    text = before.text

    def differ(*points: str) -> bool:
        words = [told(one.seen, text, **_only(points)) for one in (before, after)]
        return words[0] != words[1]

    points = [p for p in _POINTS if getattr(text, p) is not None or (differ(p) and not differ())]
    was, is_now = (told(one.seen, text, **_only(points)) for one in (before, after))
    return None if was == is_now else (was, is_now)


def _only(points: Collection[str]) -> dict[str, bool]:
    return {point: point in points for point in _POINTS}


def change_sentence(seed: int, before: Opinion, after: Opinion) -> str | None:
    """ "Seed 8, now right: plain shows a shark and no bike, AsynDM a shark riding a bike."; None for no change."""
    found = change(before, after)
    if found is None:
        return None
    if after.right:
        how = "right in both" if before.right else "now right"
    else:
        how = "no longer right" if before.right else "wrong in both"
    return f"Seed {seed}, {how}: plain shows {found[0]}, AsynDM {found[1]}."


# --- all words ------------------------------------------------------------------------------------------------------


def all_words() -> str:
    """What a prompt can say, on a page for a person."""
    animals = ", ".join(" or ".join(one for one, _ in animal.names) for animal in ANIMALS.values())
    things = [
        (" or ".join(thing.names), " or ".join(f"{way} {with_article(thing.names[0])}" for way in thing.used))
        for thing in THINGS.values()
    ]
    width = max(len(names) for names, _ in things)
    return "\n".join(
        [
            "A prompt of the little world has an animal, perhaps with a thing, a place and a time of day.",
            "",
            "Animals, up to three of a kind:",
            *_filled(animals),
            "Numbers: a, an, one, some, two, three, 2, 3",
            "",
            "Things, and how an animal uses them:",
            *(f"  {names:<{width}}  {ways}" for names, ways in things),
            "  An animal that does not use its thing is beside, next to or near it, or with it.",
            f'Colours of things: {", ".join(PAINTS)}, as in "a red boat"',
            "",
            "Places:",
            *(f"  {', '.join(ways)}" for ways in PLACES.values()),
            "Times of day:",
            *(f"  {', '.join(ways)}" for ways in TIMES.values()),
            "",
            "For example:",
            *(f'  asyndm "{example}"' for example in EXAMPLES),
        ]
    )


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="  ")
