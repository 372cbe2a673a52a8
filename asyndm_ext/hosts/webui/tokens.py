"""From object words to columns of the text conditioning, with the WebUI's own tokenizer.

The tokenizer call that the host itself uses has already applied emphasis, BREAK and textual inversion, and
splits into chunks of 77 (start, 75 tokens, end) that become the rows of the conditioning one after
another: column = 77 * chunk + position. Byte-pair tokens carry the end of the word, so "cat" never matches "cats".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modules import prompt_parser, sd_samplers, shared

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.messages import shown
from asyndm_ext.objects import ObjectSpec
from asyndm_ext.prompt import automatic_objects

Columns = tuple[tuple[int, ...], ...]
"""Per object the columns of its tokens."""


class TokenFinder:
    """Finds objects in prompts; results are kept per text."""

    def __init__(self, encoder: Any) -> None:
        if getattr(shared.opts, "use_old_emphasis_implementation", False):
            raise AsynDMError("AsynDM does not work with 'Use old emphasis implementation'; turn it off")
        self._encoder = encoder
        self._lines: dict[str, tuple[list[int], list[int], list[tuple[str, tuple[int, ...]]]]] = {}

    def columns(self, text: str, spec: ObjectSpec) -> tuple[int, ...]:
        """Columns of an object in ``text``, all its pieces at all its places (or at the one that it names); empty if
        it does not occur."""
        places = self.places(text, spec.name)
        if spec.occurrence is not None:
            places = places[spec.occurrence - 1 : spec.occurrence]
        return tuple(sorted({column for place in places for column in place}))

    def places(self, text: str, name: str) -> list[tuple[int, ...]]:
        """The columns of every place where ``name`` stands, from first to last."""
        tokens, positions, embeddings = self.line(text)
        found = [columns for embedding, columns in embeddings if embedding.casefold() == name.casefold()]
        wanted = self._encoder.tokenize([name])[0]
        if wanted:
            starts = range(len(tokens) - len(wanted) + 1)
            spans = [slice(start, start + len(wanted)) for start in starts]
            found += [tuple(positions[span]) for span in spans if tokens[span] == wanted]
        return sorted(found)

    def line(self, text: str) -> tuple[list[int], list[int], list[tuple[str, tuple[int, ...]]]]:
        """A text's tokens and their columns, without those that mark its ends; and its embeddings, by name, with
        theirs."""
        if text not in self._lines:
            tokens: list[int] = []
            positions: list[int] = []
            embeddings: list[tuple[str, tuple[int, ...]]] = []
            ends = (self._encoder.id_start, self._encoder.id_end, getattr(self._encoder, "id_pad", None))
            for number, chunk in enumerate(self._encoder.tokenize_line(text)[0]):
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

        Of the first chunk: Forge takes a second one for another prompt.
        """
        ends = (self._encoder.id_end, self._encoder.id_pad)
        tokens = self._encoder.tokenize_line(text)[0][0].tokens
        return [(column, token) for column, token in enumerate(tokens) if token not in ends]

    def _spelled(self, text: str) -> tuple[str, list[int]]:
        """The text as the tokens spell it, and for each character the column of its token."""
        tokens = self.pieces(text)
        pieces = self._encoder.tokenizer.convert_ids_to_tokens([token for _, token in tokens])
        words = [(column, piece) for (column, _), piece in zip(tokens, pieces, strict=True)]
        # A space belongs to the token that follows it.
        owners = [column for column, piece in words for _ in piece]
        return "".join(piece for _, piece in words).replace("\u2581", " "), owners


def finder_for(encoder: Any) -> TokenFinder:
    """The way to find objects with this text encoder; CLIP's knows a token that starts a text, T5's does not."""
    return TokenFinder(encoder) if hasattr(encoder, "id_start") else PieceFinder(encoder)


@dataclass(frozen=True)
class RowText:
    """One conditional row: the image it belongs to, and its text as prompt editing changes it over the steps."""

    image: int
    schedule: tuple[tuple[int, str], ...]

    def at(self, step: int) -> str:
        """The active text; the host's rule: the first entry whose end is not before this step."""
        for end, text in self.schedule:
            if step <= end:
                return text
        return self.schedule[0][1]


