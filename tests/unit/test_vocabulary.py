"""Words and columns of the embedded model."""

from __future__ import annotations

import pytest

from asyndm_ext.embedded.scenes import scene_from_seed
from asyndm_ext.embedded.vocabulary import WORDS, PromptTooLongError, Tokenizer, UnknownWordError

TOKENIZER = Tokenizer()


def test_row_layout():
    row = TOKENIZER.encode("a red circle")
    assert len(row) == TOKENIZER.length == 24
    assert row[0] == TOKENIZER.bos and row[4] == TOKENIZER.eos
    assert row[5:] == [TOKENIZER.pad] * 19
    assert [TOKENIZER.tokens[number] for number in row[1:4]] == ["a", "red", "circle"]


def test_word_i_stands_in_column_i_plus_one():
    text = "An orange star, to the left of a Blue square."
    row = TOKENIZER.encode(text)
    words = TOKENIZER.words(text)
    assert words == ["an", "orange", "star", "to", "the", "left", "of", "a", "blue", "square"]
    assert [TOKENIZER.tokens[row[1 + index]] for index in range(len(words))] == words


def test_every_scene_can_be_said_and_read_back():
    for number in range(300):
        prompt = scene_from_seed(2, number).prompt
        assert TOKENIZER.decode(TOKENIZER.encode(prompt)) == prompt


def test_empty_prompt_is_two_tokens():
    assert TOKENIZER.encode("")[:3] == [TOKENIZER.bos, TOKENIZER.eos, TOKENIZER.pad]


def test_words_are_unique_and_in_a_fixed_order():
    # The order is the order of the embedding's rows in the shipped weights.
    assert len(set(WORDS)) == len(WORDS) == 30
    assert WORDS[:6] == ("a", "an", "two", "three", "red", "green") and WORDS[-2:] == ("on", "background")
    assert len(TOKENIZER) == 33


def test_unknown_words_are_named_with_what_can_be_said():
    with pytest.raises(UnknownWordError) as caught:
        TOKENIZER.encode("a pink circle and a cat and a pink star")
    assert caught.value.words == ("pink", "cat")
    message = str(caught.value)
    assert "'pink', 'cat'" in message
    for word in ("red", "circle", "three", "to the left of", "background"):
        assert word in message
    assert isinstance(caught.value, ValueError)


def test_special_tokens_are_not_words():
    with pytest.raises(UnknownWordError, match="<pad>"):
        TOKENIZER.encode("a <pad> circle")


def test_too_long_prompt():
    with pytest.raises(PromptTooLongError, match=r"at most 22 words.* has 23"):
        TOKENIZER.encode(" ".join(["red"] * 23))
    assert TOKENIZER.pad not in TOKENIZER.encode(" ".join(["red"] * 22))
