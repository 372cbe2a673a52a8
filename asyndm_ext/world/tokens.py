"""Words to numbers: one token a word, so a word's column is known without looking.

A row is ``BOS word word ... EOS PAD ...``; word ``i`` (from 0) stands in column ``i + 1``.
"""

from __future__ import annotations

from collections.abc import Iterable

from asyndm_ext.world.words import WORDS, check_words, split

LENGTH = 24
PAD, BOS, EOS = 0, 1, 2
_SPECIAL = ("<pad>", "<bos>", "<eos>")


class Tokenizer:
    """Word-level, with the vocabulary of the little world; punctuation and letter case make no difference."""

    length = LENGTH
    pad, bos, eos = PAD, BOS, EOS

    def __init__(self) -> None:
        self.tokens: tuple[str, ...] = (*_SPECIAL, *WORDS)
        self._ids = {word: number for number, word in enumerate(self.tokens)}

    def __len__(self) -> int:
        """How many rows an embedding of these tokens needs."""
        return len(self.tokens)

    def words(self, text: str) -> list[str]:
        """The words of ``text``, as they are counted for columns."""
        return split(text)

    def encode(self, text: str) -> list[int]:
        """Token numbers, :data:`LENGTH` of them.

        Raises:
            UnknownWord: a word is not in the world.
            ValueError: there are too many words.
        """
        words = split(text)
        check_words(words)
        if len(words) > self.length - 2:
            raise ValueError(f"The little world reads at most {self.length - 2} words; this prompt has {len(words)}.")
        row = [self.bos, *(self._ids[word] for word in words), self.eos]
        return row + [self.pad] * (self.length - len(row))

    def decode(self, row: Iterable[int]) -> str:
        """The words of a row again, without the special tokens."""
        return " ".join(self.tokens[number] for number in row if number >= len(_SPECIAL))
