"""From object words to columns of the text conditioning, with the WebUI's own tokenizers.

The tokenizer call that the host itself uses has already applied emphasis, BREAK and textual inversion, and
splits into chunks of 77 (start, 75 tokens, end) that become the rows of the conditioning one after
another: column = 77 * chunk + position. Byte-pair tokens carry the end of the word, so "cat" never matches "cats".
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, Protocol

from modules import shared

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.prompt.syntax import occurrences


class Finder(Protocol):
    """Where the tokens of objects are in a text's conditioning."""

    def columns(self, text: str, spec: ObjectSpec, among: Sequence[str] = ()) -> tuple[int, ...]:
        """Columns of an object in ``text``, all its pieces at all its places (or at the one that it names); empty if
        it does not occur.

        Args:
            among: the texts that the host encodes together with this one, all to the same length.
        """

    def places(self, text: str, name: str) -> list[tuple[int, ...]]:
        """The columns of every place where ``name`` stands, from first to last."""


class TokenFinder:
    """Finds objects in prompts; results are kept per text."""

    def __init__(self, encoder: Any) -> None:
        if getattr(shared.opts, "use_old_emphasis_implementation", False):
            raise AsynDMError("AsynDM does not work with 'Use old emphasis implementation'; turn it off")
        self.encoder = encoder
        self._lines: dict[str, tuple[list[int], list[int], list[tuple[str, tuple[int, ...]]]]] = {}

    def columns(self, text: str, spec: ObjectSpec, among: Sequence[str] = ()) -> tuple[int, ...]:
        """See :class:`Finder`."""
        places = self.places(text, spec.name)
        if spec.occurrence is not None:
            places = places[spec.occurrence - 1 : spec.occurrence]
        return tuple(sorted({column for place in places for column in place}))

    def places(self, text: str, name: str) -> list[tuple[int, ...]]:
        """See :class:`Finder`."""
        tokens, positions, embeddings = self.line(text)
        found = [columns for embedding, columns in embeddings if embedding.casefold() == name.casefold()]
        wanted = self.encoder.tokenize([name])[0]
        if wanted:
            starts = range(len(tokens) - len(wanted) + 1)
            spans = [slice(start, start + len(wanted)) for start in starts]
            found += [tuple(positions[span]) for span in spans if tokens[span] == wanted]
        return sorted(found)

    def length(self, text: str) -> int:
        """Columns that a text takes alone, whole chunks."""
        return sum(len(chunk.tokens) for chunk in self.encoder.tokenize_line(text)[0])

    def line(self, text: str) -> tuple[list[int], list[int], list[tuple[str, tuple[int, ...]]]]:
        """A text's tokens and their columns, without those that mark its ends; and its embeddings, by name, with
        theirs."""
        if text not in self._lines:
            tokens: list[int] = []
            positions: list[int] = []
            embeddings: list[tuple[str, tuple[int, ...]]] = []
            ends = (self.encoder.id_start, self.encoder.id_end, getattr(self.encoder, "id_pad", None))
            for number, chunk in enumerate(self.encoder.tokenize_line(text)[0]):
                base = number * len(chunk.tokens)
                embedded: set[int] = set()
                for fix in chunk.fixes:
                    # A fix counts from the first token after the start token.
                    columns = range(1 + fix.offset, 1 + fix.offset + int(fix.embedding.vectors))
                    embedded.update(columns)
                    embeddings.append((fix.embedding.name, tuple(base + c for c in columns)))
                for position, token in enumerate(chunk.tokens):
                    if token not in ends and position not in embedded:
                        tokens.append(token)
                        positions.append(base + position)
            self._lines[text] = (tokens, positions, embeddings)
        return self._lines[text]


