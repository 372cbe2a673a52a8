"""The objects of the prompt as chips: what would be slow, and what a click or a move would make of the Objects field.

All that a chip does is decided here; the page only puts a chip's text into the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape

from asyndm_ext.prompt.finder import automatic_objects, reads_as_english
from asyndm_ext.prompt.objects import ObjectSpec, parse_objects, without, written
from asyndm_ext.prompt.syntax import occurrences, place, plain_text
from asyndm_ext.region.turns import LAST_FIRST, TOGETHER, turns, until


@dataclass(frozen=True)
class Chip:
    """One object.

    Attributes:
        text: what it says, as in the Objects field.
        on: whether its pixels would be slow.
        in_prompt: whether its words stand in the prompt, as often as it says; if not, the job would stop.
        after: the Objects field once it has been clicked.
        places: how often its words stand in the prompt, where it names one of these places.
        until: up to which part of the steps it would be slow, fraction.
        moved: the Objects field once it has been moved to the first, the second, ... place of the slow ones; empty
            where it cannot be.
    """

    text: str
    on: bool
    in_prompt: bool
    after: str
    places: int | None = None
    until: float = 1.0
    moved: tuple[str, ...] = ()


Places = Callable[[str], Callable[[str], int]]
"""Given a prompt, how often an object's words stand in it."""


def places_in_text(prompt: str) -> Callable[[str], int]:
    """As far as that can be told without a tokenizer."""
    return lambda name: occurrences(prompt, name)


def chips(
    prompt: str,
    objects: str,
    find: Callable[[str], Sequence[str]] = automatic_objects,
    places: Places = places_in_text,
    order: str = TOGETHER,
) -> list[Chip]:
    """The objects that are found in the prompt, and those that the user has named besides.

    With an empty field all that are found are on; the first click takes one off by naming the others. Where some have
    turns, the slow ones stand as they are drawn, the first one first.

    Args:
        prompt: as a job would have it.
        objects: the Objects field.
        find: how a job finds the objects of a prompt.
        places: how a job counts them.
        order: in which they are drawn, unless the field says that.

    Raises:
        ValueError: the Objects field cannot be read, or ``find`` cannot read the prompt.
    """
    found, named = find(prompt), parse_objects(objects)
    if not named:
        ends = until(turns(range(len(found)), order))
        return _as_drawn(
            [
                Chip(word, True, True, _joined([other for other in found if other != word] or [word]), until=part)
                for word, part in zip(found, ends, strict=True)
            ],
            order,
        )
    names = {spec.name.casefold() for spec in named}
    missing = [ObjectSpec(word) for word in found if word.casefold() not in names]
    count = places(prompt)

    def chip(spec: ObjectSpec, part: float) -> Chip:
        there = count(spec.name)
        after = _joined(written(without(named, spec)))
        in_prompt = there >= (spec.occurrence or 1)
        return Chip(str(spec), in_prompt, in_prompt, after, None if spec.occurrence is None else there, part)

    others = [Chip(spec.name, False, True, _joined(written([*named, spec]))) for spec in missing]
    return [*_as_drawn(list(map(chip, named, lags_until(named, prompt, order))), order), *others]


def together(objects: str) -> str | None:
    """The Objects field without its order; None: it has none. Raises ValueError: it cannot be read."""
    named = parse_objects(objects)
    return _joined(replace(spec, after=()) for spec in named) if any(spec.after for spec in named) else None


def _as_drawn(found: Sequence[Chip], order: str) -> list[Chip]:
    """Those that are slow by their turns, and what a move to each other's place would write: one after the other, as
    they then stand. The others stay behind them."""
    slow = sorted((chip for chip in found if chip.on), key=lambda chip: chip.until)
    rest = [chip for chip in found if not chip.on]
    if len(slow) < 2 or len({chip.text.casefold() for chip in slow}) < len(slow):
        return [*slow, *rest]
    kept = "".join(f", {chip.text}" for chip in rest)

    def moved(k: int) -> tuple[str, ...]:
        others = [chip.text for chip in (*slow[:k], *slow[k + 1 :])]
        lines = ([*others[:place], slow[k].text, *others[place:]] for place in range(len(slow)))
        return tuple(" > ".join(line[:: -1 if order == LAST_FIRST else 1]) + kept for line in lines)

    return [*(replace(chip, moved=moved(k)) for k, chip in enumerate(slow)), *rest]


