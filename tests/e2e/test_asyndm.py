"""AsynDM in the real WebUI: what it does to pictures, and what it never does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from asyndm_ext import __version__
from asyndm_ext.settings import FIELDS

from .server import ApiError, Pictures, WebUI

SAMPLERS = ("Euler", "Euler a", "DPM++ 2M", "DDIM")
MODELS = ("tiny-sd1", "tiny-sd2", "tiny-sd2v", "tiny-sdxl")
PROMPT = "a cat eating a sandwich"
SETTINGS = {"enabled": True, "objects": ["cat", "sandwich"], "strength": 0.7}
GREY_LEVELS = 2

pytestmark = pytest.mark.xdist_group("webui")


def asyndm(*args: object, probe: dict | None = None) -> dict:
    """Part of a request that hands our script its arguments (and the probe its faults)."""
    scripts: dict = {"AsynDM": {"args": list(args)}}
    if probe is not None:
        scripts["asyndm probe"] = {"args": [probe]}
    return {"alwayson_scripts": scripts}


def on(webui: WebUI, model: str | None = None, settings: dict | None = None, **request: object) -> Pictures:
    request.setdefault("prompt", PROMPT)
    return webui.txt2img(model, **asyndm(SETTINGS if settings is None else settings), **request)


def off(webui: WebUI, model: str | None = None, **request: object) -> Pictures:
    request.setdefault("prompt", PROMPT)
    return webui.txt2img(model, **request)


def difference(first: np.ndarray, second: np.ndarray) -> int:
    """Largest difference of two pictures, grey levels."""
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def levels(webui: WebUI) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the last job: nominal levels (S,), level maps and strength maps (S,B,H,W)."""
    records = webui.get("/asyndm-probe/levels")
    return tuple(np.array([r[key] for r in records]) for key in ("nominal", "level", "strength"))  # type: ignore[return-value]


def nothing_left(webui: WebUI) -> None:
    for left in webui.get("/asyndm-probe/leftovers"):
        assert not left["replaced"]
        assert "asyndm" not in left["func"]
        assert left["denoiser"].startswith("modules.sd_samplers")
        assert left["overrides"] == []


class TestOff:
    """Scenario 1: installed but off, the extension is not there."""

    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize("model", MODELS)
    def test_bytes_equal_a_webui_without_the_extension(self, plain_webui: WebUI, webui: WebUI, model, sampler) -> None:
        assert off(webui, model, sampler_name=sampler).png == off(plain_webui, model, sampler_name=sampler).png

    def test_infotext_is_the_same(self, plain_webui: WebUI, webui: WebUI) -> None:
        ours = off(webui, "tiny-sd1")
        assert ours.infotext == off(plain_webui, "tiny-sd1").infotext
        explicit = webui.txt2img(prompt=PROMPT, **asyndm({"enabled": False}))
        assert (explicit.png, explicit.infotext) == (ours.png, ours.infotext)
        assert webui.get("/asyndm-probe/levels") == []

    def test_no_hook_and_no_patch_during_a_plain_job(self, plain_webui: WebUI, webui: WebUI) -> None:
        during = []
        for server in (plain_webui, webui):
            server.use_model("tiny-sd1")
            server.txt2img(prompt=PROMPT, alwayson_scripts={"asyndm probe": {"args": [{"snapshot": True}]}})
            state = server.get("/asyndm-probe/last")["during"]
            # Callbacks of the start and of the settings page are no part of a job.
            callbacks = {k: n for k, n in state["callback_counts"].items() if k not in ("app_started", "ui_settings")}
            parts = {key: state[key] for key in ("model", "functions", "global_hooks")}
            during.append({**parts, "callbacks": callbacks})
        # A server that has had another kind of model in an earlier test has loaded more of its WebUI's modules.
        common = during[0]["functions"].keys() & during[1]["functions"].keys()
        assert len(common) > 500
        for state in during:
            assert not [name for name, origin in state["functions"].items() if "asyndm_ext" in f"{name} {origin}"]
            state["functions"] = {name: state["functions"][name] for name in common}
        assert during[0] == during[1]


