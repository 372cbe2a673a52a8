"""The API's answers that need no WebUI, and the schema of the settings against what the settings accept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.settings import valid

from asyndm_ext import __version__
from asyndm_ext.settings import FIELDS, Settings, SettingsError
from asyndm_ext.solvers import LEFT_OUT, SOLVERS, Solver
from asyndm_ext.ui import api, schema

SETTINGS = Draft202012Validator(schema.settings_schema())


@pytest.mark.parametrize("name", [name for name in vars(schema) if name.endswith(("_ANSWER", "_REQUEST"))])
def test_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(getattr(schema, name))
    json.dumps(getattr(schema, name))


def test_settings_schema_is_the_table() -> None:
    described = schema.settings_schema()
    Draft202012Validator.check_schema(described)
    assert list(described["properties"]) == ["enabled", *(spec.name for spec in FIELDS), "compare", "preset"]
    defaults = Settings().to_dict()
    for spec in FIELDS:
        row = described["properties"][spec.name]
        assert row["default"] == defaults[spec.name] and row["description"] == spec.help
        assert row.get("enum") == (list(spec.choices) or None)
        assert (row.get("minimum"), row.get("maximum")) == (spec.limits or (None, None))
    SETTINGS.validate({name: row["default"] for name, row in described["properties"].items()})
    for compare in ("seg", {"method": "zigzag", "zigzag_rounds": 2}, {"method": "seg", "seg_blur": "inf"}):
        SETTINGS.validate({"compare": compare})
        assert Settings.from_dict({"compare": compare}).compare is not None
    for wrong in ("sag", 3, {"method": "cfg++"}, {"method": "seg", "blur": 1}, {"seg_scale": 2}):
        assert not SETTINGS.is_valid({"compare": wrong})


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 6),
    st.floats(-1, 6, allow_nan=False),
    st.sampled_from(["", "cat", "quadratic", "linear", "objects", "mask", "fixed", "both", "hires", "yes"]),
    st.lists(st.sampled_from(["cat", 3, {"name": "dog", "strength": 0.5}, {"name": "dog", "size": 1}]), max_size=2),
    st.dictionaries(st.sampled_from(["cat", "dog"]), st.sampled_from([0.5, 2, None, True]), max_size=2),
)
# What a schema of one property at a time cannot say.
BEYOND = ("is given twice", "must be less than", "picture", "be words without", "are longer than", "more than")


@given(st.dictionaries(st.sampled_from(["enabled", "colour", *(spec.name for spec in FIELDS)]), anything, max_size=3))
def test_the_schema_accepts_what_a_job_accepts(values: dict[str, Any]) -> None:
    accepted = SETTINGS.is_valid(values)
    try:
        Settings.from_dict(values)
    except SettingsError as error:
        assert not accepted or any(words in str(error) for words in BEYOND), str(error)
    else:
        assert accepted, [error.message for error in SETTINGS.iter_errors(values)]


@given(valid)
def test_validate_normalises(values: dict[str, Any]) -> None:
    answer = api.validate(values)
    Draft202012Validator(schema.VALIDATE_ANSWER).validate(answer)
    SETTINGS.validate(answer["settings"])
    assert answer["ok"] and Settings.from_dict(answer["settings"]) == Settings.from_dict(values)
    assert api.validate(json.loads(json.dumps(answer["settings"]))) == answer, "normal already"


def test_validate_tells_what_would_stop_the_job() -> None:
    answer = api.validate({"strength": 2})
    Draft202012Validator(schema.VALIDATE_ANSWER).validate(answer)
    assert answer == {"ok": False, "message": "AsynDM: Strength must lie between 0 and 1, but it is 2"}
    assert api.validate({"objects": {"cat": 0.5}})["settings"]["objects"] == ["cat:0.5"]


class TestCapabilities:
    MODEL = {"loaded": True, "name": "tiny", "supported": True, "reason": None}  # noqa: RUF012

    def test_answer(self) -> None:
        samplers = [api.sampler("Euler", None, flow=False), api.sampler("Unheard of", None, flow=False)]
        answer = api.capabilities("AUTOMATIC1111", ("SD 1.x",), self.MODEL, iter(samplers))
        Draft202012Validator(schema.CAPABILITIES_ANSWER).validate(answer)
        assert answer["version"] == __version__
        assert answer["samplers"][0] == {"name": "Euler", "supported": True, "reason": None}
        assert answer["samplers"][1] == {"name": "Unheard of", "supported": False, "reason": "AsynDM does not know it"}
        assert answer["settings"] == schema.settings_schema()

    @pytest.mark.parametrize("name", list(LEFT_OUT))
    def test_left_out(self, name: str) -> None:
        assert api.sampler(name, None, flow=False) == {
            "name": name,
            "supported": False,
            "reason": f"it {LEFT_OUT[name]}",
        }

    @pytest.mark.parametrize("name", list(SOLVERS))
    def test_every_solver(self, name: str) -> None:
        for flow in (False, True):
            answer = api.sampler(name, None, flow)
            assert answer["supported"] is (flow or not SOLVERS[name].flow_only)
            assert answer["supported"] or "kind of model" in answer["reason"]

    def test_what_the_webui_itself_gets_wrong(self) -> None:
        def excludes(solver: Solver) -> str | None:
            return "it goes wrong" if solver.space == "timestep" else None

        assert api.sampler("DDIM", None, True, excludes)["reason"] == "it goes wrong"
        assert api.sampler("Euler", None, True, excludes)["supported"] is True
