"""Axes of the X/Y/Z plot: what their values become, and that nothing but a cell's own arguments changes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asyndm_ext.region.mask_image import decode, encode
from asyndm_ext.settings import FIELDS, Settings, SettingsError
from asyndm_ext.ui.xyz import COMPARISON, Axis, axes, read_mask, replaced

VARIED = [spec for spec in FIELDS if spec.name != "compare_plain"]
"""Compare makes a second picture, and a cell has one."""
MASK = encode(Image.new("L", (4, 4), 255))
AXES = {axis.label: axis for axis in axes(lambda text: MASK if text == "left.png" else text)}
PANEL_OFF = list(Settings().to_dict().values())


def axis(label: str) -> Axis:
    return AXES[f"[AsynDM] {label}"]


def test_an_axis_for_every_setting() -> None:
    assert set(AXES) == {
        f"[AsynDM] {name}" for name in ("Comparison", "Enabled", "Preset", *(spec.label for spec in VARIED))
    }
    for spec in VARIED:
        if spec.choices:
            assert axis(spec.label).choices == spec.choices
        if spec.is_switch:
            assert axis(spec.label).choices == ("True", "False")
        assert axis(spec.label).kind is (float if spec.limits else str), "float: the plot reads ranges, 0-1 [5]"


@pytest.mark.parametrize("label", [spec.label for spec in VARIED])
def test_the_default_changes_nothing_but_the_switch(label: str) -> None:
    spec = next(spec for spec in FIELDS if spec.label == label)
    default = ", ".join(spec.default) if spec.name == "objects" else spec.default
    value = str(default) if axis(label).kind is str else default
    assert Settings.from_args(axis(label).changed(PANEL_OFF, value)) == Settings(enabled=True)


@pytest.mark.parametrize(
    ("label", "value", "name", "expected"),
    [
        ("Strength", 0.3, "strength", 0.3),
        ("Strength", 0.1 + 0.2, "strength", 0.3),
        ("Curve", "exponential", "curve", "exponential"),
        ("Soft objects", "true", "soft", True),
        ("In ADetailer", "False", "adetailer", False),
        ("Mask", "left.png", "mask", MASK),
        ("Mask", "", "mask", ""),
        ("Passes", "hires", "hires", "hires"),
    ],
)
def test_values(label: str, value: object, name: str, expected: object) -> None:
    for args in (PANEL_OFF, [{"objects": "cat"}, *PANEL_OFF[1:]]):
        changed = axis(label).changed(args, value)
        assert len(changed) == len(args)
        assert getattr(Settings.from_args(changed), name) == expected
        json.dumps(changed)


def test_objects_with_strengths() -> None:
    settings = Settings.from_args(axis("Objects").changed(PANEL_OFF, "cat:0.2, red hat#2"))
    assert list(map(str, settings.objects)) == ["cat:0.2", "red hat#2"]


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        (
            "Strength",
            1.5,
            "the axis Strength cannot take 1.5: Strength must lie between 0 and 1",
        ),
        ("Strength", float("nan"), "Strength must be a number"),
        ("Curve", "bin", "Curve must be one of 'quadratic'"),
        ("Soft objects", "perhaps", "it must be True or False"),
        ("Enabled", "on", "it must be True or False"),
        ("Objects", "cat:7", "strength of 'cat' must be a number from 0 to 1"),
        ("Start", 1.0, "Start must be less than End"),
        ("Comparison", "best", "it must be one of 'plain', 'concave', 'AsynDM', 'fixed mask'"),
    ],
)
def test_refused_before_the_first_cell(label: str, value: object, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        axis(label).settings(value)
    assert message in str(caught.value)
    assert str(caught.value).count("AsynDM") - (label == "Comparison") == 1


class TestMask:
    """On the axis stand names of files, or pictures in base64."""

    def test_file(self, tmp_path: Path) -> None:
        grey = Image.new("L", (5, 3), 77)
        for name, mode in (
            ("grey.png", "L"),
            ("colour.png", "RGB"),
            ("palette.png", "P"),
            ("colour.webp", "RGB"),
            ("grey.bmp", "L"),
        ):
            grey.convert(mode).save(tmp_path / name)
            decoded = decode(read_mask(str(tmp_path / name), files=True))
            assert decoded.size == (5, 3) and decoded.getextrema() == (77, 77), name

    def test_sixteen_bits_of_grey_in_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "deep.png"
        Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(file)
        assert np.asarray(decode(read_mask(str(file), files=True))).tolist() == [[0, 100, 255]]

    def test_text(self) -> None:
        for files in (True, False):
            assert read_mask(MASK, files) == MASK
            assert read_mask("", files) == "", "the inpaint mask"

    def test_refused(self, tmp_path: Path) -> None:
        text = tmp_path / "notes.png"
        text.write_text("no picture")
        with pytest.raises(ValueError, match="it has to be a PNG, JPEG, WebP or BMP"):
            read_mask(str(text), files=True)
        Image.new("L", (5, 3)).save(tmp_path / "mask.gif")
        with pytest.raises(ValueError, match="it has to be a PNG, JPEG, WebP or BMP"):
            read_mask(str(tmp_path / "mask.gif"), files=True)
        Image.new("1", (8192, 8192)).save(tmp_path / "large.png")
        of_files = next(one for one in axes(lambda text: read_mask(text, files=True)) if one.label == "[AsynDM] Mask")
        with pytest.raises(SettingsError, match=r"cannot take .*large.png: .* it has 8192 x 8192 pixels"):
            of_files.settings(str(tmp_path / "large.png"))
        with pytest.raises(ValueError, match="not a picture in base64"):
            read_mask("nowhere.png", files=True)

    def test_where_nobody_may_name_files(self, tmp_path: Path) -> None:
        """The answer does not tell whether the file is there."""
        there = tmp_path / "mask.png"
        Image.new("L", (4, 4), 255).save(there)
        messages = []
        for path in (there, tmp_path / "bosk.png"):
            with pytest.raises(ValueError) as caught:
                read_mask(str(path), files=False)
            messages.append(str(caught.value).replace(path.name, ""))
        assert messages[0] == messages[1]

    def test_legend(self) -> None:
        show = axis("Mask").show
        assert show is not None and show("left.png") == "[AsynDM] Mask: left.png"
        assert len(show(MASK * 5)) < 40, "not a picture in base64"


def test_minus_zero_is_zero() -> None:
    """A range from -0.2 to 0.2 has it in its middle."""
    show = axis("Strength").show
    assert show is not None and show(-0.0) == "[AsynDM] Strength: 0.0" and show(0.1 + 0.2) == "[AsynDM] Strength: 0.3"
    assert str(axis("Strength").settings(-0.0)["strength"]) == "0.0"


def test_the_comparison_is_the_paper_s() -> None:
    expected = {
        "plain": (False, "objects", "dynamic"),
        "concave": (True, "everything", "dynamic"),
        "AsynDM": (True, "objects", "dynamic"),
        "fixed mask": (True, "objects", "fixed"),
    }
    assert axis("Comparison").choices == tuple(expected) == tuple(COMPARISON)
    for args in (PANEL_OFF, [{"strength": 0.9}]):
        for name, values in expected.items():
            s = Settings.from_args(axis("Comparison").changed(args, name.upper()))
            assert (s.enabled, s.region, s.mask_source) == values, "also where the panel is closed"


def test_who_says_whether_it_is_on() -> None:
    """An axis of a setting switches on, unless an axis of its own says otherwise."""
    assert Settings.from_args(axis("Strength").changed(PANEL_OFF, 0.3)).enabled
    off = axis("Enabled").changed([True, *PANEL_OFF[1:]], "False")
    assert not Settings.from_args(off).enabled
    assert not Settings.from_args(axis("Strength").changed(off, 0.3, keep_switch=True)).enabled
    assert Settings.from_args(axis("Enabled").changed(PANEL_OFF, "True")).enabled


@given(st.sampled_from([spec.name for spec in FIELDS]), st.sampled_from([spec.name for spec in FIELDS]))
def test_arguments_are_replaced_in_a_copy(first: str, second: str) -> None:
    names = [field.name for field in fields(Settings)]
    for args in (list(range(len(names))), [{"enabled": False, "strength": 0.1}, 7]):
        before = json.dumps(args)
        changed = replaced(replaced(args, {first: "x"}), {second: "y"})
        assert json.dumps(args) == before
        assert len(changed) == len(args)
        values = changed[0] if isinstance(args[0], dict) else dict(zip(names, changed, strict=True))
        assert values[second] == "y"
        assert first == second or values[first] == "x"
