"""Every sampler of the real WebUI with AsynDM: it runs, it changes the picture, and strength 0 is the host's own."""

from __future__ import annotations

import numpy as np
import pytest

from .server import ApiError, WebUI
from .test_asyndm import GREY_LEVELS, SETTINGS, difference, levels, nothing_left, off, on

MODELS = ("tiny-sd1", "tiny-sd2v")
REQUEST = {"width": 128, "height": 128, "steps": 7}
# Of an extension, unknown to us: see the test of the fallback.
ELSEWHERE = "Elsewhere"
pytestmark = pytest.mark.xdist_group("webui")


def check_levels(webui: WebUI, sampler: str) -> None:
    """Of the last job: pixels start where the host does, never get noisier, and some of them are slow at every step."""
    nominal, level, strength = levels(webui)
    assert np.isfinite(level).all()
    assert np.all(level[0] == nominal[0]), sampler
    if sampler != "Restart":  # goes up again between its segments, by design
        assert np.all(np.diff(level, axis=0) <= 1e-9), sampler
    assert np.all((strength > 0).mean(axis=(1, 2, 3)) > 0.02), sampler


def row(webui: WebUI, model: str, sampler: str, **extra: object) -> tuple[int | str, int | str]:
    """Largest differences in grey levels to the plain picture, at strengths 0.7 and 0; or what came instead."""
    request = {**REQUEST, "sampler_name": sampler, **extra}
    plain = off(webui, model, **request)
    try:
        slow = on(webui, model, **request)
    except ApiError as error:
        return f"refused: {error.body[:160]}", "-"
    if sampler in webui.about.flows_only and "has no meaning for the kind of model" in slow.infotext:
        assert difference(plain.image, slow.image) == 0, sampler
        return "not applied", "not applied"
    check_levels(webui, sampler)
    nothing_left(webui)
    zero = on(webui, model, {**SETTINGS, "strength": 0}, **request)
    return difference(plain.image, slow.image), difference(plain.image, zero.image)


def test_every_sampler(webui: WebUI, capsys: pytest.CaptureFixture) -> None:
    names = [entry["name"] for entry in webui.get("/sdapi/v1/samplers") if entry["name"] != ELSEWHERE]
    models = [model for model in MODELS if webui.has_model(model)]
    table = {(name, model): row(webui, model, name) for model in models for name in names}
    with capsys.disabled():
        print(f"\n| sampler | {' | '.join(f'{m}: on | {m}: strength 0' for m in models)} |")
        print("|---" * (1 + 2 * len(models)) + "|")
        for name in names:
            cells = [str(value) for model in models for value in table[name, model]]
            print(f"| {name} | {' | '.join(cells)} |")
    for (name, model), (changed, zero) in table.items():
        if changed == "not applied":
            continue
        assert isinstance(changed, int), f"{name}, {model}: {changed}"
        assert changed > 5, f"{name}, {model}"
        assert zero <= GREY_LEVELS, f"{name}, {model}"


def test_the_cfgpp_samplers_at_cfg_scale_1(webui: WebUI) -> None:
    """They ask for the answer without the prompt, which a WebUI otherwise spares itself there."""
    names = [entry["name"] for entry in webui.get("/sdapi/v1/samplers") if "CFG++" in entry["name"]]
    if not names:
        pytest.skip(f"{webui.about.title} has no CFG++ sampler")
    for name in names:
        changed, zero = row(webui, "tiny-sd1", name, cfg_scale=1)
        assert isinstance(changed, int) and changed > 5, f"{name}: {changed}"
        assert zero <= GREY_LEVELS, name


def test_a_sampler_of_another_extension_goes_on_without(webui: WebUI) -> None:
    """Scenario 24: the host's own picture, and a note by name instead of an exception."""
    plain = off(webui, "tiny-sd1", sampler_name=ELSEWHERE)
    result = on(webui, "tiny-sd1", sampler_name=ELSEWHERE)
    assert difference(plain.image, result.image) == 0
    assert "AsynDM: \"not applied: there is no per-pixel version of the sampler 'Elsewhere'\"" in result.infotext
    assert "AsynDM strength" not in result.infotext
    assert not any(left["replaced"] for left in webui.get("/asyndm-probe/leftovers"))
    # In the hires pass only: the first pass has been sampled with AsynDM.
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "hr_sampler_name": ELSEWHERE}
    mixed = on(webui, "tiny-sd1", **hires, denoising_strength=0.5, width=128, height=128)
    assert "AsynDM strength: 0.7" in mixed.infotext
    assert 'AsynDM note: "not applied in the hires pass: there is no per-pixel version' in mixed.infotext


def test_a_schedule_that_rises_goes_on_without(webui: WebUI) -> None:
    """No pixel's noise can rise with it."""
    # A1111 puts back only options that have once been set; this one would stay for all jobs to come.
    webui.post("/sdapi/v1/options", {"sigma_min": 0.0})
    request = {"scheduler": "Karras", "override_settings": {"sigma_min": 20.0}}
    plain = off(webui, "tiny-sd1", **request)
    result = on(webui, "tiny-sd1", **request)
    assert difference(plain.image, result.image) == 0
    assert 'AsynDM: "not applied: the schedule rises from sigma' in result.infotext