def lags_until(named: Sequence[ObjectSpec], prompt: str, order: str) -> list[float]:
    """Until which part of the steps each named object lags, as far as that can be told without a tokenizer."""
    number = {spec.label: k for k, spec in enumerate(named)}
    after = [[number[label] for label in spec.after] for spec in named]
    return until(turns([place(prompt, spec.name, spec.occurrence) for spec in named], order, after))


def _joined(objects: Iterable[object]) -> str:
    return ", ".join(map(str, objects))


def html(
    prompt: str,
    objects: str,
    region: str,
    find: Callable[[str], Sequence[str]] = automatic_objects,
    places: Places = places_in_text,
    order: str = TOGETHER,
    mask_source: str = "dynamic",
) -> str:
    """The line below the Objects field; the other arguments are those of :func:`chips`."""
    if "objects" not in region:
        return _line(f"The region “{region}” does not use objects.")
    if mask_source == "guidance":
        return _line("The mask source “guidance” does not use objects.")
    try:
        found = chips(prompt, objects, find, places, order)
    except ValueError as error:
        return _line(str(error), "asyndm-wrong")
    if not found and not plain_text(prompt):
        return _line("The objects of the prompt are shown here.")
    if not found and not reads_as_english(prompt):
        return _line("Objects are found in English prompts only. Write words of your prompt into the field.")
    if not found:
        return _line("No object was found. Write words of the prompt into the field.")
    ends = sorted({chip.until for chip in found if chip.on and chip.until < 1})
    buttons = "".join(_button(chip, ends, place) for place, chip in enumerate(found))
    unordered = together(objects)
    if unordered is not None:
        buttons += (
            '<button type="button" class="asyndm-chip asyndm-undo" title="Takes the order out of the field" '
            f'data-name=">" data-objects="{escape(unordered)}">undo the order</button>'
        )
    return _line("Click to choose:" if objects.strip(" ,") else "Found in the prompt:", after=buttons)


def _line(text: str, kind: str = "asyndm-lead", after: str = "") -> str:
    return f'<div class="asyndm-chips"><span class="{kind}">{escape(text)}</span>{after}</div>'


def _button(chip: Chip, ends: Sequence[float], place: int) -> str:
    """``ends``: of all turns, the first one first; ``place``: among the chips, counted from 0."""
    classes = "asyndm-chip" + (" asyndm-on" if chip.on else "") + ("" if chip.in_prompt else " asyndm-wrong")
    title = "Slow: click to take it out" if chip.on else "On time: click to make it slow"
    more = ""
    if chip.on and chip.until < 1:
        title = f"Slow until {chip.until:.0%} of the steps: click to take it out"
        more = f'data-until="{chip.until:.4g}" data-turn="{ends.index(chip.until) + 1}" '
    if chip.moved:
        title += ". Drag it, or press an arrow key, to draw it earlier or later"
        more += f'data-place="{place}" data-moved="{escape(json.dumps(chip.moved))}" '
        more += 'aria-keyshortcuts="ArrowLeft ArrowRight" '
    if not chip.in_prompt:
        title = "Not in the prompt: click to take it out"
        if chip.places:
            title = f"The prompt has only {chip.places} of these: click to take it out"
    return (
        f'<button type="button" class="{classes}" aria-pressed="{str(chip.on).lower()}" title="{title}" '
        f'{more}data-name="{escape(chip.text)}" data-objects="{escape(chip.after)}">{escape(chip.text)}</button>'
    )
