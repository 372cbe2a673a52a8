"""The panel in other languages: every text has its translation, and no translation has lost its text.

The WebUI reads ``localizations/LANGUAGE.json`` of every extension into one dictionary, and exchanges each piece of text
on the page that equals a key: labels, help, choices, placeholders, whatever is drawn later. Tooltips within a line it
does not reach.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from asyndm_ext.settings import FIELDS, REGIONS
from asyndm_ext.ui import chips, mask_line

gr = pytest.importorskip("gradio")

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = sorted((ROOT / "localizations").glob("*.json"))
OPTIONS = ROOT / "asyndm_ext" / "hosts" / "webui" / "options.py"
NAME = "AsynDM"
LETTERS = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]")
KIND_OF_LETTERS = {"ja_JP": re.compile(r"[\u3041-\u30ff]"), "zh_CN": re.compile(r"[\u4e00-\u9fff]")}


class Pieces(HTMLParser):
    """The pieces of text of a line; what a chip says is the user's own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._in_chip = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_chip = tag == "button" and {"aria-pressed", "data-objects"} <= set(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self._in_chip = False

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._in_chip:
            self.found.add(data.strip())


@cache
def drawn() -> frozenset[str]:
    """The texts of the panel as the page begins."""
    from asyndm_ext.studio.accordion import InputAccordion
    from asyndm_ext.ui import compared, panel

    with gr.Blocks() as page:
        panel.build(InputAccordion(), lambda name: f"test_{name}", inpaint=True)
    found = Pieces(compared.html()).found
    for block in page.blocks.values():
        if not getattr(block, "visible", True) or "asyndm-hidden" in (getattr(block, "elem_classes", None) or ()):
            continue
        found |= {text for key in ("label", "info", "placeholder") if (text := getattr(block, key, None))}
        found |= {label for label, _ in getattr(block, "choices", None) or ()}
        if isinstance(block, gr.HTML):
            found |= Pieces(block.value).found
    return frozenset(found - {NAME})


def said() -> set[str]:
    """What the lines about objects and mask can say, but for messages, which have the user's words in them."""
    lines = [chips.html("a cat", "", region) for region in REGIONS]
    for prompt in ("", "eine Katze auf dem Sofa", "best quality", "a cat"):
        lines.append(chips.html(prompt, "", "objects"))
    lines.append(chips.html("a cat on a mat", "cat > mat", "objects"))
    lines.append(chips.html("a cat", "", "objects", mask_source="guidance"))
    for region in REGIONS:
        for kind in ("", "painted", "picture", "photo"):
            lines += [mask_line.html(region, kind, inpaint) for inpaint in (False, True)]
    return set().union(*(Pieces(line).found for line in lines))


def options() -> set[str]:
    """Labels and remarks of the settings page, which puts remarks into brackets."""
    found = set()
    for node in ast.walk(ast.parse(OPTIONS.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "OptionInfo":
            found.add(ast.literal_eval(node.args[1]))
        elif node.func.attr == "info":
            found.add(f"({ast.literal_eval(node.args[0])})")
    return found


@cache
def texts() -> frozenset[str]:
    """All that wants a translation."""
    return frozenset(text for text in drawn() | said() | options() if re.search(r"[A-Za-z]", text))


@cache
def read(file: Path) -> dict[str, Any]:
    pairs = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), "a key stands twice"
    return dict(pairs)


def test_there_are_two() -> None:
    assert [file.name for file in LANGUAGES] == ["ja_JP.json", "zh_CN.json"]


def test_labels_help_and_choices_are_among_the_texts() -> None:
    for spec in FIELDS:
        assert {spec.label, spec.help, *spec.choices} <= texts()
    assert {"Advanced", "found automatically", "noise left", "largest lag", "Click to choose:"} <= texts()
    for part in ("No object was found", "English prompts only"):
        assert any(part in text for text in texts())
    assert len(options()) == 6


@pytest.mark.parametrize("file", LANGUAGES, ids=lambda file: file.stem)
class TestLanguage:
    def test_every_text_is_a_key(self, file: Path) -> None:
        assert sorted(texts() - set(read(file))) == []

    def test_no_key_is_stale(self, file: Path) -> None:
        assert sorted(set(read(file)) - texts()) == []

    def test_translations_are_texts_in_the_language(self, file: Path) -> None:
        for key, text in read(file).items():
            assert isinstance(text, str) and text == text.strip() and text
            assert LETTERS.search(text), f"{key!r} is not translated"
        together = "".join(read(file).values())
        assert KIND_OF_LETTERS[file.stem].search(together)
        assert file.stem != "zh_CN" or not re.search(r"[\u3041-\u30ff]", together), "kana in a Chinese text"

    def test_what_people_type_stays_as_it_is(self, file: Path) -> None:
        """Examples and values that a help text names are the same in every language, as controls show them chosen."""
        for key, text in read(file).items():
            for word in re.findall(r"\bcat(?:[:#][\d.]+)|GET /\S+|asyndm\b|\b\d+(?:\.\d+)?(?= MB)", key):
                assert word.rstrip(";") in text, f"{word} is lost in {text!r}"

    def test_a_translation_is_not_a_key_itself(self, file: Path) -> None:
        """The WebUI looks at the page again whenever something is added to it."""
        assert not set(read(file)) & set(read(file).values())
