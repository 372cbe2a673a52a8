"""Prompts, methods and the order of the work."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyndm_ext.evaluate.methods import lay_out, plain_of, read_value
from asyndm_ext.evaluate.plan import Plan
from asyndm_ext.evaluate.prompts import Prompt, from_file, from_files, little_world
from asyndm_ext.settings import SettingsError
from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.kinds import KINDS
from asyndm_ext.world.prompts import text_of_kind, wrong_texts
from asyndm_ext.world.scenes import never_things, thing_of
from asyndm_ext.world.words import read

CONDITIONS = {"solver": ["Euler"], "scheduler": ["uniform"], "steps": [20], "guidance": [4.0]}
SETTINGS = {"strength": [0.7], "curve": ["quadratic"]}
ALL = ["plain", "concave", "asyndm", "fixed"]


# Prompts


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(KINDS)), st.integers(0, 10**6))
def test_a_sentence_is_read_as_what_it_says(kind, seed):
    text = text_of_kind(kind, np.random.default_rng(seed))
    assert read(str(text)).text == text
    assert read(str(text).upper() + ".").text == text
    for wrong in wrong_texts(text, np.random.default_rng(seed)):
        assert (
            wrong != text and sum(a != b for a, b in zip(vars(wrong).values(), vars(text).values(), strict=True)) == 1
        )


def test_kinds_are_what_they_say():
    rng = np.random.default_rng(3)
    made = {kind: [text_of_kind(kind, rng) for _ in range(200)] for kind in KINDS}
    home = {name: animal.home for name, animal in ANIMALS.items()}
    never = [text.thing in never_things(text.animal) for text in made["unusual"]]
    assert 0.35 < np.mean(never) < 0.65
    for text in made["unusual"]:
        assert text.thing not in (None, thing_of(home[text.animal])) and text.ground != home[text.animal]
    assert 0.35 < np.mean([text.ground is not None for text in made["unusual"]]) < 0.65
    for text in made["usual"]:
        assert text.thing == thing_of(home[text.animal]) and text.ground in (None, home[text.animal])
    assert {text.count for text in made["counted"]} == {2, 3}
    assert all(text.paint for text in made["painted"])
    assert all(text.thing is None and text.ground != home[text.animal] for text in made["placed"])
    with pytest.raises(ValueError, match="'four'"):
        text_of_kind("four", rng)


def test_prompts_of_each_kind_in_turn_and_more_begin_with_the_same():
    few, more = little_world(3, seed=5), little_world(7, seed=5)
    assert [prompt.kind for prompt in few] == list(KINDS) * 3
    assert few == more[: len(few)] and len({prompt.text for prompt in more}) == 7 * len(KINDS)
    assert little_world(3, seed=6) != few
    assert [prompt.kind for prompt in little_world(2, ["usual", "placed"])] == ["usual", "placed"] * 2


def test_prompts_that_there_are_not():
    with pytest.raises(ValueError, match="'four'"):
        little_world(1, ["four"])
    with pytest.raises(ValueError, match="not 300 different"):
        little_world(300, ["counted"])


def test_a_text_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a cat  on a mat\n\na dog\na dog\n")
    assert from_file(path) == [Prompt("a cat on a mat", "mine"), Prompt("a dog", "mine")]
    path.write_text("\n")
    with pytest.raises(ValueError, match="no prompts"):
        from_file(path)


def test_the_authors_files(tmp_path):
    prompts = ["a cat eating a sandwich", "A cat, a dog and a cat. ", "A cross-section view of a brain."]
    (tmp_path / "animal.json").write_text(json.dumps(prompts))
    items = {
        "item_idx": {prompts[0]: [1, 4], prompts[1]: [6, 3], prompts[2]: [9]},
        "item_k": {prompts[0]: [0.7, 0.5], prompts[1]: [0.3, 0.3], prompts[2]: [0.5]},
    }
    (tmp_path / "animal_item.json").write_text(json.dumps(items))
    found = from_file(tmp_path / "animal.json")
    assert [prompt.text for prompt in found] == [" ".join(prompt.split()) for prompt in prompts]
    assert [[str(spec) for spec in prompt.objects] for prompt in found] == [["cat", "sandwich"], ["cat#2", "dog"], []]
    assert from_file(tmp_path / "animal_item.json") == found
    strong = from_file(tmp_path / "animal.json", strengths=True)
    assert [spec.strength for spec in strong[0].objects] == [0.7, 0.5]
    assert {prompt.kind for prompt in found} == {"animal"}


def test_geneval_2s_lines_with_their_questions(tmp_path):
    path = tmp_path / "geneval2_data.jsonl"
    line = {"prompt": "two cows", "atom_count": 2, "vqa_list": [["How many cows?", "two"]], "skills": ["count"]}
    path.write_text(json.dumps(line) + "\n\n" + json.dumps("a dog") + "\n")
    cows, dog = from_file(path)
    assert (cows.text, cows.kind, cows.questions) == ("two cows", "geneval2_data", (("How many cows?", "two"),))
    assert (dog.text, dog.questions) == ("a dog", ())
    path.write_text(json.dumps({"prompt": "two cows", "vqa_list": ["How many?"]}))
    with pytest.raises(ValueError, match="vqa_list is a list of"):
        from_file(path)
    path.write_text('{"prompt": "two')
    with pytest.raises(ValueError, match="is not JSON"):
        from_file(path)


def test_prompts_with_objects_and_kinds_of_their_own(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps([{"prompt": "a cat", "objects": ["cat:0.4"], "kind": "pets"}, "a dog"]))
    pets, other = from_file(path)
    assert (pets.kind, [str(spec) for spec in pets.objects]) == ("pets", ["cat"])
    assert from_file(path, strengths=True)[0].objects[0].strength == 0.4
    assert other == Prompt("a dog", "own")
    second = tmp_path / "second.txt"
    second.write_text("one\ntwo\nthree\n")
    assert [prompt.kind for prompt in from_files([path, second])] == ["pets", "second", "own", "second", "second"]


@pytest.mark.parametrize("text", ["{", "3", '{"prompts": []}', "[3]", '[{"text": "a cat"}]'])
def test_other_json_is_refused(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json"):
        from_file(path)


# Methods


def test_one_value_at_a_time_or_all_with_all():
    settings = {"strength": [0.7, 0.3], "curve": ["quadratic", "exponential"]}
    conditions = {**CONDITIONS, "steps": [20, 10]}
    star = lay_out(ALL, settings, conditions)
    assert [method.label for method in star] == [
        "plain",
        "concave",
        "asyndm",
        "fixed",
        "concave strength 0.3",
        "asyndm strength 0.3",
        "fixed strength 0.3",
        "concave curve exponential",
        "asyndm curve exponential",
        "fixed curve exponential",
        "plain steps 10",
        "concave steps 10",
        "asyndm steps 10",
        "fixed steps 10",
    ]
    grid = lay_out(ALL, settings, conditions, grid=True)
    assert len(grid) == 2 * (1 + 3 * 4) and {method.id for method in star} <= {method.id for method in grid}
    assert len({method.id for method in grid}) == len({method.slug for method in grid}) == len(grid)
    assert plain_of(star[-1], star).label == "plain steps 10"


def test_what_asyndm_is_told():
    settings = {**SETTINGS, "soft": [False, True]}
    plain, concave, asyndm, fixed, *rest = lay_out(ALL, settings, CONDITIONS)
    assert plain.asyndm() == {}
    assert concave.asyndm() == {"strength": 0.7, "curve": "quadratic", "region": "everything"}
    assert asyndm.asyndm() == {"strength": 0.7, "curve": "quadratic", "soft": False}
    assert fixed.asyndm() == {**asyndm.asyndm(), "mask_source": "fixed"}
    assert [method.label for method in rest] == ["asyndm soft True", "fixed soft True"]


def test_plain_is_always_there_and_names_are_checked():
    assert [method.kind for method in lay_out(["asyndm"], SETTINGS, CONDITIONS)] == ["plain", "asyndm"]
    with pytest.raises(ValueError, match="'async'"):
        lay_out(["async"], SETTINGS, CONDITIONS)
    with pytest.raises(SettingsError, match="Curve must be one of"):
        lay_out(["asyndm"], {**SETTINGS, "curve": ["cubic"]}, CONDITIONS)
    assert (read_value("soft", "true"), read_value("threshold", "1.5")) == (True, 1.5)
    for name, text in (("show", "mask"), ("soft", "yes"), ("strength", "2"), ("threshold", "high")):
        with pytest.raises(ValueError):
            read_value(name, text)


# Plan


def plan(number=5, seeds=2, chunk=4, **values):
    prompts = [Prompt(f"prompt {n}", "some") for n in range(number)]
    return Plan(prompts, lay_out(ALL, SETTINGS, {**CONDITIONS, "steps": [20, 10]}), seeds, chunk=chunk, **values)


def test_every_picture_once_in_an_order_of_the_plan_alone():
    units = list(plan().units())
    keys = [pair.key(method) for unit in units for method in unit.methods for pair in unit.pairs]
    assert len(keys) == len(set(keys)) == plan().pictures == 80
    assert units == list(plan().units())
    assert [len(unit.pairs) for unit in units] == [4, 4, 4, 4, 2, 2]
    assert all(len({method.conditions for method in unit.methods}) == 1 for unit in units)
    # All methods of the first chunk come before the second chunk.
    assert [unit.pairs[0] for unit in units[:3]] == [plan().pairs[0], plan().pairs[0], plan().pairs[4]]


def test_no_two_pairs_share_a_seed():
    pairs = plan(first_seed=100).pairs
    assert [pair.seed for pair in pairs] == list(range(100, 110))
    assert [pair.prompt.text for pair in pairs[4:7]] == ["prompt 4", "prompt 0", "prompt 1"]
    assert plan(first_seed=2**32 - 1).pairs[1].seed == 0


def test_what_is_done_is_not_done_again():
    whole = list(plan().units())
    first = whole[0]
    done = {pair.key(first.methods[0]) for pair in first.pairs}
    rest = list(plan().units(done))
    assert rest[0].pairs == first.pairs and rest[0].methods == first.methods[1:]
    done |= {first.pairs[0].key(method) for method in first.methods}  # a chunk that is not whole is made whole
    assert next(iter(plan().units(done))).methods == first.methods[1:]
    everything = {pair.key(method) for pair in plan().pairs for method in plan().methods}
    assert list(plan().units(everything)) == []