class TestOn:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize("model", MODELS)
    def test_differs_then_off_again_is_the_same(self, webui: WebUI, model: str, sampler: str) -> None:
        """Scenario 2; and the maps are what they should be (scenario 27)."""
        before = off(webui, model, sampler_name=sampler)
        first = on(webui, model, sampler_name=sampler)
        nominal, level, strength = levels(webui)
        assert difference(first.image, before.image) > 10
        assert first.png == on(webui, model, sampler_name=sampler).png, "same request, same pixels"
        nothing_left(webui)
        assert off(webui, model, sampler_name=sampler).png == before.png

        assert level.shape[1:] == (1, 32, 32)
        assert np.all(np.diff(level, axis=0) <= 1e-9), "a pixel's noise level rose"
        assert np.all(level[0] == nominal[0]), "every pixel starts where the host does"
        assert np.all(level >= nominal[:, None, None, None] - 1e-9), "no pixel runs ahead of the host"
        slow = (strength > 0).mean(axis=(1, 2, 3))
        assert np.all((slow > 0.02) & (slow < 0.98)), f"fraction of slow pixels {slow}"
        assert len(np.unique(level[2:-1])) > 3, "the levels differ from pixel to pixel"
        if sampler != "DDIM":
            assert np.all(level[-1] == nominal[-1]), "the last step is made together"

    @pytest.mark.parametrize("scheduler", ["Automatic", "Karras"])
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_strength_zero_is_the_host_s_image(self, webui: WebUI, sampler: str, scheduler: str) -> None:
        """Scenario 25."""
        for model in ("tiny-sd2", "tiny-sd2v"):
            plain = off(webui, model, sampler_name=sampler, scheduler=scheduler)
            zero = on(webui, model, {**SETTINGS, "strength": 0}, sampler_name=sampler, scheduler=scheduler)
            assert difference(plain.image, zero.image) <= GREY_LEVELS

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_everything_is_one_level_per_step(self, webui: WebUI, sampler: str) -> None:
        """Scenario 26: one global concave schedule, lagging behind the host's."""
        picture = on(webui, "tiny-sd2", {"region": "everything", "strength": 0.9}, sampler_name=sampler)
        nominal, level, _ = levels(webui)
        assert np.all(level == level[:, :, :1, :1])
        assert np.all(level[1:-1] > nominal[1:-1, None, None, None])
        assert difference(picture.image, off(webui, "tiny-sd2", sampler_name=sampler).image) > 5

    def test_a_uniform_map_takes_the_plain_path(self, webui: WebUI) -> None:
        """With one level for all pixels the network runs as ever, only at another timestep."""
        webui.txt2img("tiny-sd1", prompt=PROMPT, **asyndm({"region": "everything"}, probe={"snapshot": True}))
        calls = webui.get("/asyndm-probe/last")["calls"]
        _, level, _ = levels(webui)
        timesteps = [call["timesteps"]["values"][0] for call in calls]
        assert len(timesteps) == len(level)
        order = np.argsort(level[:, 0, 0, 0])
        assert np.all(np.diff(np.array(timesteps)[order]) > 0), "the network sees the lagging level"

    def test_the_host_sees_scalars(self, webui: WebUI) -> None:
        """Invariant 2: other extensions' callbacks get the base schedule's sigma, one number per row."""
        request = {"prompt": PROMPT, "sampler_name": "Euler", "steps": 6}
        webui.txt2img("tiny-sd1", **request, alwayson_scripts={"asyndm probe": {"args": [{"record_sigmas": True}]}})
        plain = webui.get("/asyndm-probe/last")["sigmas"]
        webui.txt2img("tiny-sd1", **request, **asyndm(SETTINGS, probe={"record_sigmas": True}))
        assert webui.get("/asyndm-probe/last")["sigmas"] == plain

    def test_switching_models(self, webui: WebUI) -> None:
        """Scenario 8: SD1, SDXL, SD1 again."""
        first = on(webui, "tiny-sd1")
        on(webui, "tiny-sdxl")
        assert on(webui, "tiny-sd1").png == first.png

    def test_tabs_do_not_mix(self, webui: WebUI) -> None:
        """Scenario 7."""
        picture = on(webui, "tiny-sd1").image
        request = {"denoising_strength": 0.6, "prompt": PROMPT}
        plain = webui.img2img(picture, **request)
        assert webui.get("/asyndm-probe/levels") == []
        slow = webui.img2img(picture, **request, **asyndm(SETTINGS))
        nominal, level, _ = levels(webui)
        assert np.all(level[0] == nominal[0])
        assert difference(plain.image, slow.image) > 5
        zero = webui.img2img(picture, **request, **asyndm({**SETTINGS, "strength": 0}))
        assert difference(plain.image, zero.image) <= GREY_LEVELS