class PieceFinder(TokenFinder):
    """Finds objects in prompts that T5 reads: its pieces of words do not tell where a word ends ("cat" begins
    "catnip"), and case matters to them. So the text that the pieces make is searched."""

    def places(self, text: str, name: str) -> list[tuple[int, ...]]:
        line, owners = self._spelled(text)
        words = unicodedata.normalize("NFKC", name).split()
        if not words:
            return []
        pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)"
        found = re.finditer(pattern, line, re.IGNORECASE)
        return [tuple(dict.fromkeys(owners[match.start() : match.end()])) for match in found]

    def pieces(self, text: str) -> list[tuple[int, int]]:
        """The columns of a text's tokens and the tokens, without those that mark its end.

        Forge splits at BREAK and takes a second chunk for another prompt: so only the first; ersatzForge joins the
        chunks; A1111 and later engines of Forge Neo do not split.
        """
        if not hasattr(self.encoder, "tokenize_line"):
            return self._weighted(text)
        ends = (self.encoder.id_end, self.encoder.id_pad)
        found = self.encoder.tokenize_line(text)
        if hasattr(found[0], "tokens"):
            tokens = self._joined([chunk.tokens for chunk in found])
        else:
            tokens = found[0][0].tokens if hasattr(found[0][0], "tokens") else found[0]
        return [(column, token) for column, token in enumerate(tokens) if token not in ends]

    def _joined(self, chunks: Sequence[list[int]]) -> list[int]:
        """All chunks but the last lose what ends them: the last token, or two where the engine puts a pad before it."""
        ending = 2 if getattr(self.encoder, "end_with_pad", False) else 1
        *before, last = chunks
        return [token for chunk in before for token in chunk[:-ending]] + last

    def _weighted(self, text: str) -> list[tuple[int, int]]:
        """The same of a tokenizer that does everything itself, as ComfyUI's: one row of ``(token, weight, word)``, in
        which word 0 is none, and a token may be a vector."""
        as_text = getattr(getattr(self.encoder, "emphasis", None), "name", None) == "None"
        (row, *_) = self.encoder.tokenizer.tokenize_with_weights(text, return_word_ids=True, disable_weights=as_text)
        return [(column, token) for column, (token, _, word) in enumerate(row) if word and isinstance(token, int)]

    def _spelled(self, text: str) -> tuple[str, list[int]]:
        """The text as the tokens spell it, and for each character the column of its token."""
        return self._spell(self.pieces(text))

    def _spell(self, tokens: Sequence[tuple[int, int]]) -> tuple[str, list[int]]:
        """The same of tokens with their columns."""
        pieces = tokenizer_of(self.encoder).convert_ids_to_tokens([token for _, token in tokens])
        words = [(column, piece) for (column, _), piece in zip(tokens, pieces, strict=True)]
        # A space belongs to the token that follows it.
        owners = [column for column, piece in words for _ in piece]
        return "".join(piece for _, piece in words).replace("\u2581", " "), owners


class JoinedFinder:
    """Finds objects in prompts that CLIP and T5 read both (SD3): CLIP's columns come first, T5's follow.

    An object has the columns of its tokens in both. One softmax runs over all of them, so what a pixel gives to them
    adds up, whichever encoder they are from, and the object's map is the mean over all, as it is over the pieces of a
    word. A mask of either would let the noise of the part that the network hardly looks at into the region: a map is
    compared with its own mean, however small that is.

    Args:
        clip, t5: of the two encoders.
        cut: whether T5 gets as many columns as CLIP and its other tokens are cut off (A1111).
    """

    def __init__(self, clip: TokenFinder, t5: PieceFinder, cut: bool) -> None:
        self.clip, self.t5 = clip, t5
        self._cut = cut

    def columns(self, text: str, spec: ObjectSpec, among: Sequence[str] = ()) -> tuple[int, ...]:
        """See :class:`Finder`."""
        return (*self.clip.columns(text, spec), *self.behind(self.t5.columns(text, spec), [text, *among]))

    def behind(self, columns: Sequence[int], texts: Sequence[str]) -> list[int]:
        """T5's columns in the conditioning of both, without those that are cut off.

        Args:
            texts: that are encoded together: CLIP has as many columns as the longest needs.
        """
        before = max(map(self.clip.length, texts))
        return [before + column for column in columns if column < before or not self._cut]

    def places(self, text: str, name: str) -> list[tuple[int, ...]]:
        """See :class:`Finder`; CLIP's, or T5's where it reads more."""
        return max(self.clip.places(text, name), self.t5.places(text, name), key=len)


class TextFinder:
    """Finds objects in the text itself, without a tokenizer: whether they are there, but not in which columns."""

    def columns(self, text: str, spec: ObjectSpec, among: Sequence[str] = ()) -> tuple[int, ...]:
        """Something if it is there, see :class:`Finder`."""
        return (0,) if occurrences(text, spec.name) >= (spec.occurrence or 1) else ()

    def places(self, text: str, name: str) -> list[tuple[int, ...]]:
        """As many as there are."""
        return [(0,)] * occurrences(text, name)


def finder_for(encoder: Any) -> TokenFinder:
    """The way to find objects with this text encoder; CLIP's knows a token that starts a text, T5's does not."""
    return TokenFinder(encoder) if hasattr(encoder, "id_start") else PieceFinder(encoder)


def clip_encoder(conditioner: Any) -> Any | None:
    """AUTOMATIC1111's encoder that tells CLIP's tokens: SD1 and SD2 have one, SDXL has several with equal token
    positions, SD3 two in one before T5."""
    for encoder in [conditioner, *getattr(conditioner, "embedders", []), getattr(conditioner, "model_lg", None)]:
        if tells_lines(encoder):
            return encoder
    return None


def tells_lines(encoder: Any) -> bool:
    """Whether :class:`TokenFinder` can ask an encoder for the tokens of a text."""
    return hasattr(encoder, "tokenize_line") and hasattr(encoder, "tokenize")


def tells_pieces(encoder: Any) -> bool:
    """Whether :class:`PieceFinder` can."""
    return hasattr(encoder, "tokenize_line") or hasattr(getattr(encoder, "tokenizer", None), "tokenize_with_weights")


def tokenizer_of(encoder: Any) -> Any:
    """Hugging Face's where the encoder has one, else the one that its module keeps (open_clip's)."""
    found = getattr(encoder, "tokenizer", None) or sys.modules[type(encoder).__module__].tokenizer
    return getattr(found, "tokenizer", found) if hasattr(found, "tokenize_with_weights") else found
