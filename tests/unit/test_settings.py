"""Settings: what is accepted, what is refused and with which words, and what a job records."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from support.settings import MASK, valid

from asyndm_ext.objects import ObjectSpec
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import FIELDS, Settings, SettingsError, is_enabled
from asyndm_ext.ui import infotext
from asyndm_ext.ui.coverage import Coverage

README = Path(__file__).parents[2] / "README.md"


def test_defaults() -> None:
    assert Settings() == Settings(False, (), 0.7, "quadratic", 1.0, "objects")
    assert [field.name for field in FIELDS][:5] == ["objects", "strength", "curve", "threshold", "region"]
    assert [field.name for field in FIELDS] == [field.name for field in fields(Settings)][1:], "positions of the API"


def test_partial_dictionary_counts_as_enabled() -> None:
    assert Settings.from_dict({"strength": 0.3}) == Settings(enabled=True, strength=0.3)
    assert Settings.from_dict({"enabled": False}).enabled is False


@given(valid)
def test_dictionary_and_positions_agree(values: dict) -> None:
    from_dict = Settings.from_args([values])
    assert Settings.from_args(list(values.values())) == from_dict
    assert Settings.from_dict(json.loads(json.dumps(from_dict.to_dict()))) == from_dict


def test_objects_as_one_string_or_a_list() -> None:
    named = (ObjectSpec("cat"), ObjectSpec("red hat", 0.4))
    assert Settings(objects="cat,  red hat:0.4 ,cat").objects == named  # type: ignore[arg-type]
    assert Settings(objects=["cat", {"name": "red hat", "strength": 0.4}]).objects == named  # type: ignore[arg-type]


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
        ({"objects": "cat:2"}, "strength of 'cat' must be a number from 0 to 1, got 2"),
        ({"objects": "cat:0.5, cat:0.6"}, "'cat' is given twice"),
        ({"enabled": 1}, "enabled must be true or false"),
        ({"soft": "yes"}, "soft must be true or false, got 'yes'"),
        ({"mask": "x", "region": "mask"}, "the mask is not a picture in base64"),
        ({"mask": 3}, "mask must be a picture in base64, got int"),
        ({"mask": None, "region": "mask"}, "mask must be a picture in base64, got NoneType"),
        ({"mask_source": "static"}, "mask_source must be one of 'dynamic', 'fixed', got 'static'"),
        ({"min_area": 0.5, "max_area": 0.5}, "min_area must be less than max_area, got 0.5 and 0.5"),
        ({"start": 0.8, "end": 0.3}, "start must be less than end, got 0.8 and 0.3"),
        ({"hires": "second"}, "hires must be one of 'both', 'first', 'hires'"),
        ({"hold_after": 7}, "hold_after must lie between 0 and 1, got 7"),
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
        ([{"enabled": 0}], True),
        ([0], True),
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

    def test_images_that_other_machines_add_have_no_entry(self) -> None:
        """They come after the job's own; the host asks for them by number."""
        p = self.job()
        infotext.record(p, [True])
        found = p.extra_generation_params[infotext.FOUND_KEY]
        assert isinstance(found, list) and (found[0], found[2], found[7]) == ("cat, sofa", None, None)
        assert json.loads(json.dumps(copy.deepcopy(p.extra_generation_params)))[infotext.FOUND_KEY] == found

    def test_what_was_really_found_replaces_the_expectation(self) -> None:
        p = self.job()
        p.iteration, p.batch_size = 1, 1
        infotext.record(p, [True])
        infotext.begin_pass(p, Settings(), [["quality"]])
        assert p.extra_generation_params[infotext.FOUND_KEY] == ["cat, sofa", "quality"]

    def test_bad_settings_are_left_to_the_sampling_function(self) -> None:
        p = self.job(**{"AsynDM strength": "0.1"})
        infotext.record(p, [{"strength": 7}])
        assert p.extra_generation_params == {}

    @given(valid)
    def test_pasting_restores_every_setting(self, values: dict) -> None:
        settings = Settings.from_dict({**values, "enabled": True})
        restored = {field.name: infotext.pasted(field.name)(settings.infotext()) for field in FIELDS}
        assert restored.pop("mask") is None, "a picture is not in an infotext; its control stays as it is"
        assert Settings(enabled=True, mask=settings.mask, **restored) == settings

    def test_advanced_settings_are_recorded_where_they_are_not_the_default(self) -> None:
        assert list(Settings().infotext()) == [
            "AsynDM strength", "AsynDM curve", "AsynDM threshold", "AsynDM region",
        ]  # fmt: skip
        entries = Settings(soft=True, end=0.8, mask=MASK, region="mask").infotext()
        assert entries["AsynDM soft objects"] == "True" and entries["AsynDM end"] == "0.8"
        assert len(entries["AsynDM mask"]) == 10
        assert "AsynDM mask" not in Settings(mask=MASK).infotext(), "a mask that plays no part"

    @pytest.mark.parametrize(
        ("key", "text"),
        [("strength", "much"), ("curve", "bin"), ("soft", "perhaps"), ("end", ""), ("mask_source", "x")],
    )
    def test_what_is_no_value_leaves_the_control_as_it_is(self, key: str, text: str) -> None:
        spec = next(field for field in FIELDS if field.name == key)
        assert infotext.pasted(key)({"AsynDM strength": "0.7", spec.infotext_key: text}) is None

    def test_two_tabs_read_with_the_same_functions(self) -> None:
        """By them the host knows which controls belong together."""
        assert all(infotext.pasted(field.name) is infotext.pasted(field.name) for field in FIELDS)

    def test_pasting_without_asyndm_switches_off_and_leaves_the_rest(self) -> None:
        assert infotext.pasted("enabled")({"Steps": "20"}) is False
        assert all(infotext.pasted(field.name)({"Steps": "20"}) is None for field in FIELDS)
        assert infotext.pasted("enabled")({"AsynDM strength": "0.7"}) is True


