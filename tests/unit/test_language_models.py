"""Objects in the columns of what a language model makes of a prompt (Z-Image, FLUX.2, Qwen-Image, Lumina 2, Anima)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from asyndm_ext.prompt.objects import ObjectSpec

SPECIAL = re.compile(r"<\|\w+\|>|<Prompt Start>")


class Words:
    """A tokenizer that knows pieces by their number.

    Args:
        by_bytes: pieces are written byte by byte and hold the space before them, as Qwen's; otherwise as
            sentencepiece writes them.
    """

    def __init__(self, by_bytes: bool) -> None:
        self.by_bytes = by_bytes
        self.known: list[str] = ["<pad>", "</s>", "<bos>"]

    def ids(self, text: str) -> list[int]:
        pieces: list[str] = []
        at = 0
        for special in [*SPECIAL.finditer(text), None]:
            pieces += self._plain(text[at : special.start() if special else None])
            if special:
                pieces.append(special.group())
                at = special.end()
        self.known += [piece for piece in dict.fromkeys(pieces) if piece not in self.known]
        return [self.known.index(piece) for piece in pieces]

    def _plain(self, text: str) -> Iterator[str]:
        for word in re.findall(r" ?\w+|\n+|[^\w\s]| +", text):
            for piece in (word[:4], word[4:]):
                if piece and self.by_bytes:
                    # As GPT-2 writes bytes: a space is U+0120, a line's end U+010A, a byte beyond ASCII a letter.
                    seen = piece.encode().replace(b" ", b"\x00").replace(b"\n", b"\x01")
                    yield seen.decode("latin-1").replace("\x00", "\u0120").replace("\x01", "\u010a")
                elif piece:
                    yield piece.replace(" ", "\u2581")

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.ids(text) for text in texts]}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.known[i] for i in ids]


def emphasised(line: str) -> list[str]:
    """Parts of a text that have an emphasis of their own, as a host's parser gives them."""
    return [part for part in re.split(r"\((.*?)(?::[\d.]+)?\)", line) if part] or [""]


class Qwen:
    """Z-Image's engine, or FLUX.2's, which fills the text up; each part has a template of its own."""

    llama_template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"

    def __init__(self, fill: int = 0) -> None:
        self.tokenizer, self.fill, self.id_pad = Words(by_bytes=True), fill, 0

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer([self.llama_template.format(text) for text in texts])["input_ids"]

    def tokenize_line(self, line: str) -> list[Any]:
        tokens = [token for part in self.tokenize(emphasised(line)) for token in part]
        return [SimpleNamespace(tokens=tokens + [self.id_pad] * (self.fill - len(tokens)))]


class QwenImage(Qwen):
    """Its engine cuts the first template's head off what the encoder answers."""

    llama_template = "<|im_start|>system\nDescribe the objects and background:<|im_end|>\n" + Qwen.llama_template
    image_template = "<|im_start|>system\nDescribe the input image:<|im_end|>\n" + Qwen.llama_template

    def strip_template(self, out: Any, tokens: Sequence[int]) -> Any:
        starts = [at for at, token in enumerate(tokens) if self.tokenizer.known[token] == "<|im_start|>"]
        assert out.shape[1] > 3
        return out[starts[1] + 3 :]  # and "user", and the end of the line


class Gemma:
    """Lumina 2's engine: an instruction before the text."""

    id_start, id_pad = 2, 0

    def __init__(self, instruction: str = "You are an assistant for a cat. <Prompt Start>") -> None:
        self.tokenizer, self.instruction = Words(by_bytes=False), instruction

    def process_template(self, text: str, negative: bool) -> str:
        assert not negative
        return text if "<Prompt Start>" in text else f"{self.instruction}\n{text}"

    def tokenize_line(self, line: str) -> list[Any]:
        return [SimpleNamespace(tokens=[self.id_start, *self.tokenizer.ids(line)])]


class Anima:
    """Two tokenizers; the columns are those of T5's tokens."""

    id_end, id_pad = 1, 0

    def __init__(self) -> None:
        self.qwen_tokenizer, self.t5_tokenizer = Words(by_bytes=True), Words(by_bytes=False)

    def tokenize(self, texts: list[str]) -> tuple[list[list[int]], list[list[int]]]:
        return self.qwen_tokenizer(texts)["input_ids"], self.t5_tokenizer(texts)["input_ids"]

    def tokenize_line(self, line: str) -> list[Any]:
        qwen, t5 = ([token for part in parts for token in part] for parts in self.tokenize(emphasised(line)))
        return [SimpleNamespace(qwen_tokens=qwen, t5_tokens=[*t5, self.id_end])]


ENGINES = {
    "Z-Image": ("text_processing_engine_gemma", Qwen),
    "FLUX.2": ("text_processing_engine_gemma", lambda: Qwen(fill=64)),
    "Qwen-Image": ("text_processing_engine_qwen", QwenImage),
    "Lumina 2": ("text_processing_engine_gemma", Gemma),
    "Anima": ("text_processing_engine_anima", Anima),
}


@pytest.fixture
def language_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    host = ModuleType("modules")
    host.shared = SimpleNamespace(opts=SimpleNamespace())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", host)
    backend: Any = ModuleType("backend")
    backend.args = SimpleNamespace(dynamic_args=SimpleNamespace(ref_latents=[]))
    monkeypatch.setitem(sys.modules, "backend", backend)
    names = ("asyndm_ext.hosts.webui.finders", "asyndm_ext.hosts.forge.language_models")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module(names[1])
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> tuple[str, Any]:
    attribute, make = ENGINES[request.param]
    return attribute, make()