class TestSchedules:
    """Scenario 24: every schedule type of the host, with each of our samplers."""

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_all(self, webui: WebUI, sampler: str) -> None:
        webui.use_model("tiny-sd1")
        names = [entry["label"] for entry in webui.get("/sdapi/v1/schedulers")]
        assert len(names) > 8
        for name in names:
            request = {"sampler_name": sampler, "scheduler": name, "width": 128, "height": 128, "steps": 7}
            plain = off(webui, **request)
            slow = on(webui, **request)
            nominal, level, _ = levels(webui)
            assert difference(plain.image, slow.image) > 5, name
            assert np.all(np.diff(level, axis=0) <= 1e-9), name
            assert np.all(level >= nominal[:, None, None, None] - 1e-9), name
            zero = on(webui, settings={**SETTINGS, "strength": 0}, **request)
            assert difference(plain.image, zero.image) <= GREY_LEVELS, name


class TestFaults:
    """Scenarios 3 and 4: whatever happens in the middle, the host is as it was."""

    @pytest.mark.parametrize("fault", ["raise_at", "nan_at"])
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_error(self, webui: WebUI, sampler: str, fault: str) -> None:
        reference = off(webui, "tiny-sd1", sampler_name=sampler)
        before = webui.get("/asyndm-probe/state")
        for call in (1, 3):
            with pytest.raises(ApiError) as caught:
                request = asyndm(SETTINGS, probe={fault: call})
                webui.txt2img(prompt=PROMPT, sampler_name=sampler, **request)
            assert caught.value.status == 500
            assert webui.get("/asyndm-probe/state") == before
            nothing_left(webui)
        assert off(webui, "tiny-sd1", sampler_name=sampler).png == reference.png

    @pytest.mark.parametrize("fault", ["interrupt_at", "skip_at"])
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_interrupt_and_skip(self, webui: WebUI, sampler: str, fault: str) -> None:
        reference = off(webui, "tiny-sd1", sampler_name=sampler)
        before = webui.get("/asyndm-probe/state")
        picture = webui.txt2img(prompt=PROMPT, sampler_name=sampler, **asyndm(SETTINGS, probe={fault: 4}))
        assert webui.get("/asyndm-probe/last")["fired"] == [fault]
        assert picture.image.std() > 5, "what was sampled so far decodes"
        after = webui.get("/asyndm-probe/state")
        for key in ("model", "functions", "global_hooks", "callbacks", "samplers"):
            assert after[key] == before[key]
        nothing_left(webui)
        assert off(webui, "tiny-sd1", sampler_name=sampler).png == reference.png


class TestBadSettings:
    """Scenarios 9, 22, 41: the job stops with a message that names what is wrong."""

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"objects": ["dog"]}, "'dog' was not found in the prompt"),
            ({"objects": "cat, unicorn"}, "'unicorn' was not found"),
            ({"strenght": 0.5}, "there is no setting 'strenght'"),
            ({"strength": 1.5}, "Strength must lie between 0 and 1"),
            ({"strength": -0.1}, "Strength must lie between 0 and 1"),
            ({"strength": "0.5"}, "Strength must be a number"),
            ({"strength": True}, "Strength must be a number"),
            ({"curve": "cubic"}, "Curve must be one of"),
            ({"threshold": 0}, "Threshold must lie between"),
            ({"region": "left"}, "Region must be one of"),
            ({"objects": 5}, "objects must be"),
            ({"objects": ["cat", 5]}, "object number 2"),
            ({"enabled": "yes"}, "enabled must be true or false"),
        ],
    )
    def test_message(self, webui: WebUI, settings: dict, message: str) -> None:
        with pytest.raises(ApiError) as caught:
            webui.txt2img("tiny-sd1", prompt=PROMPT, **asyndm(settings))
        assert caught.value.status == 500
        assert message in caught.value.message
        nothing_left(webui)

    @pytest.mark.parametrize("settings", [{"strength": 1.5}, {"objects": ["dog"]}])
    def test_the_console_has_one_line(self, webui: WebUI, settings: dict) -> None:
        """A wrong setting is no accident: no traceback."""
        webui.use_model("tiny-sd1")
        before = len(webui.log())
        with pytest.raises(ApiError) as caught:
            webui.txt2img("tiny-sd1", prompt=PROMPT, **asyndm(settings))
        said = [line for line in webui.log()[before:].splitlines() if line.strip() and "it/s" not in line]
        assert [line for line in said if "AsynDM" in line] == [caught.value.message]
        assert not any("Traceback" in line or line.startswith(("  File", "***")) for line in said), said
        assert json.loads(caught.value.body)["detail"] == caught.value.message

    def test_positional_arguments_are_checked_too(self, webui: WebUI) -> None:
        with pytest.raises(ApiError, match="Strength must lie between"):
            webui.txt2img("tiny-sd1", prompt=PROMPT, **asyndm(True, "cat", 3))

    def test_no_object_to_find(self, webui: WebUI) -> None:
        with pytest.raises(ApiError, match="found no object in the prompt"):
            on(webui, "tiny-sd1", {}, prompt="masterpiece, best quality")


