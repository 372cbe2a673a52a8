"""The chips below the Objects field, and what is plotted beside the sliders."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyndm_ext.clock.curves import CURVES, curve_height
from asyndm_ext.prompt.finder import automatic_objects
from asyndm_ext.prompt.objects import parse_objects
from asyndm_ext.region.turns import ORDERS
from asyndm_ext.ui import chips, curve_plot
from asyndm_ext.ui.chips import Chip

PROMPT = "a red cat eating a sandwich on a wooden table"


def shown(prompt: str, objects: str) -> list[tuple[str, bool]]:
    return [(chip.text, chip.on) for chip in chips.chips(prompt, objects)]


def unmoved(found: list[Chip]) -> list[Chip]:
    """Without what moves would do."""
    return [replace(chip, moved=()) for chip in found]


def test_with_an_empty_field_all_that_is_found_is_on() -> None:
    assert unmoved(chips.chips(PROMPT, "")) == [
        Chip("cat", True, True, "sandwich, table"),
        Chip("sandwich", True, True, "cat, table"),
        Chip("table", True, True, "cat, sandwich"),
    ]
    assert unmoved(chips.chips("a cat", " , ")) == [Chip("cat", True, True, "cat")], "the only one is pinned"


def test_named_ones_come_first_and_the_others_can_be_added() -> None:
    assert unmoved(chips.chips(PROMPT, "Cat:0.5, wooden table#1")) == [
        Chip("Cat:0.5", True, True, "wooden table#1"),
        Chip("wooden table#1", True, True, "Cat:0.5", 1),
        Chip("sandwich", False, True, "Cat:0.5, wooden table#1, sandwich"),
        Chip("table", False, True, "Cat:0.5, wooden table#1, table"),
    ]


def test_a_name_that_is_not_in_the_prompt_is_told() -> None:
    assert [chip.in_prompt for chip in chips.chips(PROMPT, "cat, dragon, red sandwich, at")] == [
        True, False, False, False, True, True,
    ]  # fmt: skip
    prompt = "((red)   Cat:1.3) <lora:hat:1>, long_hair"
    named = chips.chips(prompt, "red cat, hair, hat, cat long")
    assert [chip.in_prompt for chip in named[:4]] == [True, True, False, False]


@pytest.mark.parametrize(
    ("prompt", "objects", "lit"),
    [
        ("a cat on a mat", "cat#1, cat#2", [True, False]),
        ("a cat and a Cat, cats", "cat#2, cat#3", [True, False]),
        ("the cat's hat", "cat, hat#2", [True, False]),
        ("a red cat, a red dog", "red cat#1, red#2, red#3:0.5", [True, True, False]),
        ("red, cat", "red cat", [False]),
    ],
)
def test_a_place_that_the_prompt_does_not_have_is_not_lit(prompt: str, objects: str, lit: list[bool]) -> None:
    named = chips.chips(prompt, objects)[: len(lit)]
    assert [(chip.on, chip.in_prompt) for chip in named] == [(on, on) for on in lit]
    line = chips.html(prompt, objects, "objects")
    assert line.count("asyndm-wrong") == lit.count(False)


def test_it_says_how_many_there_are() -> None:
    line = chips.html("a cat on a mat", "cat#2, dog#1", "objects")
    assert "The prompt has only 1 of these" in line and line.count("Not in the prompt") == 1
    assert 'aria-pressed="true"' not in line


def test_the_host_counts() -> None:
    """As its tokenizer does, which the chips know nothing of."""
    named = chips.chips(PROMPT, "cat#3, dog", places=lambda prompt: {"cat": 3, "dog": 0}.__getitem__)
    assert [chip.in_prompt for chip in named[:2]] == [True, False]


@given(st.lists(st.sampled_from(["cat", "sandwich", "table", "dragon", "red cat:0.5"]), unique=True))
def test_clicking_a_chip_turns_it_and_no_other(named: list[str]) -> None:
    objects = ", ".join(named)
    before = dict(shown(PROMPT, objects))
    for chip in chips.chips(PROMPT, objects):
        if chip.after == "" or before == {chip.text: True}:  # the last one off: found automatically again
            continue
        after = dict(shown(PROMPT, chip.after))
        if not named and chip.on:
            assert after == {**before, chip.text: False}
        elif not chip.in_prompt:
            assert chip.text not in after, "what was struck through is out"
        else:
            expected = {**before, chip.text: not chip.on}
            assert {text: on for text, on in after.items() if on} == {t: on for t, on in expected.items() if on}


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_text_gives_a_line_without_markup_of_its_own(prompt: str, objects: str) -> None:
    line = chips.html(prompt, objects, "objects")
    assert line.startswith('<div class="asyndm-chips">')
    texts = re.sub(r"</?(?:div|span|button)\b[^<>]*>", "", line)
    assert "<" not in texts and ">" not in texts
    for after in re.findall(r'data-objects="([^"]*)"', line):
        parse_objects(html.unescape(after))
    if not objects.strip(" ,"):
        assert line.count("<button") == len(automatic_objects(prompt))


def test_what_the_line_says() -> None:
    assert "are shown here" in chips.html("", "", "objects")
    assert "Write words of the prompt" in chips.html("masterpiece, best quality", "", "objects")
    assert "English prompts only" in chips.html("ein Hund auf einer Wiese", "", "objects")
    assert "English prompts only" in chips.html("一只猫", "", "objects")
    assert "Click to choose:" in chips.html("ein Hund auf einer Wiese", "Hund", "objects")
    assert "Found in the prompt:" in chips.html(PROMPT, "", "objects or mask")
    assert "Click to choose:" in chips.html(PROMPT, "cat", "objects")
    assert "“everything” does not use objects" in chips.html(PROMPT, "cat", "everything")
    assert "from 0 to 1" in chips.html(PROMPT, "cat:7", "objects") and "asyndm-wrong" in chips.html(
        PROMPT, "cat:7", "objects"
    )


@pytest.mark.parametrize("curve", CURVES)
@given(w=st.floats(0, 1))
def test_a_mixture_with_the_straight_line_is_the_curve(curve: str, w: float) -> None:
    """What the page draws is what the clock does, at any strength."""
    progress = torch.linspace(0, 1, curve_plot.POINTS, dtype=torch.float64)
    full = torch.tensor(curve_plot.tables()[curve], dtype=torch.float64)
    mixed = (1 - w) * (1 - progress) + w * full
    assert float((mixed - curve_height(curve, progress, w)).abs().max()) < 2e-5


def test_the_figure_carries_the_tables() -> None:
    figure = curve_plot.html("some_id")
    data = re.search(r'data-curves="([^"]*)"', figure)
    assert data is not None and 'id="some_id"' in figure
    assert json.loads(html.unescape(data[1])) == curve_plot.tables()


# -- an order


def test_a_chip_knows_its_turn() -> None:
    ends = [(chip.text, round(chip.until, 3)) for chip in chips.chips(PROMPT, "", order="in turn")]
    assert ends == [("cat", 0.25), ("sandwich", 0.5), ("table", 0.75)]
    ends = [(chip.text, round(chip.until, 3)) for chip in chips.chips(PROMPT, "table, cat", order="in turn")]
    assert ends == [("cat", 0.333), ("table", 0.667), ("sandwich", 1)], "as in the prompt; the last is not slow"
    ends = [(chip.text, round(chip.until, 3)) for chip in chips.chips(PROMPT, "", order="in turn, last first")]
    assert ends == [("table", 0.25), ("sandwich", 0.5), ("cat", 0.75)], "the first one that is drawn stands first"
    ends = [(chip.text, round(chip.until, 3)) for chip in chips.chips(PROMPT, "table:0.5 > cat", order="together")]
    assert ends == [("table:0.5", 0.333), ("cat", 0.667), ("sandwich", 1)]


def test_a_click_keeps_the_order_of_the_others() -> None:
    found = chips.chips(PROMPT, "table > sandwich:0.4 > cat")
    assert [chip.after for chip in found] == ["sandwich:0.4 > cat", "table > cat", "table > sandwich:0.4"]
    assert chips.chips(PROMPT, "table > cat")[2].after == "table > cat, sandwich"


def test_the_page_is_told_when_a_turn_ends() -> None:
    page = chips.html(PROMPT, "cat > table, sandwich", "objects")
    assert re.findall(r'data-until="([0-9.]+)" data-turn="([0-9])"', page) == [("0.3333", "1"), ("0.6667", "2")]
    assert "Slow until 33% of the steps: click to take it out. Drag it" in html.unescape(page)
    assert "data-until" not in chips.html(PROMPT, "cat, table", "objects")
    assert "goes round in a circle" in chips.html(PROMPT, "cat > table > cat", "objects")
    said = "The mask source “guidance” does not use objects."
    assert f">{said}</span></div>" in chips.html(PROMPT, "cat", "objects", mask_source="guidance")


# -- moved to another place


NAMED = st.lists(st.sampled_from(["cat", "sandwich", "table:0.4", "red cat:0.5", "dragon"]), unique=True)


@given(NAMED, st.sampled_from(["", ", cat > table", ", sandwich > cat"]), st.sampled_from(ORDERS))
def test_a_moved_chip_is_drawn_at_that_place(named: list[str], order_of_one_s_own: str, order: str) -> None:
    """And all slow ones have an order then, which the setting does not turn round."""
    before = chips.chips(PROMPT, ", ".join(named) + order_of_one_s_own, order=order)
    slow = [chip.text for chip in before if chip.on]
    for chip in before:
        assert len(chip.moved) == (len(slow) if chip.on and len(slow) > 1 else 0)
        for place, objects in enumerate(chip.moved):
            after = [one for one in chips.chips(PROMPT, objects, order=order) if one.on]
            others = [text for text in slow if text != chip.text]
            assert [one.text for one in after] == [*others[:place], chip.text, *others[place:]]
            assert [one.until for one in after] == pytest.approx([(k + 1) / (len(slow) + 1) for k in range(len(slow))])
            struck = {one.text for one in before if not one.in_prompt}
            assert struck == {one.text for one in chips.chips(PROMPT, objects, order=order) if not one.in_prompt}


def test_a_move_starts_an_order_and_it_can_be_taken_back() -> None:
    assert chips.chips(PROMPT, "")[2].moved == (
        "table > cat > sandwich", "cat > table > sandwich", "cat > sandwich > table",
    )  # fmt: skip
    assert chips.chips(PROMPT, "cat:0.5, table")[1].moved == ("table > cat:0.5", "cat:0.5 > table")
    assert chips.together("table:0.5 > cat, sandwich#2") == "table:0.5, cat, sandwich#2"
    assert chips.together("table, cat") is None
    ordered = chips.html(PROMPT, "table:0.5 > cat", "objects")
    assert 'data-objects="table:0.5, cat">undo the order</button>' in ordered
    assert "undo" not in chips.html(PROMPT, "table, cat", "objects", order="in turn")


def test_the_page_has_what_a_move_writes() -> None:
    page = chips.html(PROMPT, "table > cat:0.5, dragon", "objects")
    found = [
        (int(place), json.loads(html.unescape(moved)), name)
        for place, moved, name in re.findall(r'data-place="(.)" data-moved="([^"]*)".*?data-name="([^"]*)"', page)
    ]
    there, back = "table > cat:0.5, dragon", "cat:0.5 > table, dragon"
    assert found == [(0, [there, back], "table"), (1, [back, there], "cat:0.5")]
    assert "data-moved" not in chips.html(PROMPT, "cat", "objects"), "there is nothing to go past"
