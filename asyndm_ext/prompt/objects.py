"""The objects as the user names them: words of the prompt, each with a strength and a place of its own if wanted.

Written ``cat``, ``red hat:0.4`` (its strength) or ``cat#2`` (the second "cat" of the prompt, ``cat#2:0.4`` with both).
``bike > shark`` is an order: the bike is drawn first. ``bike > shark, sea > shark`` lets one come after several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from asyndm_ext.messages import is_number, is_text, listed, plain, shown
from asyndm_ext.region.turns import circle

MAX_OBJECTS = 200
MAX_LENGTH = 20_000
"""Objects, and characters of what is written of them: more than any prompt has. What is more is refused unread."""

_EMBEDDING = re.compile(r"<[^<>,:#]*>")
"""Part of a name, as in the embedding ``<cat-toy>``: no sign of an order."""
_TOO_MANY = f"there are more than {MAX_OBJECTS} objects; name only those that are to lag"


@dataclass(frozen=True)
class ObjectSpec:
    """One object.

    Attributes:
        name: a word of the prompt, or several in a row.
        strength: fraction in [0, 1]; None: the job's.
        occurrence: which one of several places in the prompt, from 1; None: all of them together.
        after: the objects that are drawn before this one, as :attr:`label` names them.

    Raises:
        ValueError: an attribute is out of range or of the wrong type.
    """

    name: str
    strength: float | None = None
    occurrence: int | None = None
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_text(self.name) or not self.name.strip() or set(_EMBEDDING.sub("", self.name)) & set(",:#>"):
            raise ValueError(
                f"an object's name must be words without ',', ':', '#' and '>', but it is {shown(self.name)}"
            )
        object.__setattr__(self, "name", " ".join(self.name.split()))
        strength, occurrence = self.strength, self.occurrence
        if strength is not None:
            if not is_number(strength) or not 0 <= strength <= 1:
                raise ValueError(
                    f"the strength of {shown(self.name)} must be a number from 0 to 1, but it is {shown(strength)}"
                )
            object.__setattr__(self, "strength", plain(strength))
        if occurrence is not None and (type(occurrence) is not int or occurrence < 1):
            raise ValueError(
                f"the occurrence of {shown(self.name)} must be 1, 2, 3 and so on, but it is {shown(occurrence)}"
            )
        after = (self.after,) if isinstance(self.after, str) else self.after
        if not isinstance(after, (list, tuple)) or len(after) > MAX_OBJECTS or not all(map(is_text, after)):
            raise ValueError(f"what {shown(self.name)} comes after must be names, but it is {shown(self.after)}")
        object.__setattr__(self, "after", tuple(after))

    @classmethod
    def written(cls, text: str) -> ObjectSpec:
        """Read ``name#occurrence:strength``."""
        name, _, strength = (part.strip() for part in text.partition(":"))
        words, _, occurrence = (part.strip() for part in name.rpartition("#"))
        if not occurrence.isdecimal() or "#" not in name:
            words, occurrence = name, ""
        try:
            number = float(strength) if ":" in text else None
        except ValueError:
            raise ValueError(f"in {shown(text.strip())} a number from 0 to 1 must follow the colon") from None
        try:
            place = int(occurrence) if occurrence else None
        except ValueError:  # Python reads no more than some thousand digits
            raise ValueError(f"in {shown(text.strip())} the number after # is too long") from None
        return cls(words, number, place)

    def __str__(self) -> str:
        """Without what it comes after; :func:`written` has that too."""
        return self.label + ("" if self.strength is None else f":{short(self.strength)}")

    @property
    def label(self) -> str:
        """Its name and its place, as they are written."""
        return self.name + ("" if self.occurrence is None else f"#{self.occurrence}")

    @property
    def place(self) -> tuple[str, int | None]:
        """What tells objects of a list apart."""
        return self.name.casefold(), self.occurrence


