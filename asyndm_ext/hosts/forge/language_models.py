"""Where the words of a prompt are for networks whose text encoder is a language model (Forge Neo).

A language model reads a whole conversation, of which the prompt is a part: the engine puts each part of the text that
has an emphasis of its own into a template, one behind the other. Words of the template are no objects, so only what
lies between its head and its tail is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.hosts.webui.finders import PieceFinder

ENGINES = ("text_processing_engine_gemma", "text_processing_engine_qwen", "text_processing_engine_anima")
"""Z-Image, Lumina 2 and FLUX.2 have the first, whatever reads their text."""
_PROMPT = "<Prompt Start>"


def finder_of_language_model(
    sd_model: Any, first: Callable[[], tuple[str, int] | None] = lambda: None
) -> PieceFinder | None:
    """None where the model has no language model of a known kind.

    Args:
        first: tells a text of the job and how many columns its conditioning has; None where there is none.

    Raises:
        NotApplied: reference pictures stand before the text, and ``first`` does not tell how many columns they take.
    """
    engine = next((found for name in ENGINES if (found := getattr(sd_model, name, None)) is not None), None)
    if not hasattr(engine, "tokenize_line"):
        return None
    if hasattr(engine, "t5_tokenizer"):
        return PieceFinder(_T5Tokens(engine))
    if hasattr(engine, "process_template"):
        return PromptFinder(engine)
    if hasattr(engine, "image_template") and _shows_references():
        row = first()
        if row is None:
            raise NotApplied(
                "the words stand behind reference pictures, and how far behind them is known in a job alone"
            )
        return ReferenceFinder(engine, *row)
    return TemplateFinder(engine) if hasattr(engine, "llama_template") else None


def _shows_references() -> bool:
    """Whether the host shows reference pictures to the network."""
    from backend import args

    return bool(getattr(getattr(args, "dynamic_args", None), "ref_latents", None))


@dataclass(frozen=True)
class _Chunk:
    tokens: Sequence[int]


class _T5Tokens:
    """Anima's engine as one of T5: the language model's answer is read out by an adapter, a column for each of T5's
    tokens."""

    id_pad = None

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.tokenizer, self.id_end = engine.t5_tokenizer, engine.id_end

    def tokenize_line(self, line: str) -> tuple[list[_Chunk], int]:
        chunks = [_Chunk(chunk.t5_tokens) for chunk in self._engine.tokenize_line(line)]
        return chunks, len(chunks[0].tokens)


class TemplateFinder(PieceFinder):
    """Finds objects in prompts that Qwen reads: pieces of bytes, in a template of a conversation."""

    def __init__(self, encoder: Any) -> None:
        super().__init__(encoder)
        empty, one = (list(encoder.tokenize([text])[0]) for text in ("", "x"))
        same = _common(empty, one)
        self._head, self._tail = empty[:same], empty[same:]

    def pieces(self, text: str) -> list[tuple[int, int]]:
        tokens = list(self.encoder.tokenize_line(text)[0].tokens)
        first = self._cut(tokens)
        return [(column - first, tokens[column]) for column in self._of_the_prompt(tokens) if column >= first]

    def _of_the_prompt(self, tokens: Sequence[int]) -> Iterator[int]:
        """The numbers of those between heads and tails."""
        at = _find(tokens, self._head, 0)
        while at is not None:
            start = at + len(self._head)
            end = _find(tokens, self._tail, start)
            yield from range(start, len(tokens) if end is None else end)
            at = None if end is None else _find(tokens, self._head, end + len(self._tail))

    def _cut(self, tokens: Sequence[int]) -> int:
        """How many columns the engine cuts off: Qwen-Image's does the first head."""
        if not hasattr(self.encoder, "strip_template"):
            return 0
        return len(tokens) - len(self.encoder.strip_template(_Columns(len(tokens)), tokens))

    def _spell(self, tokens: Sequence[tuple[int, int]]) -> tuple[str, list[int]]:
        pieces = self.encoder.tokenizer.convert_ids_to_tokens([token for _, token in tokens])
        data, owners = bytearray(), []
        for (column, _), piece in zip(tokens, pieces, strict=True):
            own = _bytes_of(piece)
            data += own
            owners += [column] * len(own)
        line = data.decode("utf-8", errors="surrogateescape")
        of_characters, at = [], 0
        for character in line:
            of_characters.append(owners[at])
            at += len(character.encode("utf-8", errors="surrogateescape"))
        return line, of_characters


class ReferenceFinder(TemplateFinder):
    """Finds objects in prompts that Qwen reads behind reference pictures. These take as many columns as they like: it
    counts from the end, where everything is as it is without them.

    Args:
        encoder: the engine.
        text: one of the job's.
        columns: of its conditioning.
    """

    def __init__(self, encoder: Any, text: str, columns: int) -> None:
        super().__init__(encoder)
        self._more = columns - len(self._row(text))

    def pieces(self, text: str) -> list[tuple[int, int]]:
        tokens = self._row(text)
        return [(column + self._more, tokens[column]) for column in self._of_the_prompt(tokens)]

    def _row(self, text: str) -> list[int]:
        """Without pictures. Beside them the engine knows no emphasis: brackets are text."""
        return list(self.encoder.tokenize([text])[0])


class PromptFinder(PieceFinder):
    """Finds objects in prompts that Gemma reads: behind the instruction that the engine puts before each."""

    def pieces(self, text: str) -> list[tuple[int, int]]:
        tokens = self._tokens(text)
        line, owners = self._spell(tokens)
        marked = line.rfind(_PROMPT)
        start = marked + len(_PROMPT) if marked >= 0 else _common(line, self._spell(self._tokens(""))[0])
        first = owners[start] if start < len(owners) else len(tokens) + 1
        return [(column, token) for column, token in tokens if column >= first]

    def _tokens(self, text: str) -> list[tuple[int, int]]:
        """The instruction's and the text's, with their columns. What BREAK begins is the next prompt's."""
        first = self.encoder.tokenize_line(self.encoder.process_template(text, False))[0]
        ends = (self.encoder.id_start, self.encoder.id_pad)
        return [(column, token) for column, token in enumerate(first.tokens) if token not in ends]


class _Columns:
    """Stands for a conditioning of so many columns."""

    def __init__(self, count: int) -> None:
        self.shape = (1, count)
        self._count = count

    def __getitem__(self, rest: slice) -> range:
        return range(self._count)[rest]


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How long both are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _find(tokens: Sequence[int], wanted: Sequence[int], start: int) -> int | None:
    """Where the wanted ones stand next."""
    ends = range(start, len(tokens) - len(wanted) + 1)
    return next((at for at in ends if list(tokens[at : at + len(wanted)]) == list(wanted)), None)


def _printable() -> dict[str, int]:
    """The characters by which such a vocabulary writes bytes: themselves where they can be seen, others in a row."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {**{chr(byte): byte for byte in seen}, **{chr(256 + n): byte for n, byte in enumerate(hidden)}}


_BYTES = _printable()


def _bytes_of(piece: str) -> bytes:
    """What a piece spells; one that is not written by bytes is itself."""
    if all(character in _BYTES for character in piece):
        return bytes(_BYTES[character] for character in piece)
    return piece.encode("utf-8")
