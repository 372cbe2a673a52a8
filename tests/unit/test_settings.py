"""Settings: what is accepted, what is refused and with which words, and what a job records."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyndm_ext.schedule import CURVES
from asyndm_ext.settings import FIELDS, REGIONS, Settings, SettingsError, is_enabled
from asyndm_ext.ui import infotext

README = Path(__file__).parents[2] / "README.md"

words = st.text(alphabet=st.characters(blacklist_characters=",", blacklist_categories=("Cs", "Cc")), max_size=12)
valid = st.builds(
    dict,
    enabled=st.booleans(),
    objects=st.lists(words, max_size=4),
    strength=st.floats(0, 1),
    curve=st.sampled_from(CURVES),
    threshold=st.floats(0.1, 5),
    region=st.sampled_from(REGIONS),
)


def test_defaults() -> None:
    assert Settings() == Settings(False, (), 0.7, "quadratic", 1.0, "objects")
    assert [field.name for field in FIELDS] == ["objects", "strength", "curve", "threshold", "region"]


def test_partial_dictionary_counts_as_enabled() -> None:
    assert Settings.from_dict({"strength": 0.3}) == Settings(enabled=True, strength=0.3)
    assert Settings.from_dict({"enabled": False}).enabled is False


@given(valid)
def test_dictionary_and_positions_agree(values: dict) -> None:
    from_dict = Settings.from_args([values])
    assert Settings.from_args(list(values.values())) == from_dict
    assert Settings.from_dict(json.loads(json.dumps(from_dict.to_dict()))) == from_dict


def test_objects_as_one_string_or_a_list() -> None:
    assert Settings(objects="cat,  red hat ,cat").objects == ("cat", "red hat")  # type: ignore[arg-type]
    assert Settings(objects=["cat", "red hat"]).objects == ("cat", "red hat")  # type: ignore[arg-type]


def test_panel_defaults_in_the_dictionary_slot_s_rest_are_ignored() -> None:
    """The host fills the other positions with the panel's defaults when a request brings only the dictionary."""
    assert Settings.from_args([{"strength": 0.2}, "", 0.7, "quadratic", 1.0, "objects"]).strength == 0.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strenght": 1}, "unknown setting 'strenght'; known are enabled, objects, strength"),
        ({"strength": 1.01}, "strength must lie between 0 and 1, got 1.01"),
        ({"strength": math.nan}, "strength must be a number"),
        ({"strength": None}, "strength must be a number"),
        ({"strength": "0.7"}, "strength must be a number from 0 to 1, got '0.7'"),
        ({"threshold": 0.0}, "threshold must lie between 0.1 and 5"),
        ({"curve": "bin"}, "curve must be one of 'quadratic', 'piecewise linear', 'exponential', 'linear', got 'bin'"),
        ({"curve": ["quadratic"]}, "curve must be one of"),
        ({"region": None}, "region must be one of"),
        ({"objects": 3}, "objects must be a text"),
        ({"objects": [3]}, "item 1"),
        ({"enabled": 1}, "enabled must be true or false"),
    ],
)
def test_refused(values: dict, message: str) -> None:
    with pytest.raises(SettingsError, match="AsynDM") as caught:
        Settings.from_dict(values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], False),
        ([False, "cat"], False),
        ([None], False),
        ([True], True),
        ([{}], True),
        ([{"enabled": False}], False),
        ([{"enabled": "no"}], True),  # malformed: must fail loudly later, not pass as off
        (["false"], True),
    ],
)
def test_is_enabled(args: list, expected: bool) -> None:
    assert is_enabled(args) is expected


class TestInfotext:
    def job(self, **extra: object) -> SimpleNamespace:
        return SimpleNamespace(extra_generation_params=dict(extra), all_prompts=["a cat on a sofa", "best quality"])

    def test_record(self) -> None:
        p = self.job(Other="kept")
        infotext.record(p, [{"objects": ["cat", "sofa"], "strength": 0.5}])
        assert p.extra_generation_params == {
            "Other": "kept",
            "AsynDM objects": "cat, sofa",
            "AsynDM strength": "0.5",
            "AsynDM curve": "quadratic",
            "AsynDM threshold": "1",
            "AsynDM region": "objects",
        }
        infotext.record(p, [{"region": "everything"}])
        assert "AsynDM objects" not in p.extra_generation_params, "nothing of an earlier job remains"
        infotext.forget(p)
        assert p.extra_generation_params == {"Other": "kept"}

    def test_objects_found_are_recorded_per_image(self) -> None:
        p = self.job()
        infotext.record(p, [True])
        assert p.extra_generation_params[infotext.FOUND_KEY] == ["cat, sofa", None]

    def test_what_was_really_found_replaces_the_expectation(self) -> None:
        p = self.job()
        p.iteration, p.batch_size = 1, 1
        infotext.record(p, [True])
        infotext.note_found(p, [["quality", ""]])
        assert p.extra_generation_params[infotext.FOUND_KEY] == ["cat, sofa", "quality"]

    def test_bad_settings_are_left_to_the_sampling_function(self) -> None:
        p = self.job(**{"AsynDM strength": "0.1"})
        infotext.record(p, [{"strength": 7}])
        assert p.extra_generation_params == {}

    @given(valid)
    def test_pasting_restores_every_setting(self, values: dict) -> None:
        settings = Settings.from_dict(values)
        parsed = settings.infotext()
        restored = {field.name: infotext.pasted(field.name)(parsed) for field in FIELDS}
        again = Settings(enabled=True, **restored)
        assert again.objects == settings.objects
        assert (again.curve, again.region) == (settings.curve, settings.region)
        assert again.strength == pytest.approx(settings.strength, rel=1e-5, abs=1e-12)
        assert again.threshold == pytest.approx(settings.threshold, rel=1e-5)

    def test_pasting_without_asyndm_switches_off_and_leaves_the_rest(self) -> None:
        assert infotext.pasted("enabled")({"Steps": "20"}) is False
        assert all(infotext.pasted(field.name)({"Steps": "20"}) is None for field in FIELDS)
        assert infotext.pasted("enabled")({"AsynDM strength": "0.7"}) is True


def test_readme_explains_every_setting() -> None:
    text = README.read_text(encoding="utf-8")
    for field in FIELDS:
        assert f"`{field.name}`" in text, f"{field.name} is not in the README"
        assert all(choice in text for choice in field.choices)
