"""What can be chosen about the exact world, and what can be asked of it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product

GROUNDS = {"sea": "in the sea", "meadow": "on a meadow", "desert": "in the desert", "snow": "in the snow",
           "street": "on a street", "forest": "in a forest"}  # fmt: skip
ANIMALS = ("shark", "cow", "camel", "penguin", "dog", "fox", "whale", "horse")
"""An animal's usual ground is the one of its number, counted round."""
THINGS = ("boat", "tractor", "tent", "sled", "bike", "swing")
"""A thing's usual ground is the one of its number."""


@dataclass(frozen=True)
class ExactConfig:
    """What can be chosen about the world.

    Attributes:
        parts: 2 (ground, animal) or 3 (and a thing).
        tie: how often a part is its partner's usual one, fraction; ``independent`` where it tells nothing.
        heed: how much the conditional listens to the prompt; 0 not at all.
        dimension: channels of a part. The more, the noisier it still is when it is decided.
        noise: "sd" (Stable Diffusion's levels, the last of which is not pure noise) or "cosine" (down to pure noise).
        seed: of the kinds' directions.

    Raises:
        ValueError: a value is out of range.
    """

    parts: int = 2
    tie: float = 0.85
    heed: float = 2.0
    dimension: int = 16
    noise: str = "sd"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.parts not in (2, 3):
            raise ValueError(f"parts must be 2 or 3, got {self.parts}")
        if not 0 < self.tie < 1:
            raise ValueError(f"tie must be between 0 and 1, got {self.tie:g}")
        if not 0 <= self.heed <= 50:
            raise ValueError(f"heed must be between 0 and 50, got {self.heed:g}")
        if not 1 <= self.dimension <= 4096:
            raise ValueError(f"dimension must be between 1 and 4096, got {self.dimension}")
        if self.noise not in ("sd", "cosine"):
            raise ValueError(f"noise must be sd or cosine, got {self.noise!r}")

    @classmethod
    def read(cls, text: str) -> ExactConfig:
        """From ``name=value,name=value``; what is left out is as by default.

        Raises:
            ValueError: no such name, or no such value.
        """
        kinds = {spec.name: type(getattr(cls(), spec.name)) for spec in fields(cls)}
        values = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in kinds:
                raise ValueError(f"{name!r} is nothing of the exact world; it has {', '.join(kinds)}")
            try:
                values[name] = kinds[name](value)
            except ValueError:
                raise ValueError(f"{name}={value} is not a {kinds[name].__name__}") from None
        return cls(**values)


@dataclass(frozen=True)
class Asked:
    """What a prompt asks for: numbers of the ground, the animal and, of three parts, the thing."""

    kinds: tuple[int, ...]

    def __str__(self) -> str:
        """In words: "a shark with a bike in the desert"."""
        ground, animal, *thing = self.kinds
        with_thing = f" with a {THINGS[thing[0]]}" if thing else ""
        return f"a {ANIMALS[animal]}{with_thing} {list(GROUNDS.values())[ground]}"

    @property
    def objects(self) -> tuple[str, ...]:
        """The words of the parts that are objects, in the order of their pixels."""
        _, animal, *thing = self.kinds
        return (ANIMALS[animal], *(THINGS[number] for number in thing))


def is_usual(kinds: tuple[int, ...], usual: bool = True) -> bool:
    """Whether the parts are all each other's usual ones, or, not ``usual``, no two of them are."""
    ground, animal, *thing = kinds
    pairs = [animal % len(GROUNDS) == ground]
    pairs += [match for number in thing for match in (number == ground, number == animal % len(GROUNDS))]
    return all(pairs) if usual else not any(pairs)


def combinations(parts: int, usual: bool) -> list[Asked]:
    """Everything that can be asked for whose parts are all each other's usual ones, or of which no two are."""
    sizes = (len(GROUNDS), len(ANIMALS), len(THINGS))[:parts]
    return [Asked(kinds) for kinds in product(*map(range, sizes)) if is_usual(kinds, usual)]
