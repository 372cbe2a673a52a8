"""docs/WHY.md: its numbers are those of docs/EVALUATE.md and of the exact world, its pictures and commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from asyndm_ext.evaluate.options import build_parser
from asyndm_ext.evaluate.work import plan_of
from tests import why_pictures
from tests.support.beliefs import CLOCKS, Belief, at_first, drawn, outcomes, watched
from tests.why_pictures import EXAMPLE

DOCS = Path(__file__).resolve().parents[2] / "docs"
WHY = (DOCS / "WHY.md").read_text(encoding="utf-8")
EVALUATE = (DOCS / "EVALUATE.md").read_text(encoding="utf-8")
MEASURED = EVALUATE.partition("## In a world whose denoiser is known")[2].partition("\n## ")[0]
GUIDANCE_5 = "47.0 %"  # plain's share stands in the head of that table


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables: the first cell, without emphasis and what is in brackets, to the others."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("|"):
            name, *cells = (cell.strip().replace("*", "") for cell in line.strip().strip("|").split("|"))
            found.setdefault(re.sub(r" \(`.*`\)", "", name), cells)
    return found


TABLE = rows(WHY.partition("## The exact world in numbers")[2])
KNOWN = rows(MEASURED)


@pytest.mark.parametrize("name", [name for name in TABLE if name and not name.startswith("---")])
def test_a_row_of_the_table_is_as_it_was_measured(name):
    measured = KNOWN[name]
    if name in ("quadratic, 0.7", "quadratic, 1", "piecewise linear, 1"):
        # That table has the ground's column where this one has plain's.
        assert f"plain {GUIDANCE_5} right" in MEASURED
        measured = [GUIDANCE_5, *measured[:2]]
    assert TABLE[name] == measured


def test_the_table_says_what_has_to_be_said():
    assert len(TABLE) == 11  # head, rule, and nine rows
    assert {"guidance 1", "guidance 10", "usual prompts", "parts that tell each other nothing"} <= set(TABLE)


def test_every_interval_stands_in_evaluate():
    said = re.findall(r"[+-]?\d+\.\d\s\([+-]?\d+\.\d\sto\s[+-]?\d+\.\d\)", WHY)
    measured = " ".join(EVALUATE.split())
    assert len(said) > 15
    assert [one for one in said if " ".join(one.split()) not in measured] == []


def test_every_picture_is_there_and_small():
    named = re.findall(r"!\[[^\]]+\]\((images/why-[^)]+)\)", WHY)
    assert [Path(name).stem for name in named] == [f"why-{name}" for name in why_pictures.PICTURES]
    for name in named:
        assert (DOCS / name).stat().st_size < 90_000
        with Image.open(DOCS / name) as picture:
            assert picture.width == why_pictures.WIDTH


def test_every_command_is_one():
    block = WHY.partition("```sh\n")[2].partition("```")[0].replace("\\\n", "")
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        assert command[:2] == ["asyndm", "evaluate"]
        assert len(plan_of(build_parser().parse_args(command[2:])).pairs) == 3000


def test_readme_and_evaluate_lead_here():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(docs/WHY.md)" in readme and "(WHY.md)" in MEASURED


# --- what it says about the exact world ------------------------------------------------------------------------------


def rounded(one: Belief) -> tuple[int, int, int]:
    """Points: the push for the shark, for the camel, and the first over the second."""
    return tuple(round(100 * value) for value in (*one.push, one.net))  # type: ignore[return-value]


def test_what_guidance_pushes_for():
    noise, clear = (rounded(at_first(EXAMPLE, is_clear)) for is_clear in (False, True))
    assert str(EXAMPLE) == "a shark in the desert"
    assert noise == (27, 16, 11) and clear == (15, -12, 27)
    for said in (
        "likelier (+27 points), but the camel, too (+16)",
        "there remain 11 points",
        "shark (+15) instead of\n  camel (-12). Now guidance has 27 points",
    ):
        assert said in WHY


def test_what_comes_out_on_the_ordinary_clock():
    right, animal, ground, _ = (round(100 * share) for share in outcomes(drawn(None)))
    assert (right, animal, ground) == (47, 30, 22)
    assert f"{right} % of the pictures come out as asked" in WHY
    assert f"usual animal ({animal} %)" in WHY and f"usual ground\n({ground} %)" in WHY


def test_the_push_is_larger_where_the_animal_lags():
    """Between 400 and 800 the animal is being decided: twice the push for it, as the page says."""
    peaks = {clock: max(one.belief.net for one in watched(clock)[1]) for clock in CLOCKS}
    ordinary, quadratic, piecewise = peaks.values()
    assert 1.6 < quadratic / ordinary < 2.2 and 1.6 < piecewise / ordinary < 2.2
    ground = [one.ground for one in watched("AsynDM, quadratic")[1]]
    animal = [one.animal for one in watched("AsynDM, quadratic")[1]]
    assert min(g - a for g, a in zip(ground, animal, strict=True)) > -0.01 and max(ground) > 0.99
