"""Objects in the columns of the text conditioning: CLIP's, T5's, and both one after the other (SD3)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyndm_ext.prompt.objects import ObjectSpec


class Pieces:
    """A tokenizer that knows words by their number: CLIP's in lower case, T5's as they are, and in pieces of three."""

    def __init__(self, lower: bool) -> None:
        self.lower = lower
        self.known: list[str] = ["<start>", "<end>", "<pad>"]

    def ids(self, text: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", text.lower() if self.lower else text)
        pieces = words if self.lower else [piece for word in words for piece in self._pieces(word)]
        self.known += [piece for piece in dict.fromkeys(pieces) if piece not in self.known]
        return [self.known.index(piece) for piece in pieces]

    @staticmethod
    def _pieces(word: str) -> Iterator[str]:
        for at in range(0, len(word), 3):
            yield ("▁" if at == 0 else "") + word[at : at + 3]

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.known[i] for i in ids]


class Clip:
    """As the hosts' encoders: chunks of a start token, 75 tokens and an end token."""

    id_start, id_end, id_pad = 0, 1, 2

    def __init__(self) -> None:
        self.tokenizer = Pieces(lower=True)

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return [self.tokenizer.ids(text) for text in texts]

    def tokenize_line(self, text: str) -> tuple[list[Any], int]:
        ids = self.tokenizer.ids(text)
        parts = [ids[at : at + 75] for at in range(0, max(len(ids), 1), 75)]
        filled = [[0, *part, 1, *[2] * (75 - len(part))] for part in parts]
        return [SimpleNamespace(tokens=tokens, fixes=[]) for tokens in filled], len(ids)


class T5:
    """As A1111's (``chunks`` False), or Forge's, which splits into chunks of 256 or more."""

    id_end, id_pad = 1, 2

    def __init__(self, chunks: bool) -> None:
        self.tokenizer = Pieces(lower=False)
        self.chunks = chunks

    def tokenize_line(self, text: str) -> tuple[list[Any], Any]:
        tokens = [*self.tokenizer.ids(text), self.id_end]
        if not self.chunks:
            return tokens, [1.0] * len(tokens)
        return [SimpleNamespace(tokens=tokens + [self.id_pad] * (256 - len(tokens)))], len(tokens)


@pytest.fixture
def finders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    shared = SimpleNamespace(opts=SimpleNamespace())
    host = ModuleType("modules")
    host.shared = shared  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", host)
    name = "asyndm_ext.hosts.webui.finders"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module(name)
    sys.modules.pop(name, None)


def joined(finders: Any, cut: bool) -> Any:
    clip, t5 = finders.TokenFinder(Clip()), finders.PieceFinder(T5(chunks=not cut))
    return finders.JoinedFinder(clip, t5, cut=cut)


@pytest.mark.parametrize("cut", [False, True], ids=["Forge", "A1111"])
def test_clip_s_columns_then_t5_s(finders: Any, cut: bool) -> None:
    finder = joined(finders, cut)
    text = "a sandwich and a Cat"
    assert finder.clip.columns(text, ObjectSpec("cat")) == (5,)
    assert finder.t5.columns(text, ObjectSpec("sandwich")) == (1, 2, 3), "san, dwi, ch"
    assert finder.columns(text, ObjectSpec("sandwich")) == (2, 77 + 1, 77 + 2, 77 + 3)
    assert finder.columns(text, ObjectSpec("cat")) == (5, 77 + 6)
    assert finder.columns(text, ObjectSpec("dog")) == ()


@pytest.mark.parametrize("cut", [False, True])
def test_a_place_is_the_same_one_in_both(finders: Any, cut: bool) -> None:
    finder = joined(finders, cut)
    text = "cat dog cat dog cat"
    assert finder.columns(text, ObjectSpec("cat", occurrence=2)) == (3, 77 + 2)
    assert finder.columns(text, ObjectSpec("cat", occurrence=4)) == ()
    assert len(finder.places(text, "cat")) == 3


@pytest.mark.parametrize("cut", [False, True])
def test_t5_begins_where_the_longest_text_of_clip_s_ends(finders: Any, cut: bool) -> None:
    """Texts that prompt editing makes of one prompt are encoded together, all to the same number of chunks."""
    finder = joined(finders, cut)
    long = "so " * 80 + "cat"
    assert finder.columns(long, ObjectSpec("cat")) == (77 + 1 + 80 - 75, 154 + 80)
    assert finder.columns("a cat", ObjectSpec("cat"), ["a cat", long]) == (2, 154 + 1)
    assert finder.columns("a cat", ObjectSpec("cat"), ["a cat"]) == (2, 77 + 1)


def test_a1111_cuts_t5_off_at_clip_s_length(finders: Any) -> None:
    """60 words are one chunk of CLIP's, and 120 pieces of T5's."""
    text = "bigger " * 60 + "cat"
    assert joined(finders, cut=True).columns(text, ObjectSpec("cat")) == (61,)
    assert joined(finders, cut=False).columns(text, ObjectSpec("cat")) == (61, 77 + 120)