def row_texts(p: Any) -> list[RowText]:
    """The texts behind the conditional rows of the pass that is about to run, in the host's row order."""
    hires = getattr(p, "is_hr_pass", False)
    prompts = prompt_parser.SdConditioning(p.hr_prompts if hires else p.prompts)
    indexes, flat, _ = prompt_parser.get_multicond_prompt_list(prompts)
    hires_steps = None
    if hires:
        config = sd_samplers.find_sampler_config(p.hr_sampler_name or p.sampler_name)
        hires_steps = p.hr_second_pass_steps or p.steps
        hires_steps = config.total_steps(hires_steps) if config else hires_steps
    old_scheduling = getattr(shared.opts, "use_old_scheduling", False)
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
        flat, p.firstpass_steps, hires_steps, old_scheduling
    )
    return [
        RowText(image, tuple((end, text) for end, text in schedules[index]))
        for image, subprompts in enumerate(indexes)
        for index, _ in subprompts
    ]


@dataclass(frozen=True)
class ObjectColumns:
    """The objects of a batch and where their tokens are.

    Attributes:
        specs: per image its objects, equally many for every image (padded with None).
        rows: texts of the conditional rows.
        find: columns of an object in a text.
    """

    specs: tuple[tuple[ObjectSpec | None, ...], ...]
    rows: tuple[RowText, ...]
    find: Callable[[str, ObjectSpec], tuple[int, ...]]

    @property
    def count(self) -> int:
        return len(self.specs[0])

    @property
    def names(self) -> list[list[str]]:
        """Per image what was found, as the user would write it."""
        return [[str(spec) for spec in own if spec is not None] for own in self.specs]

    def strengths(self, default: float) -> list[float]:
        """Of each object, fractions. Those found automatically, which differ from image to image, have the default."""
        own = [spec.strength if spec is not None else None for spec in self.specs[0]]
        return [default if strength is None else strength for strength in own]

    def at(self, step: int) -> list[tuple[int, Columns]]:
        """For each conditional row the image it belongs to and, per object, the columns active in this step."""
        return [
            (row.image, tuple(self.find(row.at(step), spec) if spec else () for spec in self.specs[row.image]))
            for row in self.rows
        ]


def resolve_objects(p: Any, encoder: Any, objects: Sequence[ObjectSpec]) -> ObjectColumns:
    """Find the objects of every image of the batch; empty ``objects``: automatically, per image.

    Raises:
        AsynDMError: an object does not occur in an image's prompt, or none can be found automatically.
    """
    finder = finder_for(encoder)
    rows = row_texts(p)
    images = max(row.image for row in rows) + 1
    specs: list[list[ObjectSpec]] = []
    for image in range(images):
        texts = [text for row in rows if row.image == image for _, text in row.schedule]

        def occurs(spec: ObjectSpec, texts: list[str] = texts) -> bool:
            return any(finder.columns(text, spec) for text in texts)

        if objects:
            for spec in objects:
                if not occurs(spec):
                    times = max(len(finder.places(text, spec.name)) for text in texts)
                    there = f"; it stands there {times} time{'s' if times > 1 else ''}" if times else ""
                    place = f" (number {spec.occurrence})" if times else ""
                    raise AsynDMError(
                        f"AsynDM: {shown(spec.name)}{place} not found in the prompt {texts[0]!r}{there}; "
                        "objects have to be words of the prompt"
                    )
            specs.append(list(objects))
        else:
            names = dict.fromkeys(name for text in texts for name in automatic_objects(text))
            found = [spec for spec in map(ObjectSpec, names) if occurs(spec)]
            if not found:
                raise AsynDMError(f"AsynDM found no object in the prompt {texts[0]!r}; name them in the field Objects")
            specs.append(found)
    most = max(map(len, specs))
    padded = tuple((*own, *[None] * (most - len(own))) for own in specs)
    return ObjectColumns(padded, tuple(rows), finder.columns)
