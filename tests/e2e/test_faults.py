"""Faults in every place of a job, jobs in a row, and settings that nobody would send, in the real WebUI."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.wild import dictionaries, prompts

from asyndm_ext.settings import Settings
from asyndm_ext.ui import schema
from asyndm_ext.ui.api import MAX_PROMPT

from .server import ApiError, Pictures, WebUI
from .test_asyndm import PROMPT, SETTINGS, difference, nothing_left, off

pytestmark = pytest.mark.xdist_group("webui")

SMALL = {"width": 64, "height": 64, "steps": 3, "prompt": PROMPT}
FIRST, MIDDLE, AFTER = 1, 2, 4
SAMPLERS = ("Euler", "DPM++ 2M SDE", "DDIM")
PLACES = ("model", "solver", "capture", "region", "callback")
TENSORS = ("model", "capture", "region")
KEPT = ("model", "patcher", "functions", "global_hooks", "callbacks", "samplers")
EXAMPLES = int(os.environ.get("ASYNDM_FUZZ", "0")) or 60
TOKENS = Draft202012Validator(schema.TOKENS_ANSWER)
JOBS = 20
MEMORY_KB = 48 * 1024
"""What twenty jobs may add to the process, whose allocator keeps some of what it has once had."""
MORE_TENSORS, MORE_BYTES = 100, 2**18
"""What may come on top: the host holds on to its last job, of some 50 tensors and 100 KB, now and then."""


def failing(webui: WebUI, place: str, fault: str, at: int, **request: Any) -> Pictures | ApiError:
    scripts = {"AsynDM": {"args": [SETTINGS]}, "asyndm faults": {"args": [{"place": place, "fault": fault, "at": at}]}}
    try:
        return webui.txt2img(**{**SMALL, **request}, alwayson_scripts=scripts)
    except ApiError as error:
        return error


def check(webui: WebUI, before: dict, place: str, fault: str, at: int, **request: Any) -> None:
    answer = failing(webui, place, fault, at, **request)
    cell = f"{place}, {fault}, step {at}"
    assert webui.get("/asyndm-faults/fired"), cell
    if fault in ("interrupt", "skip"):
        assert isinstance(answer, Pictures), f"{cell}: {answer}"
    elif isinstance(answer, ApiError):
        assert answer.status == 500, cell
        expected = "asyndm fault" if fault != "nan" else r"NaN|not finite"
        assert re.search(expected, answer.message), f"{cell}: {answer}"
    else:  # Forge does not look whether a model's last answer is a number
        assert webui.about.is_forge and (fault, place) == ("nan", "model"), cell
    after = webui.get("/asyndm-probe/state")
    assert [key for key in KEPT if after.get(key) != before.get(key)] == [], cell
    nothing_left(webui)


def solver_steps(webui: WebUI, **request: Any) -> int:
    """How many steps a job has: three of DDIM's are four in some WebUIs and two in others."""
    webui.txt2img(**{**SMALL, **request}, alwayson_scripts={"AsynDM": {"args": [SETTINGS]}})
    return len(webui.get("/asyndm/v1/last-run?masks=false")["passes"][0]["steps"])


class TestFaults:
    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_matrix(self, webui: WebUI, sampler: str, place: str) -> None:
        reference = off(webui, "tiny-sd1", **SMALL, sampler_name=sampler)
        last = solver_steps(webui, sampler_name=sampler)
        before = webui.get("/asyndm-probe/state")
        for fault in ("raise", "oom", "interrupt", "skip", *(("nan",) if place in TENSORS else ())):
            for at in sorted({FIRST, MIDDLE, last}):
                check(webui, before, place, fault, at, sampler_name=sampler)
            assert off(webui, **SMALL, sampler_name=sampler).png == reference.png, fault

    @pytest.mark.parametrize("fault", ["raise", "oom"])
    def test_decode(self, webui: WebUI, fault: str) -> None:
        reference = off(webui, "tiny-sd1", **SMALL)
        before = webui.get("/asyndm-probe/state")
        check(webui, before, "decode", fault, AFTER)
        assert off(webui, **SMALL).png == reference.png

    def test_out_of_memory_then_a_smaller_size(self, webui: WebUI) -> None:
        expected = webui.txt2img("tiny-sd1", **SMALL, alwayson_scripts={"AsynDM": {"args": [SETTINGS]}})
        assert isinstance(failing(webui, "model", "oom", MIDDLE, width=256, height=256), ApiError)
        again = webui.txt2img(**SMALL, alwayson_scripts={"AsynDM": {"args": [SETTINGS]}})
        assert again.png == expected.png


