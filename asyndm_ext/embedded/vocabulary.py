"""Words to numbers for the embedded model: one token per word, so a word's column is known without looking.

A row is ``BOS word word ... EOS PAD ...``, always :data:`LENGTH` long: word ``i`` (from 0) stands in column ``i + 1``,
which is where its cross-attention is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from asyndm_ext.embedded.scenes import COLOURS, COUNTS, RELATIONS, SHAPES

LENGTH = 24
PAD, BOS, EOS = 0, 1, 2
_SPECIAL = ("<pad>", "<bos>", "<eos>")
_SEPARATORS = re.compile(r"[\s,.;]+")


def _words() -> tuple[str, ...]:
    """Every word the scenes can say, in a fixed order (the embedding's rows depend on it)."""
    plurals = [f"{shape}s" for shape in SHAPES]
    relations = [word for relation in RELATIONS for word in relation.split()]
    words = ["a", "an", *COUNTS, *COLOURS, *SHAPES, *plurals, "and", *relations, "on", "background"]
    return tuple(dict.fromkeys(words))


WORDS: tuple[str, ...] = _words()


class UnknownWordError(ValueError):
    """A prompt has words the model never saw. ``words`` holds them; the message says what can be said instead."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        unknown = ", ".join(repr(word) for word in self.words)
        super().__init__(
            f"the embedded model does not know {unknown}. It knows"
            f" colours: {', '.join(COLOURS)};"
            f" shapes: {', '.join(SHAPES)} (also plural);"
            f" numbers: a, an, {', '.join(COUNTS)};"
            f" between objects: and, {', '.join(RELATIONS)};"
            " at the end: on a COLOUR background."
            " For example: a red circle to the left of a blue square on a white background"
        )


class PromptTooLongError(ValueError):
    """A prompt has more words than a row has room for."""

    def __init__(self, count: int, room: int) -> None:
        super().__init__(f"the embedded model reads at most {room} words, this prompt has {count}")


class Tokenizer:
    """Word-level tokenizer with a fixed vocabulary; commas, full stops and letter case make no difference."""

    length = LENGTH
    pad, bos, eos = PAD, BOS, EOS

    def __init__(self) -> None:
        self.tokens: tuple[str, ...] = (*_SPECIAL, *WORDS)
        self._ids = {word: number for number, word in enumerate(self.tokens)}

    def __len__(self) -> int:
        """How many rows an embedding of these tokens needs."""
        return len(self.tokens)

    def words(self, text: str) -> list[str]:
        """The words of ``text``, as they are counted for columns: word ``i`` stands in column ``i + 1``."""
        return [word for word in _SEPARATORS.split(text.lower()) if word]

    def encode(self, text: str) -> list[int]:
        """Token numbers, :data:`LENGTH` of them. Raises UnknownWordError or PromptTooLongError."""
        words = self.words(text)
        unknown = [word for word in dict.fromkeys(words) if word not in WORDS]
        if unknown:
            raise UnknownWordError(unknown)
        if len(words) > self.length - 2:
            raise PromptTooLongError(len(words), self.length - 2)
        row = [self.bos, *(self._ids[word] for word in words), self.eos]
        return row + [self.pad] * (self.length - len(row))

    def decode(self, row: Iterable[int]) -> str:
        """The words of a row again, without the special tokens."""
        return " ".join(self.tokens[number] for number in row if number >= len(_SPECIAL))
