"""The objects as the user names them: words of the prompt, each with a strength and a place of its own if wanted.

Written ``cat``, ``red hat:0.4`` (its strength) or ``cat#2`` (the second "cat" of the prompt, ``cat#2:0.4`` with both).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from asyndm_ext.messages import is_number, is_text, listed, plain, shown

MAX_OBJECTS = 200
MAX_LENGTH = 20_000
"""Objects, and characters of what is written of them: more than any prompt has. What is more is refused unread."""

_TOO_MANY = f"there are more than {MAX_OBJECTS} objects; name only those that are to lag"


@dataclass(frozen=True)
class ObjectSpec:
    """One object.

    Attributes:
        name: a word of the prompt, or several in a row.
        strength: fraction in [0, 1]; None: the job's.
        occurrence: which one of several places in the prompt, from 1; None: all of them together.

    Raises:
        ValueError: an attribute is out of range or of the wrong type.
    """

    name: str
    strength: float | None = None
    occurrence: int | None = None

    def __post_init__(self) -> None:
        if not is_text(self.name) or not self.name.strip() or set(self.name) & set(",:#"):
            raise ValueError(f"an object's name must be words without ',', ':' and '#', but it is {shown(self.name)}")
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
        place = "" if self.occurrence is None else f"#{self.occurrence}"
        return f"{self.name}{place}" + ("" if self.strength is None else f":{short(self.strength)}")

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
        value: text with commas (``"cat:0.7, red hat"``); a list of such texts and of dictionaries ``{"name": "cat",
            "strength": 0.7, "occurrence": 2}``; a dictionary ``{"cat": 0.7, "red hat": null}``; or None. Empty names
            are dropped. The same object given again is kept once, at its first place.

    Raises:
        ValueError: something else than that, more than :data:`MAX_OBJECTS` or :data:`MAX_LENGTH`, or an object is given
            twice with different strengths.
    """
    _check_size(value)
    specs: dict[tuple[str, int | None], ObjectSpec] = {}
    for spec in _read(value):
        known = specs.setdefault(spec.place, spec)
        if known.strength != spec.strength:
            raise ValueError(
                f"the object {shown(spec.name)} is given twice: {shown(str(known))} and {shown(str(spec))}"
            )
        if len(specs) > MAX_OBJECTS:
            raise ValueError(_TOO_MANY)
    return tuple(specs.values())


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


def _read(value: Any) -> Iterable[ObjectSpec]:
    if value is None:
        return
    if isinstance(value, Mapping):
        yield from (ObjectSpec(name, strength) for name, strength in value.items())
        return
    if not isinstance(value, (str, list, tuple)):
        raise ValueError(f"the objects must be a text with commas or a list, but they are {shown(value)}")
    for number, item in enumerate([value] if isinstance(value, str) else value, start=1):
        if isinstance(item, ObjectSpec):
            yield item
        elif isinstance(item, str):
            yield from (ObjectSpec.written(part) for part in item.split(",") if part.strip())
        elif isinstance(item, Mapping):
            yield _from_dictionary(number, item)
        else:
            raise ValueError(f"object number {number} must be a text or a dictionary, but it is {shown(item)}")


def _from_dictionary(number: int, item: Mapping[str, Any]) -> ObjectSpec:
    known = [field.name for field in fields(ObjectSpec)]
    unknown = [key for key in item if key not in known]
    if unknown or "name" not in item:
        problem = f"must not have {listed(unknown)}" if unknown else "has no 'name'"
        raise ValueError(f"object number {number} {problem}. It may have {', '.join(known)}")
    return ObjectSpec(**item)