def test_twenty_jobs_in_a_row(webui: WebUI, capsys: pytest.CaptureFixture) -> None:
    """Scenario 38. Time is shown, memory is asserted."""
    request = {**SMALL, "width": 128, "height": 128, "alwayson_scripts": {"AsynDM": {"args": [SETTINGS]}}}
    webui.use_model("tiny-sd1")
    for _ in range(5):  # what is loaded or kept once
        first = webui.txt2img(**request)
    before = webui.get("/asyndm-faults/process")
    seconds = []
    for _ in range(JOBS):
        picture = webui.txt2img(**request)
        seconds.append(picture.seconds)
        assert picture.png == first.png
    after = webui.get("/asyndm-faults/process")
    with capsys.disabled():
        first_five, last_five = (sum(part) / 5 for part in (seconds[:5], seconds[-5:]))
        print(f"\n{webui.kind}, {JOBS} jobs: first five {first_five:.2f} s each, last five {last_five:.2f} s each")
        for name, value in before.items():
            print(f"  {name}: {value} -> {after[name]}")
    assert after["tensors"] - before["tensors"] < MORE_TENSORS
    assert after["bytes"] - before["bytes"] < MORE_BYTES
    assert after["resident"] - before["resident"] < MEMORY_KB


fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@fuzz
@given(values=dictionaries)
def test_any_settings(webui: WebUI, values: dict) -> None:
    """A changed picture, a word that it is none, or an error that names the setting; never an error from inside.

    ``ASYNDM_FUZZ=300`` sends as many.
    """
    request = {**SMALL, "sampler_name": "Euler"}
    reference = off(webui, "tiny-sd1", **request)
    try:
        picture = webui.txt2img(**request, alwayson_scripts={"AsynDM": {"args": [values]}})
    except ApiError as error:
        assert error.status == 500 and error.message.startswith("AsynDM"), f"{values}: {error}"
        return
    if values.get("enabled", True) in (False, None):
        assert picture.png == reference.png
        return
    assert "AsynDM strength" in picture.infotext or "not applied: " in picture.infotext, values
    asked = Settings.from_dict(values)
    wants_no_lag = asked.strongest < 0.05 or asked.curve == "linear"
    said_so = "AsynDM note" in picture.infotext or "not applied: " in picture.infotext
    assert difference(picture.image, reference.image) > 0 or said_so or wants_no_lag, values


def answer_or_error(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except ApiError as error:
        return error


@fuzz
@given(prompt=prompts, named=st.booleans())
@example(prompt="(" * 150 + "cat", named=True)  # the time that the WebUI takes for it grows with the cube
@example(prompt="[cat:" * 100, named=False)
@example(prompt="cat " * 3000, named=True)
def test_any_prompt(webui: WebUI, prompt: str, named: bool) -> None:
    """Where the WebUI makes a picture of a prompt, AsynDM does, or says what is missing; so does the route."""
    objects = "cat" if named else ""
    body = {"prompt": prompt, "objects": objects}
    request = {**SMALL, "prompt": prompt, "sampler_name": "Euler"}
    plain = answer_or_error(lambda: off(webui, "tiny-sd1", **request))  # loads the model, too
    tokens = answer_or_error(lambda: webui.post("/asyndm/v1/tokens", body))
    if isinstance(tokens, ApiError):
        assert tokens.status == 422 and "prompt" in tokens.message, tokens
    else:
        TOKENS.validate(tokens)
    scripts = {"AsynDM": {"args": [{**SETTINGS, "objects": objects}]}}
    ours = answer_or_error(lambda: webui.txt2img(**request, alwayson_scripts=scripts))
    if isinstance(plain, ApiError):  # the WebUI itself fails on it
        assert isinstance(ours, ApiError) and ours.status == plain.status, ours
    elif isinstance(ours, ApiError):
        assert ours.status == 500 and ours.message.startswith("AsynDM"), ours
        assert isinstance(tokens, ApiError) or not tokens["objects"], "the route has found an object"
    else:
        if len(prompt) <= MAX_PROMPT:  # which only the route has
            assert not isinstance(tokens, ApiError) and tokens["objects"]
        assert "AsynDM strength" in ours.infotext
        assert difference(ours.image, plain.image) > 0 or "AsynDM note" in ours.infotext