class TestApi:
    def test_forms_of_the_arguments(self, webui: WebUI) -> None:
        """Scenario 41: a dictionary, any part of it, or the values in order."""
        reference = on(webui, "tiny-sd1")
        same = (
            [{"objects": "cat, sandwich"}],
            [True, "cat, sandwich"],
            [True, ["cat", "sandwich"], 0.7, "quadratic", 1.0, "objects"],
        )
        for args in same:
            assert webui.txt2img(prompt=PROMPT, **asyndm(*args)).png == reference.png

    def test_infotext(self, webui: WebUI) -> None:
        text = on(webui, "tiny-sd1", {**SETTINGS, "curve": "piecewise linear", "threshold": 1.5}).infotext
        for part in (
            'AsynDM objects: "cat, sandwich"',
            "AsynDM strength: 0.7",
            "AsynDM curve: piecewise linear",
            "AsynDM threshold: 1.5",
            "AsynDM region: objects",
            f"AsynDM version: {__version__}",
        ):
            assert part in text
        assert "AsynDM" not in off(webui, "tiny-sd1").infotext

    def test_objects_found_automatically(self, webui: WebUI) -> None:
        """Scenario 23: and said so."""
        found = on(webui, "tiny-sd1", {})
        assert 'AsynDM found: "cat, sandwich"' in found.infotext
        # The infotext is part of the file; the pixels are those of naming the same objects.
        assert difference(found.image, on(webui, "tiny-sd1").image) == 0
        booru = on(webui, "tiny-sd1", {}, prompt="1girl, long hair, red dress, masterpiece").infotext
        assert "1girl" in booru.split("AsynDM found: ")[1]

    def test_script_info_lists_json_types(self, webui: WebUI) -> None:
        info = [s for s in webui.get("/sdapi/v1/script-info") if s["name"] == "asyndm"]
        assert len(info) == 2, "txt2img and img2img"
        assert [arg["label"] for arg in info[0]["args"]] == ["AsynDM", *(spec.label for spec in FIELDS)]
        values = [arg["value"] for arg in info[0]["args"]]
        assert values == [False, "", *(spec.default for spec in FIELDS[1:])]
        assert values[:6] == [False, "", 0.7, "quadratic", 1.0, "objects"]

    def test_webuiapi(self, webui: WebUI) -> None:
        """The client that people script the WebUI with."""
        webui.use_model("tiny-sd1")
        reference = on(webui)
        answer = webui.client().txt2img(
            prompt=PROMPT, seed=1, steps=6, width=256, height=256, cfg_scale=7, sampler_name="Euler",
            alwayson_scripts={"AsynDM": {"args": [SETTINGS]}},
        )  # fmt: skip
        assert difference(np.array(answer.image.convert("RGB")), reference.image) == 0


