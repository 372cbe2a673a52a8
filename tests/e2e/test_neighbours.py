"""Other extensions inside the denoiser: stand-ins that do what Detail Daemon and Regional Prompter do there."""

from __future__ import annotations

import numpy as np
import pytest

from .server import Pictures, WebUI
from .test_asyndm import GREY_LEVELS, PROMPT, SETTINGS, asyndm, difference, levels, nothing_left

pytestmark = pytest.mark.xdist_group("webui")

LEVELS = ("level in place", "level by another", "level of the prompt")
REGIONS = "a red cat BREAK a blue dog"


def with_neighbour(webui: WebUI, mode: str, settings: dict | None = None, **request: object) -> Pictures:
    """A picture with the other extension, and with AsynDM too where settings are given."""
    scripts: dict = {"asyndm neighbour": {"args": [mode]}}
    if settings is not None:
        scripts.update(asyndm(settings)["alwayson_scripts"])
    return webui.txt2img(request.pop("model", "tiny-sd1"), alwayson_scripts=scripts, **{"prompt": PROMPT, **request})


class TestNoiseLevel:
    """Scenario 49: the map is changed as the host's level is."""

    @pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M SDE", "DDIM", "UniPC"])
    @pytest.mark.parametrize("mode", LEVELS)
    @pytest.mark.parametrize("model", ["tiny-sd1", "tiny-sd2v"])
    def test_both_effects_can_be_seen(self, webui: WebUI, model: str, mode: str, sampler: str) -> None:
        if webui.about.is_forge and mode == "level of the prompt":
            pytest.skip("Forge and its relatives have no level for each row")
        if webui.kind == "reforge" and mode == "level by another":
            pytest.skip("reForge does not read what is put in the place of its level")
        request = {"model": model, "sampler_name": sampler}
        plain = with_neighbour(webui, "", **request).image
        alone = with_neighbour(webui, mode, **request).image
        assert difference(plain, alone) > 2, "it does something by itself"
        still = with_neighbour(webui, mode, {**SETTINGS, "strength": 0}, **request)
        assert difference(alone, still.image) <= 1
        ours = with_neighbour(webui, "", SETTINGS, **request)
        both = with_neighbour(webui, mode, SETTINGS, **request)
        nominal, level, _ = levels(webui)
        assert np.any(level > nominal.reshape(-1, 1, 1, 1) * 1.01), "pixels lag"
        assert difference(ours.image, both.image) > 2 and difference(alone, both.image) > 2
        assert "AsynDM note" not in both.infotext
        nothing_left(webui)

    @pytest.mark.parametrize(
        "settings", [{"region": "everything"}, {"mask_source": "fixed"}], ids=lambda one: next(iter(one))
    )
    def test_other_regions(self, webui: WebUI, settings: dict) -> None:
        ours = with_neighbour(webui, "", {**SETTINGS, **settings}).image
        both = with_neighbour(webui, LEVELS[0], {**SETTINGS, **settings}).image
        assert difference(ours, both) > 2
        still = with_neighbour(webui, LEVELS[0], {**SETTINGS, **settings, "strength": 0}).image
        assert difference(still, with_neighbour(webui, LEVELS[0]).image) <= 1

    def test_images_of_a_batch(self, webui: WebUI) -> None:
        batch = with_neighbour(webui, LEVELS[0], SETTINGS, batch_size=2).images
        for number in range(2):
            alone = with_neighbour(webui, LEVELS[0], SETTINGS, seed=1 + number).image
            assert difference(batch[number], alone) <= GREY_LEVELS

    def test_hires(self, webui: WebUI) -> None:
        hires = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, "hr_upscaler": "Latent"}
        alone = with_neighbour(webui, LEVELS[0], **hires).image
        assert difference(alone, with_neighbour(webui, LEVELS[0], {**SETTINGS, "strength": 0}, **hires).image) <= 1
        both = with_neighbour(webui, LEVELS[0], SETTINGS, **hires).image
        assert difference(both, with_neighbour(webui, "", SETTINGS, **hires).image) > 2
        assert difference(both, alone) > 2

    def test_what_cannot_be_carried_over_is_said(self, webui: WebUI) -> None:
        if webui.kind == "reforge":
            pytest.skip("reForge does not read what is put in the place of its level")
        ours = with_neighbour(webui, "", SETTINGS)
        both = with_neighbour(webui, "level not finite", SETTINGS)
        assert "another extension's change of the noise level was left out: it is not finite" in both.infotext
        if webui.kind == "a1111":
            assert difference(ours.image, both.image) <= 1

    def test_back_to_the_first_latent(self, webui: WebUI) -> None:
        """Pixels that have lagged by then are at the first level again like all others: no noise is left in them."""
        alone = with_neighbour(webui, "back").image
        still = with_neighbour(webui, "back", {**SETTINGS, "strength": 0}).image
        assert difference(alone, still) <= 1
        both = with_neighbour(webui, "back", SETTINGS).image
        assert difference(alone, both) > 2
        nothing_left(webui)


