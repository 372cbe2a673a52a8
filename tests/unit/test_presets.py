"""Presets: what they set and what wins over them, in the API, the plot and the command; and that their numbers are
those of the pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from asyndm_ext.embedded import cli
from asyndm_ext.presets import NAMES, OF_OBJECTS, PRESETS, preset
from asyndm_ext.settings import FIELDS, Settings, SettingsError
from asyndm_ext.ui import preset_line
from asyndm_ext.ui.api import validate
from asyndm_ext.ui.schema import settings_schema
from asyndm_ext.ui.xyz import axes

ROOT = Path(__file__).resolve().parents[2]
STRONG = {"strength": 1.0, "curve": "piecewise linear", "region": "objects", "order": "together"}


def test_all_set_the_same_settings_and_none_equals_another() -> None:
    assert NAMES == ("Gentle", "Paper", "Strong", "In turn", "Repair")
    assert {tuple(one.settings) for one in PRESETS} == {preset_line.GOVERNED}
    assert len({json.dumps(one.settings) for one in PRESETS}) == len(PRESETS)
    assert set(OF_OBJECTS) == {*NAMES} - {"Repair"}
    # The page begins with the defaults, so with one of them.
    assert preset("Paper").settings == {name: getattr(Settings(), name) for name in preset_line.GOVERNED}


@pytest.mark.parametrize("one", PRESETS, ids=lambda one: one.name)
def test_a_preset_is_what_its_settings_are(one) -> None:
    own = Settings.from_dict({"preset": one.name})
    assert own == Settings.from_dict(dict(one.settings))
    assert own.enabled
    assert not any("preset" in key.lower() for key in own.infotext())
    assert "preset" not in own.to_dict()


def test_what_is_set_beside_it_wins() -> None:
    assert Settings.from_dict({"preset": "strong"}) == Settings(enabled=True, **STRONG)
    own = Settings.from_dict({"strength": 0.4, "preset": "Strong", "threshold": 2})
    assert own == Settings(enabled=True, **{**STRONG, "strength": 0.4, "threshold": 2.0})
    assert Settings.from_dict({"preset": None, "strength": 0.4}) == Settings(enabled=True, strength=0.4)
    assert not Settings.from_dict({"preset": "Strong", "enabled": False}).enabled


@pytest.mark.parametrize("name", ["Weak", 3, ["Strong"], ""])
def test_one_that_there_is_not_stops_the_job(name) -> None:
    with pytest.raises(SettingsError, match=r"there is no preset .*; the presets are Gentle, Paper, Strong"):
        Settings.from_dict({"preset": name})
    assert validate({"preset": name})["ok"] is False


def test_the_api_says_which_there_are_and_what_they_come_to() -> None:
    schema = settings_schema()["properties"]["preset"]
    assert schema["enum"] == [*NAMES, None]
    assert all(one.earned in schema["description"] for one in PRESETS)
    answer = validate({"preset": "In turn", "strength": 0.9})
    assert answer["settings"]["order"] == "in turn" and answer["settings"]["strength"] == 0.9
    assert answer["infotext"]["AsynDM order"] == "in turn"


class TestPlot:
    def args(self) -> list[object]:
        return list(vars(Settings()).values())

    def axis(self, name: str):
        return next(axis for axis in axes(str) if axis.label == f"[AsynDM] {name}")

    def test_a_cell_has_the_presets_settings(self) -> None:
        axis = self.axis("Preset")
        assert axis.choices == NAMES
        assert Settings.from_args(axis.changed(self.args(), "Strong")) == Settings(enabled=True, **STRONG)
        with pytest.raises(SettingsError, match="the axis Preset cannot take Weak: there is no preset 'Weak'"):
            axis.settings("Weak")

    @pytest.mark.parametrize("order", [("Strength", "Preset"), ("Preset", "Strength")])
    def test_the_axis_of_a_setting_wins_whichever_comes_first(self, order, monkeypatch) -> None:
        """As the WebUI applies them: each axis to the cell's own job, one after the other."""
        cell = SimpleNamespace(script_args=self.args(), scripts=None)
        script = SimpleNamespace(title=lambda: "AsynDM", args_from=0, args_to=len(cell.script_args))
        cell.scripts = SimpleNamespace(alwayson_scripts=[script])
        modules = SimpleNamespace(scripts=SimpleNamespace(scripts_data=[]), shared=None)
        for name in ("modules", "modules.scripts", "modules.shared"):
            monkeypatch.setitem(__import__("sys").modules, name, modules)
        monkeypatch.delitem(__import__("sys").modules, "asyndm_ext.hosts.webui.xyz", raising=False)
        from asyndm_ext.hosts.webui.xyz import _apply

        for name in order:
            _apply(self.axis(name), "AsynDM")(cell, {"Strength": 0.25, "Preset": "Strong"}[name], [])
        monkeypatch.delitem(__import__("sys").modules, "asyndm_ext.hosts.webui.xyz")
        assert Settings.from_args(cell.script_args) == Settings(enabled=True, **{**STRONG, "strength": 0.25})


class TestCommand:
    def job(self, *more: str):
        jobs, _ = cli._jobs(cli.build_parser().parse_args(["a shark riding a bike", *more]))
        return jobs[0].settings

    def test_a_preset_and_what_is_given_beside_it(self) -> None:
        plain, strong = self.job(), self.job("--preset", "strong")
        assert (plain.strength, plain.curve, plain.order) == (0.7, "quadratic", "together")
        assert (strong.strength, strong.curve) == (1.0, "piecewise linear")
        for more in (("--preset", "Strong", "--strength", "0.7"), ("--strength", "0.7", "--preset", "Strong")):
            own = self.job(*more)
            assert (own.strength, own.curve) == (0.7, "piecewise linear")

    def test_one_that_needs_a_mask_is_not_the_commands(self, capsys) -> None:
        with pytest.raises(SystemExit, match="2"):
            cli.build_parser().parse_args(["a cat", "--preset", "Repair"])
        assert "choose one of: Gentle, Paper, Strong, In turn" in capsys.readouterr().err


def test_the_line_has_a_button_and_a_sentence_for_each() -> None:
    line = preset_line.html(PRESETS)
    for one in PRESETS:
        assert f">{one.name}</button>" in line and one.earned in line
    assert line.count(" hidden>") == len(PRESETS)
    assert [one.name for one in preset_line.offered(("mask", "order"))] == []
    assert len(preset_line.offered(("adetailer",))) == len(PRESETS)


# --- the numbers, and the pages ---------------------------------------------------------------------------------------


def test_every_number_stands_on_a_page_of_measurements() -> None:
    measured = (ROOT / "docs" / "EVALUATE.md").read_text(encoding="utf-8")
    for one in PRESETS:
        found = re.findall(r"([+-][\d.]+)(?: points)? (\([+-][\d.]+ to [+-][\d.]+\))", one.earned)
        assert found or one.name == "Repair"
        for difference, interval in found:
            assert f"{difference} {interval}" in measured, (one.name, difference, interval)
    assert "| SD 2.1 | 4.94 | 5.52 | 0.754 | 0.922 |" in (ROOT / "docs" / "WHY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("one", PRESETS, ids=lambda one: one.name)
def test_the_readme_has_the_table(one) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| *{one.name}* |"))
    for name, value in one.settings.items():
        default = next(spec.default for spec in FIELDS if spec.name == name)
        shown = f"{value:g}" if isinstance(value, float) else value
        assert value == default or shown in row, (name, value)
    for number in re.findall(r"[+-]?\d+\.\d+", one.earned):
        assert number in row
