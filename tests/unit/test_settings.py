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
from support.settings import MASK, in_use, valid

from asyndm_ext import __version__
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import FIELDS, Settings, SettingsError, is_enabled
from asyndm_ext.ui import infotext
from asyndm_ext.ui.coverage import Coverage

OF_OBJECTS = {"objects", "order", "threshold", "mask_source", "soft", "smoothing", "min_area", "max_area", "hold_after"}
"""Settings that only the regions with objects use."""
README = Path(__file__).parents[2] / "README.md"


def test_defaults() -> None:
    assert Settings() == Settings(False, (), 0.7, "quadratic", 1.0, "objects")
    assert [field.name for field in FIELDS][:5] == ["objects", "strength", "curve", "threshold", "region"]
    *names, last = [field.name for field in fields(Settings)][1:]
    assert [field.name for field in FIELDS] == names, "positions of the API"
    assert last == "compare", "which has no control"


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
        ({"strenght": 1}, "there is no setting 'strenght'. The settings are enabled, objects, strength"),
        ({"strength": 1.01}, "Strength must lie between 0 and 1, but it is 1.01"),
        ({"strength": math.nan}, "Strength must be a number"),
        ({"strength": None}, "Strength must be a number"),
        ({"strength": "0.7"}, "Strength must be a number from 0 to 1, but it is '0.7'"),
        ({"threshold": 0.0}, "Threshold must lie between 0.1 and 5, but it is 0.0"),
        (
            {"curve": "bin"},
            "must be one of 'quadratic', 'piecewise linear', 'exponential', 'head start', 'linear', but it is 'bin'",
        ),
        ({"curve": ["quadratic"]}, "Curve must be one of"),
        ({"region": None}, "Region must be one of"),
        ({"objects": 3}, "objects must be a text"),
        ({"objects": [3]}, "object number 1 must be"),
        ({"objects": "cat:2"}, "strength of 'cat' must be a number from 0 to 1, but it is 2.0"),
        ({"objects": "cat:0.5, cat:0.6"}, "'cat' is given twice"),
        ({"enabled": 1}, "enabled must be true or false"),
        ({"soft": "yes"}, "Soft objects (soft) must be true or false, but it is 'yes'"),
        ({"mask": "x", "region": "mask"}, "the mask is not a picture in base64"),
        ({"mask": 3}, "the mask must be a picture in base64, but it is 3"),
        ({"mask": None, "region": "mask"}, "the mask must be a picture in base64, but it is None"),
        (
            {"mask_source": "static"},
            "Mask source (mask_source) must be one of 'dynamic', 'fixed', 'guidance', but it is 'static'",
        ),
        (
            {"min_area": 0.5, "max_area": 0.5},
            "Smallest area (min_area) must be less than Largest area (max_area), but they are",
        ),
        ({"start": 0.8, "end": 0.3}, "Start must be less than End, but they are 0.8 and 0.3"),
        ({"threshold": -0.0}, "but it is 0.0"),
        ({"mask": "AAAA\0"}, "the mask must be a picture in base64, but it is 'AAAA\\x00'"),
        ({"objects": "cat\0"}, "must be words without ',', ':', '#' and '>', but it is 'cat\\x00'"),
        ({"objects": "cat, " * 200_000}, "the objects are longer than 20000 characters"),
        ({"objects": ["cat"] * 300_000}, "there are more than 200 objects"),
        ({"objects": dict.fromkeys(map(str, range(300_000)))}, "there are more than 200 objects"),
        ({"objects": ", ".join(map(str, range(201)))}, "there are more than 200 objects"),
        ({"objects": [{"name": "a" * 10_001}] * 2}, "the objects are longer than 20000 characters"),
        ({str(n): 0 for n in range(5)}, "there is no setting '0', '1', '2' and 2 more."),
        ({"hires": "second"}, "Passes (hires) must be one of 'both', 'first', 'hires'"),
        ({"hold_after": 7}, "Hold masks after (hold_after) must lie between 0 and 1, but it is 7"),
    ],
)
def test_refused(values: dict, message: str) -> None:
    with pytest.raises(SettingsError, match="AsynDM") as caught:
        Settings.from_dict(values)
    assert message in str(caught.value)
    assert str(caught.value).count("AsynDM") == 1