def conditioning(engine: Any, text: str) -> list[str]:
    """The pieces that the columns of the conditioning are of, as the engine's own call makes it."""
    if isinstance(engine, Anima):
        return engine.t5_tokenizer.convert_ids_to_tokens(engine.tokenize_line(text)[0].t5_tokens)
    if isinstance(engine, Gemma):
        text = engine.process_template(text, False)
    tokens = engine.tokenize_line(text)[0].tokens
    pieces = engine.tokenizer.convert_ids_to_tokens(tokens)
    if isinstance(engine, QwenImage):
        return pieces[len(engine.tokenizer.ids(engine.llama_template.partition("{}")[0])) :]
    return pieces


def spelled(pieces: list[str], columns: Sequence[int]) -> str:
    text = "".join(pieces[column] for column in columns)
    return text.replace("\u2581", " ").replace("\u0120", " ").encode("latin-1").decode().strip()


@pytest.mark.parametrize("text", ["a cat in a red hat", "a (cat:1.3) in a red hat", "((cat)) red hat, (a red hat)"])
def test_the_columns_spell_the_object(language_models: Any, engine: tuple[str, Any], text: str) -> None:
    attribute, own = engine
    finder = language_models.finder_of_language_model(SimpleNamespace(**{attribute: own}))
    pieces = conditioning(own, text)
    places = finder.places(text, "red hat")
    assert len(places) == text.count("red hat")
    assert all(spelled(pieces, place) == "red hat" for place in places)
    assert spelled(pieces, finder.columns(text, ObjectSpec("Cat"))) == "cat"
    assert finder.columns(text, ObjectSpec("dog")) == finder.columns("a catalogue", ObjectSpec("cat")) == ()


def test_words_of_the_template_are_no_objects(language_models: Any, engine: tuple[str, Any]) -> None:
    attribute, own = engine
    finder = language_models.finder_of_language_model(SimpleNamespace(**{attribute: own}))
    text = "a (user) and an assistant"
    for word in ("user", "assistant"):
        assert spelled(conditioning(own, text), finder.columns(text, ObjectSpec(word))) == word
    for word in ("background", "user", "cat", "system"):
        assert finder.columns("a dog", ObjectSpec(word)) == ()


def test_letters_of_several_bytes(language_models: Any, engine: tuple[str, Any]) -> None:
    attribute, own = engine
    finder = language_models.finder_of_language_model(SimpleNamespace(**{attribute: own}))
    text = "caf\u00e9s, \u732b\u3068 a caf\u00e9 hat"
    if not isinstance(own, (Gemma, Anima)):
        pieces = conditioning(own, text)
        assert spelled(pieces, finder.columns(text, ObjectSpec("caf\u00e9"))) == "caf\u00e9"
        assert spelled(pieces, finder.columns(text, ObjectSpec("hat"))) == "hat"
    assert len(finder.places(text, "caf\u00e9")) == 1


def test_an_instruction_of_one_s_own(language_models: Any) -> None:
    """Without the mark, what comes before any prompt is the instruction; with it in the prompt, the prompt has its
    own."""
    gemma = Gemma("Draw the cat.")
    finder = language_models.finder_of_language_model(SimpleNamespace(text_processing_engine_gemma=gemma))
    assert finder.columns("a dog", ObjectSpec("cat")) == ()
    assert spelled(conditioning(gemma, "a cat"), finder.columns("a cat", ObjectSpec("cat"))) == "cat"
    own = "Draw a cat. <Prompt Start> a dog"
    assert finder.columns(own, ObjectSpec("cat")) == ()
    assert spelled(conditioning(gemma, own), finder.columns(own, ObjectSpec("dog"))) == "dog"


def test_reference_pictures_before_the_words(language_models: Any) -> None:
    args: Any = sys.modules["backend"].args  # type: ignore[attr-defined]
    args.dynamic_args.ref_latents = [object()]
    with pytest.raises(Exception, match="reference pictures"):
        language_models.finder_of_language_model(SimpleNamespace(text_processing_engine_qwen=QwenImage()))

    engine, model = QwenImage(), SimpleNamespace(text_processing_engine_qwen=QwenImage())
    model.text_processing_engine_qwen = engine

    def encoded(text: str) -> list[str]:
        """The pieces behind the columns of the conditioning: the one of a picture becomes many, brackets are text."""
        user = f"Picture 0: <|image_pad|> x\n{text}"
        whole = engine.tokenizer.convert_ids_to_tokens(engine.tokenizer.ids(engine.image_template.format(user)))
        head = engine.tokenizer.ids(engine.image_template.partition("{}")[0])
        picture = next(at for at, piece in enumerate(whole) if "image_pad" in piece)
        return [*whole[:picture], *["picture"] * 37, *whole[picture + 1 :]][len(head) :]

    first = "a cat with a dragon's wings"
    finder = language_models.finder_of_language_model(model, lambda: (first, len(encoded(first))))
    for text in (first, "a (cat:1.2) and a user, Picture 0"):
        assert spelled(encoded(text), finder.columns(text, ObjectSpec("cat"))) == "cat"
    assert spelled(encoded(text), finder.columns(text, ObjectSpec("user"))) == "user"
    assert finder.columns(first, ObjectSpec("user")) == finder.columns(first, ObjectSpec("picture")) == ()
    behind = SimpleNamespace(text_processing_engine_gemma=Qwen())
    assert language_models.finder_of_language_model(behind).columns("a cat", ObjectSpec("cat"))


@pytest.mark.parametrize("model", [SimpleNamespace(), SimpleNamespace(text_processing_engine_gemma=SimpleNamespace())])
def test_others_are_not_known(language_models: Any, model: Any) -> None:
    assert language_models.finder_of_language_model(model) is None
