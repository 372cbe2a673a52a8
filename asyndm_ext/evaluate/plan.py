"""The plan of a run: which pictures, in which order, cut into units of work.

The order is fixed by the plan alone. Pairs of prompt and seed come in chunks, and all methods of a chunk before the
next one, so that a run that is cut short has the same pairs for every method.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from asyndm_ext.evaluate.methods import Method
from asyndm_ext.evaluate.prompts import Prompt

Key = tuple[str, int, str]
"""Prompt, seed, method's id: what a picture is of."""
SEEDS = 2**32


@dataclass(frozen=True)
class Pair:
    """A prompt and the seed of its noise: made once by each method."""

    prompt: Prompt
    seed: int

    def key(self, method: Method) -> Key:
        return self.prompt.text, self.seed, method.id

    @property
    def slug(self) -> str:
        """For file names."""
        return f"{self.seed}-{hashlib.sha256(self.prompt.text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Unit:
    """Work that is done in one go: a chunk of pairs by some methods under the same conditions."""

    pairs: tuple[Pair, ...]
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is to be made.

    Attributes:
        prompts: in the order in which they are made.
        methods: those under the same conditions beside each other.
        seeds: how many of them for each prompt.
        first_seed: the first prompt's first. No two pairs share one, so that their noise is independent.
        chunk: pairs in a unit.
    """

    prompts: Sequence[Prompt]
    methods: Sequence[Method]
    seeds: int = 1
    first_seed: int = 0
    chunk: int = 1

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every prompt with its first seed, then every prompt with its second, and so on."""
        numbered = list(enumerate(self.prompts))
        return [
            Pair(prompt, (self.first_seed + number + round_ * len(numbered)) % SEEDS)
            for round_ in range(self.seeds)
            for number, prompt in numbered
        ]

    def units(self, done: Collection[Key] = ()) -> Iterator[Unit]:
        """The units with the methods that are not done for all of their pairs."""
        conditions = list(dict.fromkeys(method.conditions for method in self.methods))
        for start in range(0, len(self.pairs), self.chunk):
            pairs = tuple(self.pairs[start : start + self.chunk])
            for shared in conditions:
                methods = tuple(
                    method
                    for method in self.methods
                    if method.conditions == shared and any(pair.key(method) not in done for pair in pairs)
                )
                if methods:
                    yield Unit(pairs, methods)

    @property
    def pictures(self) -> int:
        """How many there are to make."""
        return len(self.pairs) * len(self.methods)