@pytest.mark.parametrize(
    "name", [spec.name for spec in FIELDS if spec.limits and spec.limits[0] == 0 and spec.default < 1]
)
def test_minus_zero_is_zero(name: str) -> None:
    """Nobody has to wonder what a lag of -0 is: it is nowhere shown."""
    settings = Settings.from_dict({name: -0.0})
    assert math.copysign(1, getattr(settings, name)) == 1
    assert "-0" not in json.dumps(settings.to_dict()) and "-0" not in str(settings.infotext())


def test_minus_zero_of_an_object_is_zero() -> None:
    for objects in ("cat:-0", ["cat:-0.0"], {"cat": -0.0}, [{"name": "cat", "strength": -0.0}]):
        settings = Settings.from_dict({"objects": objects})
        assert settings.to_dict()["objects"] == ["cat:0"] and settings.infotext()["AsynDM objects"] == "cat:0"


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
            "AsynDM version": __version__,
        }
        infotext.record(p, [{"region": "everything"}])
        assert "AsynDM objects" not in p.extra_generation_params, "nothing of an earlier job remains"
        infotext.forget(p)
        assert p.extra_generation_params == {"Other": "kept"}

    def test_the_version_stands_where_asyndm_was_at_work_only(self) -> None:
        p = self.job(Other="kept")
        p.comment = lambda text: None
        infotext.record(p, [False])
        infotext.forget(p)  # what a job without AsynDM gets
        assert p.extra_generation_params == {"Other": "kept"}
        infotext.record(p, [True])
        assert p.extra_generation_params[infotext.VERSION_KEY] == __version__
        infotext.not_applied(p, "so it is")
        assert p.extra_generation_params == {"Other": "kept", "AsynDM": "not applied: so it is"}
        p.is_hr_pass = True
        infotext.begin_pass(p, Settings(region="everything"), None)
        assert p.extra_generation_params[infotext.VERSION_KEY] == __version__, "the hires pass is sampled with AsynDM"

    def test_the_version_alone_switches_nothing_on(self) -> None:
        params = {infotext.VERSION_KEY: "9.9"}
        assert infotext.pasted("enabled")(params) is False
        assert all(infotext.pasted(field.name)(params) is None for field in FIELDS)

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

    def test_the_host_asks_by_the_number_in_the_batch(self) -> None:
        """For the picture; by the number in the job for what other machines add, and before the hires pass."""
        p = SimpleNamespace(extra_generation_params={}, all_prompts=["a cat", "a dog", "a fox", "an owl"], batch_size=2)
        infotext.record(p, [True])
        found = p.extra_generation_params[infotext.FOUND_KEY]
        assert [found[i] for i in range(5)] == ["cat", "dog", "fox", "owl", None]
        for p.iteration, names in enumerate([[["cat"], ["dog"]], [["fox"], ["owl"]]]):
            infotext.begin_pass(p, Settings(), names)
            assert [found[0], found[1]] == [", ".join(one) for one in names]
        assert [found[2], found[3], found[4]] == ["fox", "owl", None]

    @pytest.mark.parametrize(
        ("hires", "expected"),
        [("both", "cat; hires pass: dog"), ("first", "cat"), ("hires", "hires pass: dog")],
    )
    def test_both_passes_are_listed(self, hires: str, expected: str) -> None:
        p = SimpleNamespace(
            extra_generation_params={},
            all_prompts=["a cat", "a cat"],
            enable_hr=True,
            all_hr_prompts=["a dog", "a cat"],
            iteration=0,
            batch_size=2,
            prompts=["a cat", "a cat"],
        )
        infotext.record(p, [{"hires": hires}])
        found = p.extra_generation_params[infotext.FOUND_KEY]
        same = "hires pass: cat" if hires == "hires" else "cat"
        assert [found[0], found[1]] == [expected, same]
        settings = Settings(hires=hires)
        if hires != "hires":
            infotext.begin_pass(p, settings, [["cat", "hat"], ["cat"]])
        if hires != "first":
            p.is_hr_pass = True
            infotext.begin_pass(p, settings, [["dog", "bone"], ["cat"]])
        assert found[0] == expected.replace("cat", "cat, hat").replace("dog", "dog, bone")
        if hires == "both":
            p.comment = lambda text: None
            infotext.not_applied(p, "so it is")
            assert [found[0], found[1]] == ["cat, hat", "cat"], "nothing was found for a pass that went without"
            assert p.extra_generation_params[infotext.NOTE_KEY] == "not applied in the hires pass: so it is"

    def test_a_hires_pass_after_a_first_one_that_went_without(self) -> None:
        p = SimpleNamespace(
            extra_generation_params={},
            all_prompts=["a cat"],
            enable_hr=True,
            all_hr_prompts=["a dog"],
            iteration=0,
            batch_size=1,
            comment=lambda text: None,
        )
        infotext.record(p, [True])
        infotext.not_applied(p, "so it is")
        p.is_hr_pass = True
        infotext.begin_pass(p, Settings(), [["dog"]])
        assert list(p.extra_generation_params[infotext.FOUND_KEY]) == ["hires pass: dog"]

    def test_images_that_another_extension_adds_are_told_about_too(self) -> None:
        """Dynamic Prompts draws every combination, and says how many those are when the job has begun already."""
        p = SimpleNamespace(extra_generation_params={}, all_prompts=["a {cat|dog|bird}"], iteration=0, batch_size=1)
        infotext.record(p, [True])
        for p.iteration, name in enumerate(("cat", "dog", "bird")):
            infotext.begin_pass(p, Settings(), [[name]])
            assert p.extra_generation_params[infotext.FOUND_KEY][0] == name
        assert list(p.extra_generation_params[infotext.FOUND_KEY]) == ["cat", "dog", "bird"]

    def test_notes_stand_side_by_side(self) -> None:
        comments: list[str] = []
        p = SimpleNamespace(extra_generation_params={}, comment=comments.append)
        for text in ("one", "another; with a reason", "one", "another; with a reason"):
            infotext.note(p, text)
        assert p.extra_generation_params == {infotext.NOTE_KEY: "one; another; with a reason"}
        assert comments[:2] == ["AsynDM: one.", "AsynDM: another; with a reason."]

    def test_bad_settings_are_left_to_the_sampling_function(self) -> None:
        p = self.job(**{"AsynDM strength": "0.1"})
        infotext.record(p, [{"strength": 7}])
        assert p.extra_generation_params == {}

    @given(valid)
    def test_pasting_restores_every_setting(self, values: dict) -> None:
        settings = Settings.from_dict({**values, "enabled": True})
        restored = {field.name: infotext.pasted(field.name)(settings.infotext()) for field in FIELDS}
        assert restored.pop("mask") is None, "a picture is not in an infotext; its control stays as it is"
        assert Settings(enabled=True, mask=settings.mask, **restored) == in_use(settings)

    @pytest.mark.parametrize(
        ("region", "not_used"),
        [
            ("objects", {"mask", "mask_invert"}),
            ("mask", OF_OBJECTS),
            ("objects or mask", set()),
            ("objects and mask", set()),
            ("everything", OF_OBJECTS | {"mask", "mask_invert"}),
        ],
    )
    def test_what_the_region_does_not_use_is_not_recorded(self, region: str, not_used: set[str]) -> None:
        own = {"threshold": 1.4, "smoothing": 2.0, "min_area": 0.1, "max_area": 0.9, "hold_after": 0.5}
        own |= {"objects": "cat", "mask": MASK, "mask_invert": True, "mask_source": "fixed", "soft": True}
        entries = Settings.from_dict({**own, "region": region}).infotext()
        names = {spec.name for spec in FIELDS if spec.infotext_key in entries}
        assert names == {*own, "strength", "curve", "region"} - not_used
        for name in not_used - {"mask"}:
            spec = next(field for field in FIELDS if field.name == name)
            assert infotext.pasted(name)(entries) == ("" if name == "objects" else spec.default)

    def test_advanced_settings_are_recorded_where_they_are_not_the_default(self) -> None:
        assert list(Settings().infotext()) == [
            "AsynDM strength", "AsynDM curve", "AsynDM threshold", "AsynDM region",
        ]  # fmt: skip
        entries = Settings(soft=True, end=0.8, mask=MASK, region="objects or mask").infotext()
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

    def test_minus_zero_is_pasted_as_zero(self) -> None:
        pasted = infotext.pasted("start")({"AsynDM strength": "0.7", "AsynDM start": "-0"})
        assert math.copysign(1, pasted) == 1

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