def short(number: float) -> str:
    """The number without needless zeros, such that it reads back as itself."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def parse_objects(value: Any) -> tuple[ObjectSpec, ...]:
    """Read the objects of the text field, the infotext or the API.

    Args:
        value: text with commas (``"cat:0.7, red hat"``) and, for an order, ``>`` (``"hat > cat"``); a list of such
            texts and of dictionaries ``{"name": "cat", "strength": 0.7, "occurrence": 2, "after": ["hat"]}``; a
            dictionary ``{"cat": 0.7, "red hat": null}``; or None. Empty names are dropped. The same object given again
            is kept once, at its first place; in an order its strength need not be written again.

    Raises:
        ValueError: something else than that, more than :data:`MAX_OBJECTS` or :data:`MAX_LENGTH`, an object is given
            twice with different strengths, or the order goes round in a circle or names what is no object.
    """
    _check_size(value)
    specs: dict[tuple[str, int | None], ObjectSpec] = {}
    after: dict[tuple[str, int | None], list[str]] = {}
    mentioned: set[tuple[str, int | None]] = set()  # in orders only, without a strength
    for chain in _read(value):
        for number, spec in enumerate(chain):
            bare = len(chain) > 1 and spec.strength is None
            if spec.place not in specs:
                specs[spec.place] = spec
                if bare:
                    mentioned.add(spec.place)
            elif not bare:
                known = specs[spec.place]
                if known.strength != spec.strength and spec.place not in mentioned:
                    raise ValueError(
                        f"the object {shown(spec.name)} is given twice: {shown(str(known))} and {shown(str(spec))}"
                    )
                specs[spec.place] = replace(known, strength=spec.strength)
                mentioned.discard(spec.place)
            after.setdefault(spec.place, []).extend([*spec.after, *(one.label for one in chain[number - 1 : number])])
            if len(specs) > MAX_OBJECTS:
                raise ValueError(_TOO_MANY)
    return _ordered(specs, after)


def _ordered(
    specs: Mapping[tuple[str, int | None], ObjectSpec], after: Mapping[tuple[str, int | None], Sequence[str]]
) -> tuple[ObjectSpec, ...]:
    """The objects with what each comes after, in their own words. Raises ValueError."""
    number_of, objects = {place: number for number, place in enumerate(specs)}, list(specs.values())
    numbers = []
    for spec in objects:
        before = [(name, ObjectSpec.written(name).place) for name in after[spec.place]]
        for name, place in before:
            if place not in specs:
                raise ValueError(f"{shown(spec.name)} comes after {shown(name)}, which is none of the objects")
        numbers.append(sorted({number_of[place] for _, place in before}))
    found = circle(numbers)
    if found:
        way = " > ".join(objects[number].label for number in found)
        raise ValueError(f"the order of the objects goes round in a circle: {shown(way)}")
    return tuple(
        replace(spec, after=tuple(objects[number].label for number in before))
        for spec, before in zip(objects, numbers, strict=True)
    )


def without(objects: Sequence[ObjectSpec], one: ObjectSpec) -> list[ObjectSpec]:
    """The other objects; those that came after it come after what it came after."""
    rest = []
    for spec in objects:
        if spec.label == one.label:
            continue
        before = dict.fromkeys(label for label in spec.after if label != one.label)
        if one.label in spec.after:
            before.update(dict.fromkeys(one.after))
        rest.append(replace(spec, after=tuple(before)))
    return rest


def written(objects: Sequence[ObjectSpec]) -> list[str]:
    """The objects as the text field has them between its commas: each once, and then their orders."""
    by_label = {spec.label: spec for spec in objects}
    following: dict[str, list[str]] = {spec.label: [] for spec in objects}
    for spec in objects:
        for label in spec.after:
            following.setdefault(label, []).append(spec.label)
    entries: list[list[str]] = []
    seen: dict[str, None] = {}
    for label in by_label:
        if not following[label] and label not in seen:
            entries.append([label])
            seen[label] = None
        while following[label]:
            chain = [label]
            while following.get(chain[-1]):
                chain.append(following[chain[-1]].pop(0))
            entries.append(chain)
            seen.update(dict.fromkeys(chain))
    if list(seen) != list(by_label):  # read back it would be in another order
        entries = [[label] for label in by_label] + [chain for chain in entries if len(chain) > 1]
    told: set[str] = set()

    def once(label: str) -> str:
        """With its strength the first time."""
        new = label not in told
        told.add(label)
        return str(by_label[label]) if new and label in by_label else label

    return [" > ".join(map(once, chain)) for chain in entries]


def _check_size(value: Any) -> None:
    """Raises ValueError: too much to be read, which is known before any of it is."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (Mapping, list, tuple)):
        return
    if len(items) > MAX_OBJECTS:
        raise ValueError(_TOO_MANY)
    names = (item.get("name") if isinstance(item, Mapping) else item for item in items)
    if sum(len(name) for name in names if isinstance(name, str)) > MAX_LENGTH:
        raise ValueError(f"the objects are longer than {MAX_LENGTH} characters; name only those that are to lag")


def _read(value: Any) -> Iterable[list[ObjectSpec]]:
    """What stands between commas: an object, or several in an order."""
    if value is None:
        return
    if isinstance(value, Mapping):
        yield from ([ObjectSpec(name, strength)] for name, strength in value.items())
        return
    if not isinstance(value, (str, list, tuple)):
        raise ValueError(f"the objects must be a text with commas or a list, but they are {shown(value)}")
    for number, item in enumerate([value] if isinstance(value, str) else value, start=1):
        if isinstance(item, ObjectSpec):
            yield [item]
        elif isinstance(item, str):
            yield from (_chain(part) for part in item.split(",") if part.strip())
        elif isinstance(item, Mapping):
            yield [_from_dictionary(number, item)]
        else:
            raise ValueError(f"object number {number} must be a text or a dictionary, but it is {shown(item)}")


def _chain(text: str) -> list[ObjectSpec]:
    parts, begun = [""], 0
    for piece in re.finditer(rf"{_EMBEDDING.pattern}|>", text):
        if piece.group() == ">":
            parts[-1] += text[begun : piece.start()]
            parts.append("")
        else:
            parts[-1] += text[begun : piece.end()]
        begun = piece.end()
    parts[-1] += text[begun:]
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ValueError(f"in {shown(text.strip())} a name is missing beside the >")
    return [ObjectSpec.written(part) for part in parts]


def _from_dictionary(number: int, item: Mapping[str, Any]) -> ObjectSpec:
    known = [field.name for field in fields(ObjectSpec)]
    unknown = [key for key in item if key not in known]
    if unknown or "name" not in item:
        problem = f"must not have {listed(unknown)}" if unknown else "has no 'name'"
        raise ValueError(f"object number {number} {problem}. It may have {', '.join(known)}")
    return ObjectSpec(**item)
