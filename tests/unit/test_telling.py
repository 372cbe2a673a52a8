"""What the judge sees, told in words a person would use."""

from __future__ import annotations

from itertools import product

import pytest

pytest.importorskip("diffusers")

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.grounds import GROUNDS
from asyndm_ext.world.judge import Seen, verdict
from asyndm_ext.world.telling import EXAMPLES, Opinion, all_words, change, change_sentence, told
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.words import _LEADS, _NEAREST, MOST, WORDS, SceneText, nearest, read


def seen(counts, ground="sea", light="day", paint="red", uses=False) -> Seen:
    return Seen(counts, ground, light, paint, uses)


def opinion(prompt: str, what: Seen) -> Opinion:
    text = read(prompt).text
    return Opinion(what, text, verdict(what, text))


# --- a picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (seen({"shark": 1, "bike": 1}, uses=True), "a shark riding a red bike in the sea by day"),
        (seen({"shark": 1, "bike": 1}, "snow", "night", "blue"), "a shark beside a blue bike in the snow at night"),
        (seen({"owl": 1, "umbrella": 1}, "beach", "dusk", uses=True), "an owl under a red umbrella on a beach at dusk"),
        (seen({"penguin": 2}, "snow"), "two penguins in the snow by day"),
        (seen({"fox": 3}, "forest", "night"), "three foxes in a forest at night"),
        (seen({"polar bear": MOST + 1}, "desert"), "more than three polar bears in the desert by day"),
        (seen({"penguin": 2, "boat": 1}), "two penguins beside a red boat in the sea by day"),
        (seen({"cat": 1, "dog": 1, "car": 1}, "city"), "a cat, a dog and a red car in the city by day"),
        (seen({"cat": 1, "bike": 2}, "street", uses=True), "a cat and two bikes on a street by day"),
        (seen({"cat": 1, "bike": 1, "car": 1}, "street"), "a cat, a bike and a car on a street by day"),
        (seen({"tractor": 1}, "meadow"), "a red tractor and no animal on a meadow by day"),
        (seen({}), "no animal in the sea by day"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_picture_in_words(what, words):
    assert told(what) == words


def test_what_is_told_can_be_chosen():
    what = seen({"shark": 1, "bike": 1}, uses=True)
    assert told(what, paint=False, ground=False, light=False) == "a shark riding a bike"
    assert told(what, ground=False) == "a shark riding a red bike by day"
    assert told(seen({"penguin": 2}), ground=False, light=False) == "two penguins"
    assert told(seen({}), ground=False, light=False) == "no animal"


@pytest.mark.parametrize(
    ("prompt", "what", "words"),
    [
        ("a shark riding a bike", seen({"shark": 1}), "a shark and no bike"),
        ("a shark riding a bike", seen({"bike": 1}), "a red bike and no shark"),
        ("a shark riding a bike", seen({}), "no shark and no bike"),
        ("a shark riding a bike", seen({"cat": 1, "bike": 1}, uses=True), "a cat riding a red bike and no shark"),
        ("two penguins", seen({"cat": 1}), "a cat and no penguins"),
        ("three puppies in a boat", seen({"dog": 1, "boat": 1}), "a dog beside a red boat"),
    ],
)
def test_what_is_missing_is_named(prompt, what, words):
    assert told(what, read(prompt).text, ground=False, light=False) == words


@pytest.mark.parametrize("animal", ANIMALS)
@pytest.mark.parametrize("thing", THINGS)
def test_what_is_told_is_a_prompt(animal, thing):
    """Read again it says the same: the words are the world's own, and English."""
    for uses, paint in product((False, True), PAINTS):
        text = SceneText(animal, 1, thing, uses, paint, THINGS[thing].home, "dusk")
        what = Seen({animal: 1, thing: 1}, THINGS[thing].home, "dusk", paint, uses)
        assert read(told(what)).text == text


# --- right and wrong ------------------------------------------------------------------------------------------------

BIKE = "a shark riding a red bike in the snow at night"
RIGHT = {"ground": "snow", "light": "night", "uses": True}


@pytest.mark.parametrize(
    ("prompt", "what", "said"),
    [
        (BIKE, seen({"shark": 1, "bike": 1}, **RIGHT), "right"),
        (BIKE, seen({"shark": 1}, **RIGHT), "wrong: no bike"),
        (BIKE, seen({"bike": 1}, **RIGHT), "wrong: no shark"),
        (BIKE, seen({}, **RIGHT), "wrong: no shark, no bike"),
        (BIKE, seen({"shark": 2, "bike": 1}, **RIGHT), "wrong: two sharks"),
        (BIKE, seen({"shark": 4, "bike": 1}, **RIGHT), "wrong: more than three sharks"),
        (BIKE, seen({"shark": 1, "bike": 2}, **RIGHT), "wrong: two bikes"),
        (BIKE, seen({"cat": 1, "bike": 1}, **RIGHT), "wrong: a cat instead of a shark"),
        (BIKE, seen({"shark": 1, "boat": 1}, **RIGHT), "wrong: a boat instead of a bike"),
        (BIKE, seen({"shark": 1, "owl": 1, "bike": 1}, **RIGHT), "wrong: also an owl"),
        (BIKE, seen({"shark": 1, "owl": 1, "bike": 1, "car": 2}, **RIGHT), "wrong: also an owl and two cars"),
        (BIKE, seen({"shark": 2, "owl": 1, "bike": 1}, **RIGHT), "wrong: two sharks, also an owl"),
        (BIKE, seen({"shark": 1, "bike": 1}, "snow", "night"), "wrong: beside it"),
        (BIKE, seen({"shark": 1, "bike": 1}, "snow", "night", "blue", True), "wrong: not red"),
        (BIKE, seen({"shark": 1, "bike": 1}, "sea", "night", uses=True), "wrong: not in the snow"),
        (BIKE, seen({"shark": 1, "bike": 1}, "snow", "dusk", uses=True), "wrong: not at night"),
        (
            BIKE,
            seen({"shark": 1, "bike": 1}, "sea", "day", "green"),
            "wrong: beside it, not red, not in the snow, not at night",
        ),
        ("a cow next to a tent", seen({"cow": 1, "tent": 1}, uses=True), "wrong: in front of it"),
        ("a cow next to an umbrella", seen({"cow": 1, "umbrella": 1}, uses=True), "wrong: under it"),
        ("a cow next to an umbrella", seen({"cow": 1, "umbrella": 1}, "beach", "night", "blue"), "right"),
        ("two penguins", seen({"penguin": 2}), "right"),
        ("two penguins", seen({"penguin": 1}), "wrong: only one penguin"),
        ("three bunnies", seen({"rabbit": 2}), "wrong: only two rabbits"),
        ("two penguins", seen({"penguin": 3}), "wrong: three penguins"),
        ("two penguins", seen({}), "wrong: no penguins"),
        ("two penguins", seen({"owl": 1}), "wrong: an owl instead of two penguins"),
        ("a cat", seen({"dog": 1, "fox": 2}), "wrong: a dog and two foxes instead of a cat"),
        ("a cat", seen({"cat": 1, "car": 1}), "wrong: also a car"),
        ("a cat", seen({"dog": 1, "car": 1}), "wrong: a dog instead of a cat, also a car"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_right_or_wrong(prompt, what, said):
    found = opinion(prompt, what)
    assert str(found) == said
    assert found.right == (said == "right") == (found.faults == [])


# --- what changed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "before", "after", "sentence"),
    [
        (
            "a shark riding a bike",
            seen({"shark": 1}),
            seen({"shark": 1, "bike": 1}, "street", uses=True),
            "Seed 8, now right: plain shows a shark and no bike, AsynDM a shark riding a bike.",
        ),
        (
            "a shark riding a bike",
            seen({"shark": 1, "bike": 1}, uses=True),
            seen({"shark": 2, "bike": 1}, uses=True),
            "Seed 8, no longer right: plain shows a shark riding a bike, AsynDM two sharks riding a bike.",
        ),
        (
            "a shark riding a bike",
            seen({"shark": 1, "bike": 1}, uses=True),
            seen({"shark": 1, "bike": 1}, "beach", "night", uses=True),
            "Seed 8, right in both: plain shows a shark riding a bike in the sea by day, AsynDM a shark riding a bike"
            " on a beach at night.",
        ),
        (
            "a cat in the snow",
            seen({"cat": 1}, "snow"),
            seen({"cat": 1}, "street"),
            "Seed 8, no longer right: plain shows a cat in the snow, AsynDM a cat on a street.",
        ),
        (
            "a cat in a red car",
            seen({"cat": 1, "car": 1}, paint="blue"),
            seen({"car": 1}, paint="red"),
            "Seed 8, wrong in both: plain shows a cat beside a blue car, AsynDM a red car and no cat.",
        ),
        ("a cat", seen({"cat": 1}, paint="blue"), seen({"cat": 1}, paint="green"), None),
        ("a cat", seen({"cat": 1}), seen({"cat": 1}), None),
    ],
)
def test_what_changed(prompt, before, after, sentence):
    assert change_sentence(8, opinion(prompt, before), opinion(prompt, after)) == sentence


def test_no_change_in_words_is_no_change_in_the_verdict():
    """Otherwise a picture could turn right, and nothing would be said to have changed."""
    views = [
        seen(counts, ground, light, paint, uses)
        for counts in ({"shark": 1, "bike": 1}, {"shark": 2, "bike": 1}, {"shark": 1}, {"cat": 1, "bike": 1}, {})
        for ground, light, paint, uses in product(("sea", "snow"), ("day", "night"), ("red", "blue"), (True, False))
    ]
    for prompt in ("a shark riding a bike", "two sharks beside a red bike", BIKE, "a cat in the snow"):
        opinions = [opinion(prompt, view) for view in views]
        for before, after in product(opinions, opinions):
            if change(before, after) is None:
                assert before.verdict == after.verdict


# --- words ----------------------------------------------------------------------------------------------------------


def test_the_list_has_every_word():
    """But for the little ones that only join others, and for what a plural is."""
    page = all_words()
    listed = set("".join(c if c.isalnum() else " " for c in page.lower()).split())
    plurals = {word for animal in ANIMALS.values() for _, many in animal.names for word in many.split()}
    assert set(WORDS) - _LEADS - plurals - listed == set()
    assert max(map(len, page.splitlines())) <= 102
    for example in EXAMPLES:
        assert f'  asyndm "{example}"' in page
        assert read(example)
    for thing in THINGS.values():
        for way in thing.used:
            phrase = next(line for line in page.splitlines() if f"{way} a" in line and thing.names[0] in line)
            assert phrase.startswith(f"  {thing.names[0]}")
    assert len(GROUNDS) == sum(line.startswith(("  in ", "  on ")) for line in page.split("Places:")[1].splitlines())


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("sharkk", ["shark", "sharks"]),
        ("penguinn", ["penguin", "penguins"]),
        ("bicylce", ["bicycle"]),
        ("bikes", ["bike"]),
        ("kat", ["cat"]),
        ("see", ["sea"]),
        ("undre", ["under"]),
        ("tiger", ["lion"]),
        ("elephants", ["cow"]),
        ("ship", ["boat"]),
        ("four", ["three"]),
        ("unicorn", []),
        ("wearing", []),
    ],
)
def test_the_nearest_words(word, words):
    assert nearest(word) == words


def test_near_words_are_of_the_world_and_the_others_are_not():
    assert not set(_NEAREST) & set(WORDS)
    assert {word for kin in _NEAREST.values() for word in kin.split()} <= set(WORDS)


@pytest.mark.parametrize("prompt", ["a red cat", "a red shark riding a bike", "a cat in a boat red"])
def test_a_colour_that_is_no_things_is_refused(prompt):
    """It would be taken for the thing's, or be lost without a word."""
    with pytest.raises(ValueError, match="only things are painted"):
        read(prompt)
    assert read("a shark riding a red bike").text.paint == "red"
