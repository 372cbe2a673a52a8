"""Infotexts through the hosts' own rules of quoting and parsing: every setting comes back, and so do others' keys."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st
from support.host_infotext import parsed, written
from support.settings import in_use, valid

from asyndm_ext import __version__
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.settings import FIELDS, Settings
from asyndm_ext.ui import infotext

# Anything that a prompt can hold: quotes, backslashes, brackets, emoji, right-to-left letters.
names = st.text(
    alphabet=st.characters(blacklist_characters=",:#>", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20
).filter(str.strip)
objects = st.lists(
    st.builds(ObjectSpec, names, st.none() | st.floats(0, 1), st.none() | st.integers(1, 9)), max_size=4
).filter(lambda specs: len({spec.place for spec in specs}) == len(specs))

# Keys and values as other extensions write them.
others = st.dictionaries(
    st.from_regex(r"[A-Z][A-Za-z0-9 _/\-]{3,12}", fullmatch=True).filter(lambda key: not key.startswith("AsynDM")),
    st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30),
    max_size=4,
)
HOST = {"Steps": 20, "Sampler": "Euler a", "CFG scale": 7, "Seed": 1, "Size": "512x768"}


def through_the_host(entries: dict[str, object]) -> dict[str, str]:
    return parsed(written("a cat, (red:1.2)", {**HOST, **entries, "Version": "v1.10.1"}))


@given(valid, objects)
@example({}, [ObjectSpec("512x512")])
@example({}, [ObjectSpec('"cat"')])
@example({}, [ObjectSpec('a "quoted" cat', 0.5, 2), ObjectSpec("日本の猫")])
@example({}, [ObjectSpec("cat\\")])
@example({}, [ObjectSpec("AsynDM objects")])
def test_every_setting_survives(values: dict, specs: list[ObjectSpec]) -> None:
    settings = Settings.from_dict({**values, "enabled": True, "objects": specs})
    params = through_the_host(infotext.entries_of(settings))
    assert params[infotext.VERSION_KEY] == __version__
    restored = {spec.name: infotext.pasted(spec.name)(params) for spec in FIELDS}
    del restored["mask"]  # a picture is not in an infotext
    assert infotext.pasted("enabled")(params) is True
    assert Settings(enabled=True, mask=settings.mask, **restored) == in_use(settings)


@given(valid, others)
def test_the_keys_of_others_survive(values: dict, entries: dict[str, str]) -> None:
    """Whatever the host makes of theirs without ours, it makes of theirs beside ours."""
    p = SimpleNamespace(extra_generation_params=dict(entries), all_prompts=["a cat, a dog", "best quality"])
    without = through_the_host(p.extra_generation_params)
    infotext.record(p, [{**values, "enabled": True}])
    found = p.extra_generation_params.get(infotext.FOUND_KEY)
    entries_of_first = {k: v[0] if v is found else v for k, v in p.extra_generation_params.items()}
    beside = through_the_host(entries_of_first)
    assert {key: value for key, value in beside.items() if not key.startswith("AsynDM")} == without
    infotext.forget(p)
    assert p.extra_generation_params == entries


def test_what_was_found_survives() -> None:
    p = SimpleNamespace(extra_generation_params={}, all_prompts=['a "red" cat, a dog'])
    infotext.record(p, [True])
    (found,) = p.extra_generation_params[infotext.FOUND_KEY]
    assert through_the_host({infotext.FOUND_KEY: found})[infotext.FOUND_KEY] == found == "cat, dog"
