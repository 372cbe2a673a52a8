"""The little world: what its scenes hold, how they are told and read, and that every picture is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.grounds import GROUNDS
from asyndm_ext.world.light import LIGHTS
from asyndm_ext.world.pen import Pen
from asyndm_ext.world.scenes import (
    Content,
    draw,
    never_grounds,
    never_things,
    random_content,
    scene,
    scene_from_seed,
    thing_of,
)
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.tokens import Tokenizer
from asyndm_ext.world.words import WORDS, SceneText, UnknownWord, read, sentence


def contents(number: int) -> list[Content]:
    return [random_content(np.random.default_rng([7, i])) for i in range(number)]


# --- what goes together ---------------------------------------------------------------------------------------------


def test_every_animal_has_a_home_and_every_home_a_thing():
    assert {animal.home for animal in ANIMALS.values()} == set(GROUNDS)
    assert sorted(thing.home for thing in THINGS.values()) == sorted(GROUNDS)


def test_usual_parts_nearly_always_and_some_never():
    drawn = contents(6000)
    at_home = [c.ground == ANIMALS[c.animal].home for c in drawn]
    assert 0.83 < np.mean(at_home) < 0.87
    own = [c.thing == thing_of(ANIMALS[c.animal].home) for c in drawn if c.thing]
    assert 0.83 < np.mean(own) < 0.87
    seen_things = {(c.animal, c.thing) for c in drawn if c.thing}
    seen_grounds = {(c.animal, c.ground) for c in drawn}
    for animal in ANIMALS:
        things, grounds = never_things(animal), never_grounds(animal)
        assert len(set(things)) == 2 and len(set(grounds)) == 2
        assert thing_of(ANIMALS[animal].home) not in things and ANIMALS[animal].home not in grounds
        assert not {(animal, thing) for thing in things} & seen_things
        assert not {(animal, ground) for ground in grounds} & seen_grounds
    assert len(seen_things) > 70 and len(seen_grounds) > 70, "the others do come up"


# --- words ----------------------------------------------------------------------------------------------------------


def test_a_caption_is_read_as_what_it_says():
    rng = np.random.default_rng(0)
    for content in contents(400):
        text = content.told(*(bool(flag) for flag in rng.random(3) < 0.6))
        for told in (str(text), sentence(text, rng.random(6).tolist())):
            assert read(told).text == text, told


def test_a_prompt_in_plain_english():
    found = read("A shark, riding a bike!")
    assert found.text == SceneText("shark", 1, "bike", True)
    assert found.places == {"animal": range(1, 2), "thing": range(4, 5)}
    assert read("two polar bears next to a yellow hot air balloon under the stars").text == SceneText(
        "polar bear", 2, "balloon", False, "yellow", None, "night"
    )
    assert read("the penguin is standing in front of a tent on the ice").text.uses
    assert not read("a cat and a car").text.uses
    assert read("a red boat and a cat").text.paint == "red"


def test_words_of_another_world_are_named_with_the_nearest():
    with pytest.raises(UnknownWord, match=r"the word 'penguinn'\. Did you mean penguin or penguins\?"):
        read("a penguinn on a sled")
    with pytest.raises(UnknownWord, match="'spaceship'"):
        read("a spaceship")
    with pytest.raises(ValueError, match="one animal at a time; this prompt has cat and dog"):
        read("a cat and a dog")
    with pytest.raises(ValueError, match="one thing at a time; this prompt has boat and bike"):
        read("a cat in a boat next to a bike")
    for prompt in ("in the snow at night", "a red boat", ""):
        with pytest.raises(ValueError, match="names no animal"):
            read(prompt)


TOKENIZER = Tokenizer()


def test_a_row_of_tokens():
    row = TOKENIZER.encode("a polar bear")
    assert len(row) == TOKENIZER.length == 24
    assert row[0] == TOKENIZER.bos and row[4] == TOKENIZER.eos
    assert row[5:] == [TOKENIZER.pad] * 19
    assert [TOKENIZER.tokens[number] for number in row[1:4]] == ["a", "polar", "bear"]
    assert TOKENIZER.encode("")[:3] == [TOKENIZER.bos, TOKENIZER.eos, TOKENIZER.pad]


def test_word_i_stands_in_column_i_plus_one():
    text = "An owl, next to a Red tent."
    words, row = TOKENIZER.words(text), TOKENIZER.encode(text)
    assert words == ["an", "owl", "next", "to", "a", "red", "tent"]
    assert [TOKENIZER.tokens[row[1 + index]] for index in range(len(words))] == words
    row = TOKENIZER.encode("a polar bear in the snow")
    assert TOKENIZER.decode(row) == "a polar bear in the snow"
    assert TOKENIZER.tokens[row[read("a polar bear in the snow").places["animal"].stop]] == "bear"


def test_every_caption_fits_and_can_be_read_back():
    rng = np.random.default_rng(2)
    for content in contents(300):
        text = sentence(content.told(), rng.random(6).tolist())
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_words_are_unique_and_in_a_fixed_order():
    # The order is the order of the embedding's rows in the shipped weights.
    assert list(WORDS) == sorted(set(WORDS))
    assert len(TOKENIZER) == 3 + len(WORDS)


def test_what_cannot_be_encoded():
    with pytest.raises(UnknownWord, match="'spaceship'"):
        TOKENIZER.encode("a spaceship and a unicorn")
    with pytest.raises(UnknownWord, match="'pad'"):  # special tokens are not words
        TOKENIZER.encode("a <pad> cat")
    with pytest.raises(ValueError, match="at most 22 words; this prompt has 23"):
        TOKENIZER.encode("a " * 22 + "cat")
    assert TOKENIZER.pad not in TOKENIZER.encode("a " * 21 + "cat")


# --- pictures -------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_scene():
    first, again, other = scene_from_seed(3, 1), scene_from_seed(3, 1), scene_from_seed(3, 2)
    assert np.array_equal(first.image, again.image)
    assert first.image.shape == (128, 128, 3) and first.image.dtype == np.uint8
    assert not np.array_equal(first.image, other.image)


def test_masks_lie_on_what_they_name():
    """Drawn once more without it, the picture differs inside an object's mask and, shadows and feet aside, not far
    from it."""
    for number, (animal, thing) in enumerate(
        [("shark", "bike"), ("owl", "sled"), ("cow", "boat"), ("cat", "umbrella")]
    ):
        made = draw(Content(animal, 1, thing, True, "red", "street", "day"), np.random.default_rng([1, number]))
        animals, things = made.masks
        assert animals.sum() > 150 and things.sum() > 150
        assert not (animals & things).any(), "what is in front hides what is behind"
        rows, columns = np.nonzero(animals | things)
        assert rows.min() >= 0 and rows.max() < 128 and columns.max() - columns.min() < 128


@pytest.mark.parametrize("animal", ANIMALS)
def test_every_animal_is_told_apart_from_the_others(animal):
    """No two have nearly the same outline or the same colours."""

    def stamp(name: str) -> np.ndarray:
        pen = Pen(30)
        ANIMALS[name].draw(pen)
        made = pen.lift()
        return np.dstack([made.colour / 255, made.cover])

    own = stamp(animal)
    assert own[..., 3].sum() > 300
    for other in ANIMALS:
        if other != animal:
            theirs = stamp(other)
            apart = np.abs(own - theirs).mean(axis=2).sum() / min(own[..., 3].sum(), theirs[..., 3].sum())
            assert apart > 0.3, other


def test_light_tints_and_ground_decides():
    bright = {light: scene(SceneText("dog", ground="meadow", light=light), 5).image.mean() for light in LIGHTS}
    assert bright["night"] < 0.75 * bright["dusk"] < 0.75 * bright["day"] * 1.05
    looks = {
        ground: scene(SceneText("dog", ground=ground, light="day"), 5).image[100:].mean((0, 1)) for ground in GROUNDS
    }
    names = list(looks)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert np.abs(looks[one] - looks[other]).max() > 8, (one, other)


@pytest.mark.parametrize("light", list(LIGHTS))
def test_animals_stand_out_from_their_own_ground(light: str):
    """In grey levels, from the mean of what surrounds them."""
    for animal, of in ANIMALS.items():
        made = scene(SceneText(animal, ground=of.home, light=light), 5)
        inside = around = made.masks[0]
        for _ in range(5):
            for axis in (0, 1):
                around = around | np.roll(around, 1, axis) | np.roll(around, -1, axis)
        contrast = np.abs(made.image[inside] - made.image[around & ~inside].mean(0)).mean()
        assert contrast > 24, animal


def test_a_named_colour_is_the_things():
    for paint, colour in PAINTS.items():
        made = scene(SceneText(None, thing="car", paint=paint, ground="street", light="day"), 2)
        inside = made.image[made.masks[1]].astype(int)
        near = (np.abs(inside - np.array(colour)).max(axis=1) < 40).mean()
        assert near > 0.25, paint


def test_as_many_as_said():
    """Animals that stand apart are as many areas as there are animals."""
    from scipy.ndimage import label

    for count in (1, 2, 3):
        counted = [
            label(scene(SceneText("turtle", count, ground="street", light="day"), s).masks[0])[1] for s in range(12)
        ]
        assert np.median(counted) == count


@pytest.mark.parametrize("name", ANIMALS)
def test_widths_are_those_of_the_drawings(name):
    pen = Pen(40)
    ANIMALS[name].draw(pen)
    made = pen.lift()
    columns = np.flatnonzero(made.cover.max(axis=0) > 0.5)
    reach = max(made.origin[0] - columns[0], columns[-1] + 1 - made.origin[0]) / 40
    assert reach - 0.05 <= ANIMALS[name].width <= reach + 0.1
