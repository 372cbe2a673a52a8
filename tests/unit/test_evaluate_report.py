"""The report's words: singular and plural, nothing said with numbers that say nothing, no heading without a text."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from asyndm_ext.evaluate import words
from asyndm_ext.evaluate.charts import Bar, Line, forest, lines
from asyndm_ext.evaluate.statistics import Bootstrap
from tests.support.evaluation import GRAIN, SHARE, sometimes
from tests.support.evaluation import page as whole_page


def compared(plain, method, groups=None):
    scores = (np.array(values, dtype=float) for values in (plain, method))
    return Bootstrap(groups or len(plain), resamples=400).compare(*scores)


def page(*arguments, **settings):
    """Without the style."""
    return whole_page(*arguments, **settings).split("</style>")[1]


def visible(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


# --- words ----------------------------------------------------------------------------------------------------------


def test_one_and_many():
    assert [words.counted(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
    assert words.changes(compared([0, 0, 1], [1, 0, 0]), SHARE) == "1 pair better and 1 worse"
    assert words.changes(compared([0, 0, 1], [1, 1, 1]), GRAIN) == "0 pairs better and 2 worse"


@pytest.mark.parametrize(
    ("number", "column", "text"),
    [
        (0.0, SHARE, "0.0"),
        (-0.0004, SHARE, "0.0"),
        (0.0006, SHARE, "+0.1"),
        (-0.004, GRAIN, "0.00"),
        (1, GRAIN, "+1.00"),
    ],
)
def test_nothing_has_no_sign(number, column, text):
    assert words.signed(number, column) == text


@pytest.mark.parametrize(
    ("plain", "method", "column", "text"),
    [
        ([1, 0, 1], [1, 0, 1], SHARE, "the same in all 3 pairs"),
        ([1], [1], SHARE, "the same in the only pair"),
        ([0], [1], SHARE, "+100.0 (too few for more than the means)"),
        ([0.0] * 19, [0.1] * 19, SHARE, "+10.0 (too few for more than the means)"),
        ([0.0] * 20, [0.0001] * 20, SHARE, "0.0 (less than 0.05 either way)"),
        ([0.0] * 20, [-0.001] * 20, GRAIN, "0.00 (less than 0.005 either way)"),
        ([0.0] * 20, [0.1] * 20, SHARE, "+10.0 (+10.0 to +10.0)"),
    ],
)
def test_a_difference_in_words(plain, method, column, text):
    assert words.difference(compared(plain, method), column) == text


def test_few_pairs_prove_nothing():
    d = compared([0, math.nan], [1, 1])
    assert math.isnan(d.low) and math.isnan(d.high) and not d.clear
    assert words.verdict(d, SHARE) == ""
    one_prompt = compared([0, 0, 0], [1, 1, 1], groups=[0, 0, 0])
    assert math.isnan(one_prompt.low) and one_prompt.better == 3
    assert words.verdict(compared([0] * 20, [1] * 20), SHARE) == "Better than plain."
    assert words.verdict(compared([0] * 20, [1] * 20), GRAIN) == "Worse than plain."


# --- the page -------------------------------------------------------------------------------------------------------


def test_where_nothing_changed_it_says_so():
    text = visible(page(picture="gone.png"))
    assert "all right 100.0 % against plain's 100.0 % over 3 pairs, the same in all 3 pairs ." in text
    assert "contains 0" not in text and "(0.0 to 0.0)" not in text and "+0.0" not in text and " p 1 " not in text
    assert "No pair is better with concave, or worse with concave, or better with asyndm" in text


def test_a_pair_is_singular():
    html = page(1, scores=sometimes)
    text = visible(html)
    assert not re.search(r"\b1 (pairs|seeds|methods|prompts)\b", text)
    assert "over 1 pair, a difference of +100.0 (too few for more than the means). It made 1 pair better" in text
    assert "Prompts 1, with 1 seed Conditions" in text
    assert "1 of 1 pair by all of 7 methods" in text
    assert "nan" not in text.lower() and "nan" not in html.lower()
    assert 'class="good"' not in html and 'class="bad"' not in html


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"scores": sometimes},
        {"scores": sometimes, "kinds": ("one", "two"), "number": 4},
        {"number": 1},
        {"methods": ("plain",)},
        {"methods": ("asyndm",), "scores": sometimes},
        {"scores": lambda pair, method: {}},
        {"scores": lambda pair, method: None},
        {"scores": lambda pair, method: {"exact": 1.0} if method.kind == "plain" else {}},
    ],
    ids=["all", "sometimes", "kinds", "one", "plain", "asyndm", "no score", "no picture", "plain only"],
)
def test_no_heading_stands_alone(how):
    html = page(**how)
    assert not re.search(r"</h[123]>\s*(<h[123]|</main>)", html), "a heading with nothing below it"
    assert not re.search(r"<(ul|ol|table|tbody|p|div|details|svg)[^>]*>\s*</\1>", html), "an empty element"
    assert "None." not in html
    heads = re.findall(r"<thead><tr>(.*?)</tr></thead>", html)
    assert all("relation" not in head for head in heads), "a column without a number"
    assert ("Against plain" in html) == ("<circle" in html.split("Over the settings")[0])
    for row in re.findall(r"<tr class=\"\w*\">.*?</tr>", html):
        assert row.count("<td") == heads[0].count("<th>") - 1
    assert "nan" not in html


def test_what_was_not_said_is_not_in_the_table():
    assert "Made with backend test Prompts" in visible(page())


def test_only_plain_pictures_are_not_compared():
    text = visible(page(methods=("plain",)))
    assert "Only plain pictures were asked for" in text and "3 of 3 pairs by the only method" in text
    assert "better / worse" not in text and "the difference from plain" not in text


def test_a_phone_gets_its_own_forest_and_names_beside_the_numbers():
    html = page(scores=sometimes)
    broad, narrow = re.findall(r'<div class="(?:broad|narrow)"><svg viewBox="0 0 (\d+) ', html)
    assert int(narrow) <= 360 < int(broad)
    assert re.search(r'<td data-of="all right" class="\w*">', html)


# --- charts ---------------------------------------------------------------------------------------------------------


def test_a_forest_without_intervals():
    html = forest(
        [Bar("a", "asyndm", 5.0, math.nan, math.nan, "+5.0", "all"), Bar("b", "fixed", *[math.nan] * 3, "", "x")], "u"
    )
    assert html.count("<circle") == 2 and "nan" not in html and 'stroke-width="2"' not in html
    assert forest([], "u") == "" and ">x<" not in html


def test_lines_without_intervals():
    html = lines("steps", ["2", "4"], [Line("asyndm", [(0, 1.0, math.nan, math.nan), (1, 2.0, 1.5, 2.5)])], "u")
    assert html.count("<circle") == 2 and "nan" not in html