class TestStrongest:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({}, 0.7),
            ({"objects": "cat:0.2"}, 0.2),
            ({"objects": "cat:0.2, dog"}, 0.7),
            ({"objects": "cat:0.9, dog"}, 0.9),
            ({"objects": "cat:0.2", "region": "objects or mask"}, 0.7),
            ({"objects": "cat:0.2", "strength": 0.0}, 0.2),
            ({"objects": "cat:0.2", "strength": 0.5, "region": "everything"}, 0.5),
        ],
    )
    def test_strongest(self, values: dict, expected: float) -> None:
        assert Settings.from_dict(values).strongest == expected


class TestNotes:
    """Never a silently unmodified image."""

    def job(self, **extra: object) -> SimpleNamespace:
        comments: list[str] = []
        return SimpleNamespace(extra_generation_params=dict(extra), comments=comments, comment=comments.append)

    def record(self, strength: torch.Tensor) -> StepRecord:
        return StepRecord(0, 1.0, 1 + strength, strength)

    def note(self, settings: Settings, *fractions: float) -> str | None:
        coverage = Coverage()
        for fraction in fractions:
            strength = torch.zeros(1, 1, 10, 10)
            strength.view(-1)[: round(100 * fraction)] = 0.7
            coverage.watch(self.record(strength))
        return coverage.note(settings)

    def test_coverage(self) -> None:
        assert self.note(Settings(), 0.2, 0.3) is None
        assert "no pixel lagged" in str(self.note(Settings(), 0.0, 0.0))
        assert "no pixel lagged" in str(self.note(Settings())), "the host made no step at all"
        assert "covered the whole picture" in str(self.note(Settings(), 1.0, 0.99, 0.3))
        assert self.note(Settings(region="everything"), 1.0, 1.0) is None, "that is what was asked for"
        assert "no pixel lagged" in str(self.note(Settings(strength=0.0), 0.0)), "strength 0 is the ordinary picture"
        assert "no pixel lagged" in str(self.note(Settings(curve="linear"), 0.0))

    def test_soft_objects_do_not_cover_the_whole_picture(self) -> None:
        coverage = Coverage()
        strength = torch.linspace(0.01, 0.7, 100).view(1, 1, 10, 10)
        coverage.watch(self.record(strength))
        assert coverage.note(Settings(soft=True)) is None

    def test_a_region_that_never_lags_is_the_ordinary_picture(self) -> None:
        coverage = Coverage()
        strength = torch.full((1, 1, 4, 4), 0.7)
        strength[..., 0, 0] = 0
        coverage.watch(StepRecord(0, 1.0, torch.ones(1, 1, 4, 4), strength))
        assert "no pixel lagged" in str(coverage.note(Settings()))

    def test_not_applied(self) -> None:
        p = self.job(**{"AsynDM strength": "0.7", "Other": "kept"})
        infotext.not_applied(p, "the sampler 'X'")
        assert p.extra_generation_params == {"Other": "kept", "AsynDM": "not applied: the sampler 'X'"}
        assert p.comments == ["AsynDM was enabled but not applied: the sampler 'X'."]
        p.is_hr_pass = True
        infotext.begin_pass(p, Settings(), None)
        assert p.extra_generation_params["AsynDM strength"] == "0.7", "the hires pass is sampled with AsynDM after all"

    def test_not_applied_in_the_hires_pass_keeps_the_first_pass_s_settings(self) -> None:
        p = self.job(**{"AsynDM strength": "0.7"})
        p.is_hr_pass = True
        infotext.not_applied(p, "why")
        assert p.extra_generation_params == {
            "AsynDM strength": "0.7",
            "AsynDM note": "not applied in the hires pass: why",
        }

    def test_a_note_does_not_outlive_its_batch(self) -> None:
        p = self.job()
        infotext.note(p, "something")
        infotext.begin_pass(p, Settings(), None)
        assert infotext.NOTE_KEY not in p.extra_generation_params


def test_readme_explains_every_setting() -> None:
    text = README.read_text(encoding="utf-8")
    for field in FIELDS:
        assert f"`{field.name}`" in text, f"{field.name} is not in the README"
        assert all(choice in text for choice in field.choices)
