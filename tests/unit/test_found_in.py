"""Objects in the prompts of a batch, by the tokenizer and without one; the host's modules are stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.prompt.syntax import occurrences

OURS = ("asyndm_ext.hosts.webui.finders", "asyndm_ext.hosts.webui.tokens")


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module under test; of the host's parser only that every prompt is one text."""
    host = ModuleType("modules")
    host.shared = SimpleNamespace(opts=SimpleNamespace())  # type: ignore[attr-defined]
    host.sd_samplers = SimpleNamespace(find_sampler_config=lambda name: None)  # type: ignore[attr-defined]
    host.prompt_parser = SimpleNamespace(  # type: ignore[attr-defined]
        SdConditioning=list,
        get_multicond_prompt_list=lambda prompts: ([[(i, 1.0)] for i in range(len(prompts))], prompts, None),
        get_learned_conditioning_prompt_schedules=lambda flat, *steps: [[(20, text)] for text in flat],
    )
    monkeypatch.setitem(sys.modules, "modules", host)
    for name in OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module(OURS[1])
    for name in OURS:
        sys.modules.pop(name, None)


def text_finder() -> Any:
    return import_module(OURS[0]).TextFinder()


def job(prompts: list[str], hr_prompts: list[str]) -> SimpleNamespace:
    return SimpleNamespace(
        prompts=prompts,
        hr_prompts=hr_prompts,
        steps=20,
        firstpass_steps=20,
        hr_second_pass_steps=0,
        sampler_name="Euler",
        hr_sampler_name=None,
    )


def test_each_pass_has_its_own_objects(tokens: Any) -> None:
    p, finder = job(["a cat", "a dog and a hat"], ["a fox", "an owl"]), text_finder()
    assert tokens.resolve_objects(p, finder, []).names == [["cat"], ["dog", "hat"]]
    assert tokens.resolve_objects(p, finder, [], hires=True).names == [["fox"], ["owl"]]
    p.is_hr_pass = True
    assert tokens.resolve_objects(p, finder, []).names == [["fox"], ["owl"]], "of the pass that is about to run"
    assert tokens.resolve_objects(p, finder, [], hires=False).names == [["cat"], ["dog", "hat"]]


@pytest.mark.parametrize(
    ("hr_prompts", "objects", "message"),
    [
        (["a cat", "a dog"], [ObjectSpec("cat")], "'cat' was not found in the hires prompt 'a dog'; objects"),
        (
            ["a cat", "a cat"],
            [ObjectSpec("cat", None, 2)],
            "'cat' (number 2) was not found in the hires prompt 'a cat'",
        ),
        (["a cat", "best quality"], [], "found no object in the hires prompt 'best quality'; name"),
        (["a cat", "ein Hund auf einer Wiese"], [], "English prompts only, and the hires prompt 'ein Hund"),
    ],
)
def test_the_message_names_the_hires_prompt(tokens: Any, hr_prompts: list[str], objects: list, message: str) -> None:
    p = job(["a cat and a cat"] * 2, hr_prompts)
    tokens.resolve_objects(p, text_finder(), objects, hires=False)
    with pytest.raises(tokens.AsynDMError) as error:
        tokens.resolve_objects(p, text_finder(), objects, hires=True)
    assert message in str(error.value)


def test_a_name_that_is_not_read_as_its_words_is_its_last_one(tokens: Any) -> None:
    found = tokens.found_in(text_finder(), ["Barack_Obama beside Angela Merkel"])
    assert [spec.name for spec in found] == ["Obama", "Angela Merkel"]


@pytest.mark.parametrize(
    ("prompt", "name", "times"),
    [
        ("a cat", "cat", 1),
        ("a Cat, the cat's hat, cats, a wildcat", "cat", 2),
        ("((red) cat:1.3), red  cat, red, cat", "red cat", 2),
        ("long_hair", "hair", 1),
        ("long_hair", "long hair", 0),
        ("<lora:cat:1> dog", "cat", 0),
        (r"cat\(fate\)", "cat(fate)", 1),
        ("a cat BREAK hat", "cat hat", 0),
        ("a back\\slash", "slash", 1),
        ("100% cat", "100%", 1),
        ("日本の猫", "日本の猫", 1),
        ("a cat", "()", 0),
        ("", "cat", 0),
    ],
)
def test_occurrences_in_text(prompt: str, name: str, times: int) -> None:
    assert occurrences(prompt, name) == times


def test_the_tokenizer_is_not_asked_during_the_steps(tokens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """reForge takes a model apart, tokenizer and all, as soon as the refiner takes over."""
    schedules = [[(5, "a cat"), (20, "a cat in a hat")]]
    monkeypatch.setattr(
        sys.modules["modules"].prompt_parser, "get_learned_conditioning_prompt_schedules", lambda *args: schedules
    )
    finder, asked = text_finder(), []

    class Mortal:
        gone = False

        def columns(self, *args: Any) -> tuple[int, ...]:
            assert not self.gone, "torn down"
            asked.append(args)
            return finder.columns(*args)

        def places(self, *args: Any) -> Any:
            return finder.places(*args)

    one = Mortal()
    found = tokens.resolve_objects(job(["a cat"], ["a cat"]), one, [ObjectSpec("cat"), ObjectSpec("hat")])
    one.gone = True
    assert [found.at(step) for step in (1, 5, 6, 19)] == [[(0, ((0,), ()))]] * 2 + [[(0, ((0,), (0,)))]] * 2
    assert found._places(0) and asked