class TestPrompts:
    """Scenarios 19 and 20: the right columns, by the tokens that stand there."""

    @pytest.mark.parametrize(
        ("text", "name", "count"),
        [
            ("a cat eating a sandwich", "cat", 1),
            ("a (cat:1.3) eating a [sandwich]", "sandwich", 1),
            ("a ((Cat)), cats", "cat", 1),
            ("a cat BREAK a sandwich", "sandwich", 1),
            ("a cat and another cat", "cat", 2),
            (", ".join(["a very long list of words"] * 16) + ", a sandwich", "sandwich", 1),
            ("a (red:1.2) hat and a red dress", "red hat", 2),
            ("a quokka riding a penny-farthing", "penny-farthing", None),
            ("a quokka riding a bike", "quokka", None),
        ],
    )
    @pytest.mark.parametrize("model", ["tiny-sd1", "tiny-sd2", "tiny-sdxl"])
    def test_columns(self, webui: WebUI, model: str, text: str, name: str, count: int | None) -> None:
        webui.use_model(model)
        answer = webui.post("/asyndm-probe/columns", {"text": text, "name": name})
        found = [answer["ids"][str(column)] for column in answer["columns"]]
        pieces = answer["wanted"]
        assert found == pieces * (len(found) // len(pieces)) and found
        if count is None:
            assert len(found) == len(pieces) > 1, "a word of several pieces: all of them"
        else:
            assert len(found) == count
        assert all(column % 77 not in (0, 76) for column in answer["columns"])
        if "BREAK" in text or len(text) > 300:
            assert min(answer["columns"]) > 77

    @pytest.mark.parametrize(
        "prompt",
        [
            "a (cat:1.3) eating a [sandwich]",
            "a cat BREAK a sandwich",
            "a cat AND a sandwich :0.7",
            "a cat eating a [sandwich:pizza:0.5]",
            ", ".join(["a very long list of words"] * 16) + ", a cat, a sandwich",
        ],
    )
    def test_runs_and_finds_regions(self, webui: WebUI, prompt: str) -> None:
        on(webui, "tiny-sd1", prompt=prompt, negative_prompt="cat, blurry")
        _, _, strength = levels(webui)
        assert np.all((strength > 0).mean(axis=(1, 2, 3)) > 0.02)

    def test_extra_network_tags_do_not_matter(self, webui: WebUI) -> None:
        tagged = on(webui, "tiny-sd1", prompt="a cat <lora:missing:1> eating a sandwich")
        assert difference(tagged.image, on(webui, "tiny-sd1", prompt="a cat  eating a sandwich").image) == 0

    def test_textual_inversion(self, webui: WebUI) -> None:
        """A name that stands for three vectors: three columns, and an object like any other."""
        import torch

        webui.use_model("tiny-sd1")
        width = webui.post("/asyndm-probe/columns", {"text": "a cat", "name": "cat"})["width"]
        folder = webui.folder / "embeddings"
        folder.mkdir(exist_ok=True)
        torch.save({"string_to_param": {"*": 0.1 * torch.randn(3, width)}, "name": "zorblax"}, folder / "zorblax.pt")
        webui.post("/sdapi/v1/refresh-embeddings", {})
        if webui.about.loads_late:  # reads them when it loads a model
            webui.use_model("tiny-sdxl")
            webui.use_model("tiny-sd1")
        found = webui.post("/asyndm-probe/columns", {"text": "a big zorblax in a cat", "name": "zorblax"})["columns"]
        assert found == [3, 4, 5]
        assert webui.post("/asyndm-probe/columns", {"text": "a big zorblax in a cat", "name": "cat"})["columns"] == [8]
        on(webui, settings={"objects": "zorblax"}, prompt="a big zorblax in a cat")
        assert np.all((levels(webui)[2] > 0).mean(axis=(1, 2, 3)) > 0.02)

    def test_negative_prompt_is_no_place_for_objects(self, webui: WebUI) -> None:
        with pytest.raises(ApiError, match="'dog' was not found in the prompt"):
            on(webui, "tiny-sd1", {"objects": "dog"}, negative_prompt="dog")


class TestShapesAndBatches:
    @pytest.mark.parametrize("size", [(512, 768), (768, 512), (520, 776)])
    def test_sizes(self, webui: WebUI, size: tuple[int, int]) -> None:
        """Scenario 10, with the host: the map has the latent's shape and the mask is not empty."""
        picture = on(webui, "tiny-sd1", width=size[0], height=size[1], steps=3)
        width, height = (side // webui.about.multiple * webui.about.multiple for side in size)
        assert picture.image.shape[:2] == (height, width)
        _, level, strength = levels(webui)
        assert level.shape[2:] == (height // 8, width // 8)
        slow = (strength > 0).mean(axis=(1, 2, 3))
        assert np.all((slow > 0.02) & (slow < 0.98))
        cells = strength[-1, 0][:4, :4]
        assert np.all(cells == cells[0, 0]), "a cell of attention covers four by four latent pixels"

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_batch_equals_single(self, webui: WebUI, sampler: str) -> None:
        """Scenario 11: image i of a batch is the image of its seed alone."""
        batch = on(webui, "tiny-sd2", sampler_name=sampler, batch_size=2, n_iter=2, seed=10)
        images = batch.images[-4:]
        for i in range(4):
            alone = on(webui, "tiny-sd2", sampler_name=sampler, seed=10 + i)
            assert difference(images[i], alone.image) <= GREY_LEVELS

    def test_images_of_a_batch_have_masks_of_their_own(self, webui: WebUI) -> None:
        on(webui, "tiny-sd2", batch_size=4, seed=20)
        _, _, strength = levels(webui)
        assert strength.shape[1] == 4
        for i in range(1, 4):
            assert not np.array_equal(strength[-1, 0], strength[-1, i])


class TestHostFeatures:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_cfg_one_and_skipped_uncond(self, webui: WebUI, sampler: str) -> None:
        """Scenario 29."""
        known = webui.get("/sdapi/v1/options")
        settings = [{"skip_early_cond": 0.4}, {"batch_cond_uncond": False}]
        settings = [one for one in settings if set(one) <= set(known)]
        try:
            for request in ({"cfg_scale": 1}, {"s_min_uncond": 3.0}, *({"override_settings": one} for one in settings)):
                plain = off(webui, "tiny-sd1", sampler_name=sampler, **request)
                slow = on(webui, "tiny-sd1", sampler_name=sampler, **request)
                assert difference(plain.image, slow.image) > 5, request
                zero = on(webui, "tiny-sd1", {**SETTINGS, "strength": 0}, sampler_name=sampler, **request)
                assert difference(plain.image, zero.image) <= GREY_LEVELS, request
        finally:  # a WebUI does not restore an option that its file has no value for
            for one in settings:
                webui.post("/sdapi/v1/options", {name: known[name] for name in one})

    def test_every_attention_optimization_gives_the_same_masks(self, webui: WebUI) -> None:
        """Scenario 35; Forge's are chosen when it starts, see test_forge.py."""
        if webui.about.is_forge:
            return
        webui.use_model("tiny-sd1")
        titles = (
            "None", "sdp-no-mem - scaled dot product without memory efficient attention", "sdp - scaled dot product",
            "sub-quadratic", "V1 - original v1", "InvokeAI", "Doggettx",
        )  # fmt: skip
        masks = {}
        try:
            for title in titles:
                webui.post("/sdapi/v1/options", {"cross_attention_optimization": title})
                on(webui)
                masks[title] = levels(webui)[2]
        finally:
            webui.post("/sdapi/v1/options", {"cross_attention_optimization": "Automatic"})
        for title in titles[1:]:
            assert np.mean(masks[title] != masks["None"]) < 0.005, title

    def test_hires_fix_runs_both_passes(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", enable_hr=True, hr_scale=1.5, hr_upscaler="Latent", denoising_strength=0.7, steps=5)
        records = webui.get("/asyndm-probe/levels")
        shapes = {np.array(r["level"]).shape for r in records}
        assert shapes == {(1, 32, 32), (1, 48, 48)}
        nothing_left(webui)

    @pytest.mark.parametrize(("base", "refiner"), [("tiny-sd2", "tiny-sd2v"), ("tiny-sd2v", "tiny-sd1")])
    def test_refiner(self, webui: WebUI, base: str, refiner: str) -> None:
        """The hooks follow the model that takes over in the middle."""
        off(webui, "tiny-sd1")  # the server may still be loading its first model
        request = {"refiner_checkpoint": refiner, "refiner_switch_at": 0.5, "steps": 6}
        plain = off(webui, base, **request)
        slow = on(webui, base, **request)
        _, level, strength = levels(webui)
        assert len(level) == 6
        assert np.all((strength > 0).mean(axis=(1, 2, 3)) > 0.02)
        assert difference(plain.image, slow.image) > 5
        nothing_left(webui)
        zero = on(webui, base, {**SETTINGS, "strength": 0}, **request)
        assert difference(plain.image, zero.image) <= GREY_LEVELS
        assert off(webui, base, **request).png == plain.png
