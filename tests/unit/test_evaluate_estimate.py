"""What a run says about its length."""

from __future__ import annotations

import pytest

from asyndm_ext.evaluate.estimate import Estimate, calls, duration
from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.plan import Plan
from asyndm_ext.evaluate.prompts import Prompt

METHODS = lay_out(
    ["asyndm", "fixed", "zigzag", "seg"],
    {"strength": [0.7]},
    {"solver": ["DDIM"], "scheduler": ["uniform"], "steps": [10], "guidance": [5.0]},
)
PLAN = Plan([Prompt(f"p{n}", "pets") for n in range(100)], METHODS)


def test_what_a_picture_costs() -> None:
    assert {method.kind: calls(method) for method in METHODS} == {
        "plain": 10,
        "asyndm": 10,
        "fixed": 20,
        "zigzag": 28,
        "seg": 15,
    }


def test_before_and_after() -> None:
    now = [0.0]
    estimate = Estimate(PLAN, [], lambda: now[0])
    assert estimate.before().startswith("500 pictures are still to be drawn, 8,300 model calls in all.")
    now[0] = 4.0
    plain, asyndm, fixed, zigzag, _ = (method.id for method in METHODS)
    assert estimate.after([plain]) == estimate.after([asyndm, fixed]) == ""
    now[0] = 6.8  # ten calls a second
    assert estimate.after([zigzag]) == "at the pace of the first 4 pictures the others take about 14 minutes."
    assert estimate.after([plain]) == "", "once"


def test_what_is_there_does_not_count_and_slow_pictures_are_not_waited_for() -> None:
    now = [0.0]
    done = [pair.key(method) for pair in PLAN.pairs[1:] for method in METHODS]
    estimate = Estimate(PLAN, done, lambda: now[0])
    assert "5 pictures are still to be drawn, 83 model calls" in estimate.before()
    now[0] = 50.0
    assert estimate.after([METHODS[0].id]) == "", "one picture may have loaded the model"
    now[0] = 80.0
    assert estimate.after([METHODS[1].id]).endswith("first 2 pictures the others take about 4 minutes.")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (10, "less than a minute"),
        (60, "about a minute"),
        (600, "about 10 minutes"),
        (9000, "about 2.5 hours"),
        (432000, "about 5.0 days"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said