@given(
    words=st.lists(st.sampled_from(["cat", "dog", "sandwich", "so", "Cat,"]), min_size=1, max_size=200),
    others=st.lists(st.integers(0, 200), max_size=2),
    cut=st.booleans(),
)
def test_t5_s_columns_spell_the_object(words: list[str], others: list[int], cut: bool) -> None:
    """Whatever the text and its company: CLIP's columns are within its part, T5's spell the word behind it."""
    with pytest.MonkeyPatch.context() as patch:
        host = ModuleType("modules")
        host.shared = SimpleNamespace(opts=SimpleNamespace())  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "modules", host)
        patch.delitem(sys.modules, "asyndm_ext.hosts.webui.finders", raising=False)
        finder = joined(import_module("asyndm_ext.hosts.webui.finders"), cut)
    text, among = " ".join(words), ["so " * count for count in others]
    columns = finder.columns(text, ObjectSpec("sandwich"), among)
    clip = max(77 * max(1, -(-len(Clip().tokenizer.ids(one)) // 75)) for one in [text, *among])
    behind = [column - clip for column in columns if column >= clip]
    count = words.count("sandwich")
    assert len(columns) - len(behind) == count, "CLIP has one token for the word"
    pieces = finder.t5.encoder.tokenizer.convert_ids_to_tokens([token for _, token in finder.t5.pieces(text)])
    spelled = "".join(pieces[column] for column in behind)
    assert ("▁sandwich" * count).startswith(spelled)
    assert not cut or all(column < clip for column in behind)
    assert cut or spelled == "▁sandwich" * count


def test_the_old_emphasis_is_refused(finders: Any) -> None:
    finders.shared.opts.use_old_emphasis_implementation = True
    with pytest.raises(Exception, match="old emphasis"):
        finders.TokenFinder(Clip())


class Weighted:
    """T5 as later engines of Forge Neo have it: no lines, and a tokenizer that weighs by itself, as ComfyUI's."""

    def __init__(self, emphasis: str = "Original") -> None:
        self.emphasis = SimpleNamespace(name=emphasis)
        self.tokenizer = SimpleNamespace(tokenizer=Pieces(lower=False), tokenize_with_weights=self._weighted)

    def _weighted(
        self, text: str, return_word_ids: bool = False, disable_weights: bool = False
    ) -> list[list[tuple[Any, ...]]]:
        assert return_word_ids
        plain = text if disable_weights else text.replace("(", "").replace(")", "")
        row: list[tuple[Any, ...]] = [(token, 1.1, 1) for token in self.tokenizer.tokenizer.ids(plain)]
        row.insert(1, (torch.zeros(8), 1.0, 2))  # an embedding
        return [[*row, (1, 1.0, 0), *[(0, 1.0, 0)] * (256 - len(row))]]


def test_t5_of_an_engine_that_knows_no_lines(finders: Any) -> None:
    finder = finders.PieceFinder(Weighted())
    assert finder.columns("a (sandwich) and a Cat", ObjectSpec("sandwich")) == (2, 3, 4), "behind the embedding"
    assert finder.columns("a sandwich and a Cat", ObjectSpec("cat")) == (7,)
    assert finder.columns("a sandwich and a Cat", ObjectSpec("dog")) == ()
    assert finders.tells_pieces(finder.encoder) and not finders.tells_pieces(SimpleNamespace(tokenizer=object()))
    assert finders.tokenizer_of(finder.encoder) is finder.encoder.tokenizer.tokenizer


class Joining(T5):
    """As ersatzForge's: chunks alone, split at BREAK, whose columns follow one another."""

    def __init__(self, end_with_pad: bool) -> None:
        super().__init__(chunks=True)
        self.end_with_pad = end_with_pad

    def tokenize_line(self, text: str) -> Any:
        parts = [self.tokenizer.ids(part) + [self.id_pad] * self.end_with_pad + [1] for part in text.split("BREAK")]
        return [SimpleNamespace(tokens=part + [self.id_pad] * (10 - len(part))) for part in parts]

    def columns(self, text: str) -> list[int]:
        """The tokens that the network reads."""
        chunks, cut = [chunk.tokens for chunk in self.tokenize_line(text)], 1 + self.end_with_pad
        return [token for chunk in chunks for token in chunk[: len(chunk) - cut * (chunk is not chunks[-1])]]


@pytest.mark.parametrize("end_with_pad", [False, True])
def test_t5_of_an_engine_that_joins_its_chunks(finders: Any, end_with_pad: bool) -> None:
    finder = finders.PieceFinder(Joining(end_with_pad))
    long = "a dog and a big red fox near the sea"  # more than the least length: what is cut is its end
    for text, name in (
        ("a cat", "cat"),
        ("a dog BREAK a sandwich", "sandwich"),
        (f"{long} BREAK a sandwich", "sandwich"),
    ):
        read = finder.encoder.columns(text)
        columns = finder.columns(text, ObjectSpec(name))
        assert "".join(finder.encoder.tokenizer.known[read[column]] for column in columns) == "\u2581" + name


def test_parentheses_are_text_where_emphasis_is_off(finders: Any) -> None:
    as_text, weighed = (finders.PieceFinder(Weighted(name)).pieces("(cat)") for name in ("None", "Original"))
    assert len(as_text) == len(weighed) + 2


def test_the_encoder_of_a_conditioner_is_the_one_that_tells_lines(finders: Any) -> None:
    """SD3's conditioner in AUTOMATIC1111 has a tokenizer that weighs by itself, too, but no lines."""
    clip = Clip()
    weighs = SimpleNamespace(tokenize_with_weights=print)
    assert finders.clip_encoder(clip) is clip
    assert finders.clip_encoder(SimpleNamespace(embedders=[object(), clip])) is clip
    assert finders.clip_encoder(SimpleNamespace(tokenizer=weighs, model_lg=clip)) is clip
    assert finders.clip_encoder(SimpleNamespace(tokenizer=weighs)) is None
    assert finders.clip_encoder(None) is None