class TestAttention:
    """Scenario 50: the columns of what each call really got."""

    @pytest.mark.parametrize("model", ["tiny-sd1", "tiny-sdxl"])
    @pytest.mark.parametrize("batch_size", [1, 2])
    @pytest.mark.parametrize("name", ["cat", "dog"])
    def test_chunks_by_themselves(self, webui: WebUI, name: str, batch_size: int, model: str) -> None:
        """The dog's column is beyond the end of every chunk."""
        request = {"model": model, "prompt": REGIONS, "batch_size": batch_size}
        settings = {**SETTINGS, "objects": [name]}
        alone = np.stack(with_neighbour(webui, "regions", **request).images)
        still = np.stack(with_neighbour(webui, "regions", {**settings, "strength": 0}, **request).images)
        assert difference(alone, still) <= 1
        both = with_neighbour(webui, "regions", settings, **request)
        strength = levels(webui)[2]
        assert np.all((strength > 0).mean(axis=(1, 2, 3)) > 0.02), "the object has been found at every step"
        assert "not applied" not in both.infotext
        assert difference(alone, np.stack(both.images)) > 2
        nothing_left(webui)

    @pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DDIM"])
    @pytest.mark.parametrize("settings", [{}, {"mask_source": "fixed"}], ids=["dynamic", "fixed"])
    def test_where_the_text_is_another_it_goes_on_without(self, webui: WebUI, settings: dict, sampler: str) -> None:
        """The host's own picture: the same random numbers, from the beginning."""
        request = {"sampler_name": sampler, "batch_size": 2}
        alone = with_neighbour(webui, "foreign", **request)
        both = with_neighbour(webui, "foreign", {**SETTINGS, **settings}, **request)
        assert both.png[0] != b"" and all(difference(a, b) == 0 for a, b in zip(alone.images, both.images, strict=True))
        assert "not applied: the network's attention to the objects cannot be read" in both.infotext
        assert "AsynDM strength" not in both.infotext
        nothing_left(webui)

    def test_where_the_text_becomes_another_the_masks_stay(self, webui: WebUI) -> None:
        alone = with_neighbour(webui, "foreign later", sampler_name="Euler a").image
        both = with_neighbour(webui, "foreign later", SETTINGS, sampler_name="Euler a")
        strength = levels(webui)[2]
        assert np.array_equal(strength[3], strength[4]) and strength[3].any()
        assert difference(alone, both.image) > 5
        assert "the attention could not be read in every step, so masks of the step before were kept" in both.infotext
        nothing_left(webui)

    @pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DDIM"])
    def test_a_pass_that_has_to_go_on_without_in_its_middle_begins_anew(self, webui: WebUI, sampler: str) -> None:
        """From the fourth step on a wrapper hides which image is which: the host's own picture to the pixel."""
        if not webui.about.is_forge:
            pytest.skip("A1111 has no such wrapper")
        request = {"sampler_name": sampler, "batch_size": 2}
        alone = with_neighbour(webui, "hides later", **request)
        both = with_neighbour(webui, "hides later", SETTINGS, **request)
        assert [difference(a, b) for a, b in zip(alone.images, both.images, strict=True)] == [0] * len(alone.images)
        assert (
            "not applied: another extension calls the model in a way that hides which image is which" in both.infotext
        )
        assert "AsynDM strength" not in both.infotext
        nothing_left(webui)

    def test_a_wrapper_that_runs_the_batch_in_slices(self, webui: WebUI) -> None:
        if not webui.about.is_forge:
            pytest.skip("A1111 has no such wrapper")
        both = with_neighbour(webui, "wrapped slices", SETTINGS, batch_size=2).images
        ours = with_neighbour(webui, "", SETTINGS, batch_size=2).images
        assert difference(np.stack(both), np.stack(ours)) <= GREY_LEVELS


def test_quantization_in_k_samplers(webui: WebUI) -> None:
    """A setting of A1111's: the network is given whole timesteps only."""
    if webui.kind != "a1111":
        pytest.skip("Forge always does that")

    def picture(on: bool, settings: dict | None = None) -> np.ndarray:
        options = {"override_settings": {"enable_quantization": on}, "sampler_name": "DPM++ 2M", "model": "tiny-sd2v"}
        return with_neighbour(webui, "", settings, **options).image

    assert difference(picture(True), picture(False)) > 0
    assert difference(picture(True), picture(True, {**SETTINGS, "strength": 0})) <= 1
    assert difference(picture(True, SETTINGS), picture(False, SETTINGS)) > 0
