"""Controls: equivalent scales, plain guidance as strong and as dear, settings chosen on one half, too few pairs."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from asyndm_ext.evaluate import words
from asyndm_ext.evaluate.controls import (
    best,
    chooses,
    complete,
    equivalent,
    extended,
    is_chosen_from_many,
    matched,
    over_steps,
    steps_for,
)
from asyndm_ext.evaluate.methods import FILE, KINDS, check_usual, lay_out, plain_of
from asyndm_ext.evaluate.plan import Plan
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.evaluate.report import report
from asyndm_ext.evaluate.statistics import FEWEST, Bootstrap
from asyndm_ext.evaluate.store import Result
from asyndm_ext.evaluate.summary import Summary
from asyndm_ext.prompt.objects import parse_objects
from tests.support.evaluation import CONDITIONS, GRAIN, SHARE

SETTINGS = {"strength": [0.7], "curve": ["quadratic"]}
SCALES = {"zigzag": [5.0, 4.8, 2.5], "seg": [2.6, 2.4, 2.5], "cfg++": [math.nan, 1.0, 0.2]}


def planned(methods, number=60, **more):
    prompts = [Prompt(f"prompt {n}", "some") for n in range(number)]
    settings = more.pop("settings", SETTINGS)
    return Plan(prompts, lay_out(methods, settings, CONDITIONS, **more))


def drawn(plan, score=lambda pair, method: 1.0):
    results = {}
    for pair in plan.pairs:
        for method in plan.methods:
            scales = SCALES.get(method.rival, [])
            one = Result(pair.prompt.text, pair.seed, method.id, scores={"exact": score(pair, method)}, scales=scales)
            results[one.key] = one
    return results


def summary_of(plan, results, **more):
    return Summary(plan, results, [SHARE, GRAIN], resamples=300, **more)


# --- methods --------------------------------------------------------------------------------------------------------


def test_rivals_are_methods_with_settings_of_their_own():
    settings = {**SETTINGS, "seg_blur": [1.0, math.inf]}
    methods = lay_out(["asyndm", "seg", "asyndm+seg", "zigzag"], settings, CONDITIONS)
    assert [method.label for method in methods] == [
        "plain",
        "asyndm",
        "seg",
        "asyndm+seg",
        "zigzag",
        "seg seg_blur inf",
        "asyndm+seg seg_blur inf",
    ]
    plain, asyndm, seg, both, zigzag, wide, _ = methods
    assert [m.rival for m in methods[:5]] == ["", "", "seg", "seg", "zigzag"]
    assert [m.base for m in methods[:5]] == ["plain", "asyndm", "plain", "asyndm", "plain"]
    assert seg.asyndm() == zigzag.asyndm() == plain.asyndm() == {} and both.asyndm() == asyndm.asyndm()
    assert wide.rival_options == {"seg_blur": math.inf} and zigzag.settings == ()
    assert {kind.removeprefix("asyndm+") for kind in KINDS} >= {"zigzag", "seg", "s-cfg", "cfg++"}
    check_usual(methods)


def test_strengths_of_the_files_are_rows_beside_one_strength_for_all():
    methods = lay_out(["asyndm", "concave"], {**SETTINGS, "strength": [0.7, FILE]}, CONDITIONS)
    assert [m.label for m in methods] == ["plain", "asyndm", "concave", "asyndm strength file", "concave strength file"]
    named = parse_objects(["cat:0.3", "dog#2"])
    assert [str(spec) for spec in methods[1].objects(named)] == ["cat", "dog#2"]
    assert [str(spec) for spec in methods[3].objects(named)] == ["cat:0.3", "dog#2"]
    assert "strength" not in methods[3].asyndm() and methods[1].asyndm()["strength"] == 0.7


def test_more_guidance_for_plain_alone():
    methods = lay_out(["asyndm"], SETTINGS, CONDITIONS, plain_guidance=[2.5, 6.0])
    assert [m.label for m in methods] == ["plain", "asyndm", "plain guidance 6"]
    assert plain_of(methods[1], methods) is methods[0]


# --- equal strength, equal cost -------------------------------------------------------------------------------------


def test_equivalent_scales_are_means_over_steps_and_pictures():
    plan = planned(["asyndm", "zigzag", "cfg++"], number=3)
    plain, asyndm, zigzag, cfgpp = plan.methods
    results = drawn(plan)
    assert equivalent(plain, plan.pairs, results) == equivalent(asyndm, plan.pairs, results) == 2.5
    assert equivalent(zigzag, plan.pairs, results) == pytest.approx(4.1)
    assert equivalent(cfgpp, plan.pairs, results) == pytest.approx(0.6)
    assert over_steps(zigzag, plan.pairs, results) == pytest.approx([5.0, 4.8, 2.5])
    assert math.isnan(equivalent(zigzag, plan.pairs, {})) and over_steps(asyndm, plan.pairs, results) == []
    assert [steps_for(method) for method in plan.methods] == [20, 20, 58, 20]


def test_plain_pictures_as_strong_and_as_dear(tmp_path):
    plan = planned(["asyndm", "zigzag", "seg", "cfg++"], number=3)
    results = drawn(plan)
    assert complete(plan, results)
    found = matched(plan, results, tmp_path)
    more = extended(plan, found)
    assert [m.label for m in more.methods[len(plan.methods) :]] == [
        "plain guidance 4.1",
        "plain steps 58 guidance 4.1",
        "plain steps 30",  # SEG is as strong as plain here, and dearer
        "plain guidance 0.6",
    ]
    asyndm, zigzag = plan.methods[1:3]
    assert found[asyndm.id].strong.id == found[asyndm.id].dear.id == plan.methods[0].id
    assert (found[zigzag.id].strong.host["steps"], found[zigzag.id].dear.host["steps"]) == (20, 58)

    # What has been drawn once stays, though more pictures say another scale.
    later = {key: Result(*key, scales=[9.0]) for key in results}
    again = matched(plan, later, tmp_path)
    assert again == found and json.loads((tmp_path / "matched.json").read_text())[zigzag.id] == 4.1
    assert not complete(more, results)


def test_the_best_plain_guidance_and_half_of_the_pairs_for_choosing():
    plan = planned(["asyndm"], plain_guidance=[4.0, 8.0])
    good = {2.5: 0.4, 4.0: 0.6, 8.0: 0.5}

    def score(pair, method):
        return float((pair.seed * 7) % 10 < 10 * (0.55 if method.kind == "asyndm" else good[method.host["guidance"]]))

    results = drawn(plan, score)
    halves = [
        summary_of(plan, results, only=lambda pair, half=half: chooses(pair, "prompts") is half)
        for half in (False, True)
    ]
    reported, choosing = halves
    assert len(reported.pairs) + len(choosing.pairs) == 60 and min(len(h.pairs) for h in halves) > 15
    assert not {p.prompt.text for p in reported.pairs} & {p.prompt.text for p in choosing.pairs}
    plains = [method for method in plan.methods if method.kind == "plain"]
    assert best(summary_of(plan, results), plains, SHARE).host["guidance"] == 4.0
    html = page(plan, results, choosing=choosing, halves="prompts", only=lambda pair: not chooses(pair, "prompts"))
    assert "against the best plain guidance" in html and "on the other half of the pairs" in html
    assert "guidance 4<" in html
    assert "which favours plain" in page(plan, results)


def test_less_can_be_best():
    plan = planned(["asyndm"], plain_guidance=[4.0])
    results = drawn(plan)
    for (_, _, method), one in results.items():
        one.scores["grain"] = 1.0 if "guidance=4" in method else 2.0
    plains = [method for method in plan.methods if method.kind == "plain"]
    assert best(summary_of(plan, results), plains, GRAIN).host["guidance"] == 4.0


# --- the report -----------------------------------------------------------------------------------------------------


def page(plan, results, only=lambda pair: True, **more):
    from pathlib import Path

    return report(summary_of(plan, results, only=only), Path(), {"backend": "test"}, **more).split("</style>")[1]


def test_controls_of_rivals_are_in_the_report(tmp_path):
    plan = planned(["asyndm", "zigzag", "asyndm+cfg++"])
    found = matched(plan, drawn(plan), tmp_path)
    plan = extended(plan, found)

    def score(pair, method):
        share = {"zigzag": 0.6}.get(method.kind, 0.9 if method.host["guidance"] == 4.1 else 0.3)
        return float((pair.seed * 7) % 10 < 10 * share)

    html = page(plan, drawn(plan, score), matched=found)
    row = re.search(r"<tr><th>zigzag</th>(.*?)</tr>", html.split("Against plain at its best")[1])[1]
    cells = re.findall(r"<td.*?>(.*?)</td>", row)
    assert cells[:2] == ["4.1", "58"]
    assert cells[2].startswith("+30.0") and cells[3].startswith("-30.0") and "guidance 4.1" in cells[3]
    assert cells[4].startswith("-30.0") and "steps 58" in cells[5]
    assert "over the steps" in html and "nan" not in html
    assert "Against plain at its best" not in page(planned(["asyndm"]), drawn(planned(["asyndm"])))


def test_the_best_of_many_settings_is_no_result_unless_it_was_chosen_elsewhere():
    """Five settings that make no difference: the best one gains on the half that chose it, and not on the other."""
    plan = planned(["asyndm"], number=400, settings={**SETTINGS, "strength": [0.7, 0.3, 0.5, 0.8, 0.9]})
    rng = np.random.default_rng(0)
    results = drawn(plan, lambda pair, method: float(rng.random() < 0.5))
    assert is_chosen_from_many(plan.methods) and not is_chosen_from_many(plan.methods[:2])
    assert "These tables do not say" in page(plan, results)
    choosing = summary_of(plan, results, only=lambda pair: chooses(pair, "pairs"))
    html = page(plan, results, choosing=choosing, halves="pairs", only=lambda pair: not chooses(pair, "pairs"))
    told = re.search(r"of 5 settings: \+([\d.]+) where it was chosen .*? and ([+-][\d.]+) \(", html)
    assert float(told[1]) > 3 and float(told[1]) > float(told[2])
    assert "no difference can be told" in html.split("of 5 settings")[1] and "These tables do not say" not in html


def test_choosing_per_prompt_is_told_where_strengths_come_from_the_files():
    plan = planned(["asyndm"], settings={**SETTINGS, "strength": [0.7, FILE]})
    html = page(plan, drawn(plan))
    assert "gains 3.7 points" in html and "gains 3.7" not in page(planned(["asyndm"]), drawn(planned(["asyndm"])))


# --- too few pairs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, FEWEST - 1, FEWEST])
def test_below_twenty_pairs_nothing_is_said_but_the_means(number):
    plan = planned(["asyndm"], number=number)
    html = page(plan, drawn(plan, lambda pair, method: float(method.kind == "plain")))
    enough = number >= FEWEST
    assert ("Worse than plain" in html) is enough and ('class="bad"' in html) is enough
    assert ("<small>p " in html) is enough and ("too few for more than the means" in html) is not enough
    assert "-100.0" in html and "nan" not in html


def test_interval_and_test_never_contradict_each_other():
    """A few pairs that change much the one way, many that change little the other way."""
    plain = np.zeros(60)
    method = np.where(np.arange(60) < 12, 1.0, -0.01)
    d = Bootstrap(60, resamples=500).compare(plain, method)
    assert d.low > 0 and d.worse > d.better and not d.clear
    assert "no difference can be told" in words.verdict(d, GRAIN)
    rng = np.random.default_rng(5)
    for _ in range(200):
        a, b = (rng.random(25) < rng.uniform(0.2, 0.8) for _ in range(2))
        d = Bootstrap(25, resamples=200).compare(a.astype(float), b.astype(float))
        said = words.verdict(d, SHARE)
        if said in ("Better than plain.", "Worse than plain."):
            assert d.p < 0.05 and (d.better > d.worse) is (said == "Better than plain.")


def test_prompts_count_as_groups():
    few = Bootstrap([0] * 50 + [1] * 50, resamples=100).compare(np.zeros(100), np.ones(100))
    assert not few.known and not few.clear and math.isnan(few.p)
