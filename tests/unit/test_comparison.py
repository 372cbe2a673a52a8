"""The sheet of all seeds: every picture at its place, what is said below it, and the difference made visible."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")


from asyndm_ext.embedded import comparison
from asyndm_ext.embedded.comparison import CHANGED, RIGHT, WRONG, Layout, changed_words, difference_picture
from asyndm_ext.embedded.job import VARIANTS, Job
from asyndm_ext.embedded.rows import VISIBLE, Drawn, Row, right
from asyndm_ext.embedded.sampling import run_variant
from asyndm_ext.picture import drawing
from asyndm_ext.settings import Settings
from asyndm_ext.world.judge import Seen, verdict
from asyndm_ext.world.telling import Opinion
from asyndm_ext.world.words import read
from tests.support.tiny import random_model

PROMPT = "a shark riding a bike"
SEEN = {
    "right": Seen({"shark": 1, "bike": 1}, "sea", "day", "red", True),
    "wrong": Seen({"shark": 1}, "sea", "day", "red", False),
    "very wrong": Seen({"cat": 4, "owl": 2, "boat": 1, "car": 2}, "sea", "day", "red", False),
}


def opinion(said: str) -> Opinion:
    text = read(PROMPT).text
    return Opinion(SEEN[said], text, verdict(SEEN[said], text))


def some_rows(number, size=(128, 128), said=("wrong", "wrong", "right"), first=8) -> list[Row]:
    """Pictures of a single colour each: red as the seed, green as the clock."""
    job = Job(PROMPT, first, Settings(enabled=True, objects=("shark", "bike")), steps=2, width=size[0], height=size[1])
    results = {variant: run_variant(random_model(), job, variant) for variant in VARIANTS}
    return [
        Row(
            Job(PROMPT, first + i, job.settings, steps=2, width=size[0], height=size[1]),
            {
                variant: Drawn(
                    Image.new("RGB", size, (10 * i, 60 * column, 100)),
                    results[variant],
                    opinion(said[column]) if said else None,
                )
                for column, variant in enumerate(VARIANTS)
            },
        )
        for i in range(number)
    ]


def ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> set[tuple[int, int, int]]:
    return {colour for _, colour in sheet.crop(box).getcolors(maxcolors=10**6)}


@pytest.mark.parametrize("number", [1, 4, 16])
@pytest.mark.parametrize("size", [(128, 128), (128, 192), (512, 64)], ids=str)
def test_every_picture_is_at_its_place(number, size):
    rows = some_rows(number, size)
    sheet, where = comparison.comparison(rows), Layout.of(rows)
    assert sheet.size == where.size
    width, height = where.view
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)
    for i in range(number):
        for column in range(len(VARIANTS)):
            x, y = where.picture(i, column)
            assert ink(sheet, (x + 1, y + 1, x + width - 1, y + height - 1)) == {(10 * i, 60 * column, 100)}
    edges = [where.x(column) for column in range(4)]
    assert all(b - a >= width + drawing.GAP for a, b in pairwise(edges))
    assert sheet.width >= edges[-1] + width + drawing.MARGIN
    assert all(b - a >= height + 20 for a, b in pairwise(where.top))


@pytest.mark.parametrize("first", [8, 2**32 - 16])
def test_nothing_runs_over_the_edge(first):
    rows = some_rows(2, said=("very wrong", "wrong", "right"), first=first)
    sheet, where = comparison.comparison(rows), Layout.of(rows)
    for x in (0, sheet.width - drawing.MARGIN + 1):
        assert ink(sheet, (x, 0, x + drawing.MARGIN - 1, sheet.height)) == {drawing.PAPER}
    gap = where.x(0) - drawing.GAP
    assert ink(sheet, (gap, where.top[0], gap + drawing.GAP - 1, where.top[-1])) == {drawing.PAPER}, "long seeds fit"


@pytest.mark.parametrize("kind", ["right", "wrong", "very wrong"])
def test_the_verdict_stands_under_its_picture(kind):
    """In its colour, beside a mark of another form; a long one makes room for itself."""
    others = "right" if kind != "right" else "wrong"
    rows = some_rows(2, said=(others, kind, others))
    sheet, where = comparison.comparison(rows), Layout.of(rows)
    for row in range(2):
        x, y = where.picture(row, 1)
        below = ink(sheet, (x, y + where.view[1] + 2, x + where.column, where.top[row + 1] - 1))
        assert ((RIGHT in below), (WRONG in below)) == (kind == "right", kind != "right")
        mark = comparison._mark(kind == "right", RIGHT if kind == "right" else WRONG)
        at = (x, y + where.view[1] + 10)
        assert sheet.crop((*at, at[0] + mark.width, at[1] + mark.height)).tobytes() == mark.tobytes()
    assert (where.top[1] - where.top[0] > where.view[1] + 60) == (kind == "very wrong")
    marks = [np.asarray(comparison._mark(flag, (0, 0, 0))) for flag in (True, False)]
    assert (np.abs(marks[0].astype(int) - marks[1]) > 100).any(axis=2).sum() > 20, "not by colour alone"


def test_without_a_judge_nothing_is_said():
    rows = some_rows(2, said=None)
    assert right(rows, "plain") is None
    colours = ink(comparison.comparison(rows), (0, 0, *Layout.of(rows).size))
    assert not {RIGHT, WRONG} & colours


def test_right_ones_are_counted():
    rows = some_rows(3)
    assert [right(rows, variant) for variant in VARIANTS] == [0, 0, 3]


# --- the difference -------------------------------------------------------------------------------------------------


def changed_row(box, colour) -> Row:
    """AsynDM's picture is the plain one but for a box."""
    (row,) = some_rows(1)
    plain = Image.new("RGB", (128, 128), (40, 90, 160))
    asyndm = plain.copy()
    asyndm.paste(colour, box)
    pictures = {"plain": plain, "concave": plain, "asyndm": asyndm}
    return Row(row.job, {v: Drawn(pictures[v], one.result, one.opinion) for v, one in row.drawn.items()})


def test_what_changed_is_coloured_and_the_rest_is_grey():
    row = changed_row((32, 48, 64, 96), (200, 60, 20))
    shown = np.asarray(difference_picture(row)).astype(int)
    grey = np.ptp(shown, axis=2) == 0
    inside = np.zeros((128, 128), bool)
    inside[50:94, 34:62] = True
    outside = np.ones((128, 128), bool)
    outside[46:98, 30:66] = False
    assert grey[outside].all() and not grey[inside].any()
    assert (np.abs(shown[inside].mean(axis=0) - np.array(CHANGED)) < 70).all()
    assert row.changed == pytest.approx(32 * 48 / 128**2, rel=0.15)


def test_a_change_that_nobody_sees_is_none():
    row = changed_row((0, 0, 128, 128), (40 + VISIBLE // 3, 90, 160))
    assert row.changed == 0
    assert np.ptp(np.asarray(difference_picture(row)), axis=2).max() == 0
    assert changed_row((5, 5, 6, 6), (90, 90, 160)).changed == 0, "a speck"


@pytest.mark.parametrize(
    ("share", "words"), [(0, "nothing"), (0.004, "under 1% of the pixels"), (0.126, "13% of the pixels")]
)
def test_how_much_changed_in_words(share, words):
    assert changed_words(share) == words
