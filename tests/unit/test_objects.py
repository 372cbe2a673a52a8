"""Objects as they are written: names, strengths, places, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyndm_ext.prompt.objects import ObjectSpec, parse_objects, written


def cat(strength: float | None = None, occurrence: int | None = None) -> ObjectSpec:
    return ObjectSpec("cat", strength, occurrence)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("", []),
        (" , ,, ", []),
        ("cat", [cat()]),
        ("  red \t  hat ,\ncat ", [ObjectSpec("red hat"), cat()]),
        ("Cat, dog, cat, CAT, Dog", [ObjectSpec("Cat"), ObjectSpec("dog")]),
        (["cat", " red  hat ", ""], [cat(), ObjectSpec("red hat")]),
        (["cat, dog", "Dog"], [cat(), ObjectSpec("dog")]),
        ("cat:0.7, red hat : .4", [cat(0.7), ObjectSpec("red hat", 0.4)]),
        ("cat:0, dog:1", [cat(0.0), ObjectSpec("dog", 1.0)]),
        ("cat#2:0.5, cat#1", [cat(0.5, 2), cat(None, 1)]),
        ("cat # 2", [cat(None, 2)]),
        ("cat:-0, dog#1 : -0.0", [cat(0.0), ObjectSpec("dog", 0.0, 1)]),
        ([{"name": "cat", "strength": 1}, {"name": "dog", "occurrence": 3}, "x"],
         [cat(1.0), ObjectSpec("dog", None, 3), ObjectSpec("x")]),
        ({"cat": 0.7, "red hat": None}, [cat(0.7), ObjectSpec("red hat")]),
        ((cat(0.7), "dog"), [cat(0.7), ObjectSpec("dog")]),
    ],
)  # fmt: skip
def test_parse_objects(value: object, expected: list[ObjectSpec]) -> None:
    assert list(parse_objects(value)) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "a text with commas or a list, but they are 7"),
        (["cat", 3.5], "object number 2 must be a text or a dictionary, but it is 3.5"),
        ([None], "object number 1 must be a text or a dictionary, but it is None"),
        ([["cat"]], r"object number 1 .*, but it is \['cat'\]"),
        (b"cat", "they are b'cat'"),
        ("cat:1.5", "strength of 'cat' must be a number from 0 to 1, but it is 1.5"),
        ("cat:-0.1", "from 0 to 1, but it is -0.1"),
        ("cat:nan", "from 0 to 1, but it is nan"),
        ("cat:much", "in 'cat:much' a number from 0 to 1 must follow the colon"),
        ("cat:", "must follow the colon"),
        ("cat:0.5:0.6", "must follow the colon"),
        ("(cat:1.3)", "must follow the colon"),
        (":0.5", "words without"),
        ("cat#0", "occurrence of 'cat' must be 1, 2"),
        ("cat#x", "words without"),
        ("cat:0.7, dog, Cat:0.4", "'Cat' is given twice: 'cat:0.7' and 'Cat:0.4'"),
        ("cat, cat:0.4", "'cat' is given twice"),
        ({"cat": "0.7"}, "it is '0.7'"),
        ({"cat": True}, "it is True"),
        ([{"strength": 0.5}], "object number 1 has no 'name'. It may have name, strength, occurrence"),
        ([{"name": "cat", "weight": 0.5}], "object number 1 must not have 'weight'"),
        ([{"name": "cat", "occurrence": 1.5}], "occurrence of 'cat'"),
        ([{"name": ""}], "words without"),
        ("cat\0", r"words without .*, but it is 'cat\\x00'"),
        ({"cat\0": 0.5}, "words without"),
    ],
)
def test_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_objects(value)


def test_two_places_of_a_word_are_two_objects() -> None:
    assert len(parse_objects("cat#1:0.2, cat#2:0.9, cat#1:0.2")) == 2


words = st.text(st.characters(blacklist_characters=",:#>\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)
specs = st.builds(
    ObjectSpec,
    words.filter(str.strip),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.integers(1, 99)),
)


@given(st.lists(specs, max_size=5, unique_by=lambda spec: spec.place))
def test_what_is_written_reads_back(given_specs: list[ObjectSpec]) -> None:
    written = [str(spec) for spec in given_specs]
    assert list(parse_objects(", ".join(written))) == given_specs
    assert list(parse_objects(json.loads(json.dumps(written)))) == given_specs


@given(st.one_of(st.none(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.floats())))
def test_anything_is_read_or_refused_with_a_message(value: object) -> None:
    try:
        found = parse_objects(value)
    except ValueError as error:
        assert str(error)
    else:
        assert all(isinstance(spec, ObjectSpec) and spec.name for spec in found)


@pytest.mark.parametrize(
    ("text", "names", "after"),
    [
        ("<cat-toy>", ["<cat-toy>"], [()]),
        ("a <cat-toy>#2:0.5, hat", ["a <cat-toy>", "hat"], [(), ()]),
        ("<cat-toy> > hat", ["<cat-toy>", "hat"], [(), ("<cat-toy>",)]),
        ("hat><cat-toy>>bike", ["hat", "<cat-toy>", "bike"], [(), ("hat",), ("<cat-toy>",)]),
    ],
)
def test_an_embedding_in_angle_brackets_is_a_name(text: str, names: list[str], after: list[tuple[str, ...]]) -> None:
    found = parse_objects(text)
    assert [spec.name for spec in found] == names and [spec.after for spec in found] == after
    assert parse_objects(written(found)) == found


@pytest.mark.parametrize("text", ["cat >", "> cat", "cat > > hat"])
def test_a_name_that_is_missing_beside_the_sign_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="missing beside the >"):
        parse_objects(text)
