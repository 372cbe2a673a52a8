"""What only Forge has: transformers beside SD3, its own extensions, its ways to run the network."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from .server import PROBE, REPOSITORY, ApiError, WebUI, to_base64
from .test_asyndm import GREY_LEVELS, PROMPT, SETTINGS, asyndm, difference, levels, nothing_left, off, on
from .test_regions import box, paint, picture
from .test_samplers import ELSEWHERE, row

TRANSFORMERS = ("tiny-sd3", "tiny-sd35", "tiny-flux", "tiny-chroma")
SAMPLERS = ("Euler", "DPM++ 2M", "Euler a", "DDIM")
# With Automatic, Forge makes black pictures of these models with some samplers.
SIMPLE = {"scheduler": "Simple"}
pytestmark = pytest.mark.xdist_group("webui")


@pytest.fixture(autouse=True)
def forge(webui: WebUI) -> None:
    if not webui.about.is_forge:
        pytest.skip("this is no Forge")


@pytest.mark.parametrize("model", TRANSFORMERS)
class TestTransformers:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_off_on_and_off_again(self, plain_webui: WebUI, webui: WebUI, model: str, sampler: str) -> None:
        request = {**SIMPLE, "sampler_name": sampler}
        before = off(webui, model, **request)
        assert before.png == off(plain_webui, model, **request).png
        first = on(webui, model, **request)
        nominal, level, strength = levels(webui)
        assert difference(first.image, before.image) > 10
        assert first.png == on(webui, model, **request).png, "same request, same pixels"
        nothing_left(webui)
        assert off(webui, model, **request).png == before.png

        assert level.shape[1:] == (1, 32, 32)
        assert np.all(level[0] == nominal[0])
        assert np.all(np.diff(level, axis=0) <= 1e-9), "a pixel's noise level rose"
        assert np.all(level >= nominal[:, None, None, None] - 1e-9), "no pixel runs ahead of the host"
        slow = (strength > 0).mean(axis=(1, 2, 3))
        assert np.all((slow > 0.02) & (slow < 0.98)), f"fraction of slow pixels {slow}"
        assert len(np.unique(level[2:-1])) > 3, "the levels differ from pixel to pixel"
        for corner in (level[:, :, ::2, ::2], level[:, :, ::2, 1::2], level[:, :, 1::2, ::2]):
            assert np.array_equal(corner, level[:, :, 1::2, 1::2]), "the pixels of a token share their level"

        zero = on(webui, model, {**SETTINGS, "strength": 0}, **request)
        assert difference(before.image, zero.image) <= GREY_LEVELS

    def test_everything_is_one_level_per_step(self, webui: WebUI, model: str) -> None:
        picture = on(webui, model, {"region": "everything", "strength": 0.9}, **SIMPLE)
        nominal, level, _ = levels(webui)
        assert np.all(level == level[:, :, :1, :1])
        assert np.all(level[1:-1] > nominal[1:-1, None, None, None])
        assert difference(picture.image, off(webui, model, **SIMPLE).image) > 5

    def test_images_of_a_batch_equal_their_seeds_alone(self, webui: WebUI, model: str) -> None:
        request = {**SIMPLE, "width": 384}
        batch = on(webui, model, batch_size=2, seed=10, **request)
        _, _, strength = levels(webui)
        assert strength.shape[1:] == (2, 32, 48)
        assert not np.array_equal(strength[-1, 0], strength[-1, 1])
        for i, image in enumerate(batch.images[-2:]):
            assert difference(image, on(webui, model, seed=10 + i, **request).image) <= GREY_LEVELS

    def test_img2img_and_a_painted_mask(self, webui: WebUI, model: str) -> None:
        """A mask of odd latent edges: every token is one level nevertheless."""
        mask = box(72, 88, 168, 200)
        request = {"scheduler": "Simple", "steps": 8}
        plain = paint(webui, mask, None, model, **request)
        slow = paint(webui, mask, {"region": "mask"}, model, **request)
        nominal, level, strength = levels(webui)
        assert np.all(level[0] == nominal[0]) and nominal[0] < 1
        assert np.array_equal(strength[:, :, ::2, ::2], strength[:, :, 1::2, 1::2])
        assert difference(plain.image, slow.image) > 5
        assert difference(plain.image[mask == 0], slow.image[mask == 0]) <= GREY_LEVELS
        zero = paint(webui, mask, {"region": "mask", "strength": 0}, model, **request)
        assert difference(plain.image, zero.image) <= GREY_LEVELS

    def test_hires_fix_at_a_size_that_is_padded(self, webui: WebUI, model: str) -> None:
        """Flux pads an odd latent to whole patches; SD3 takes even ones only."""
        size = 200 if model in ("tiny-flux", "tiny-chroma") else 192
        hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
        drawn = on(webui, model, width=size, height=256, steps=5, **hires, **SIMPLE)
        records = webui.get("/asyndm-probe/levels")
        widths = {len(record["level"][0][0]) for record in records}
        if webui.kind == "ersatz":  # rounds up to 16 pixels
            assert widths == {-(-size // 16) * 2, drawn.image.shape[1] // 8}
        else:
            assert widths == {webui.about.side(side) // 8 for side in (size, 1.5 * size)}
        nothing_left(webui)

    @pytest.mark.parametrize("fault", ["raise_at", "nan_at", "interrupt_at"])
    def test_a_fault_leaves_nothing_behind(self, webui: WebUI, model: str, fault: str) -> None:
        reference = off(webui, model, **SIMPLE)
        before = webui.get("/asyndm-probe/state")
        request = {"prompt": PROMPT, **SIMPLE, **asyndm(SETTINGS, probe={fault: 3})}
        if fault == "interrupt_at":
            assert webui.txt2img(**request).image.std() > 5
        else:
            with pytest.raises(ApiError) as caught:
                webui.txt2img(**request)
            assert caught.value.status == 500
        after = webui.get("/asyndm-probe/state")
        for key in ("model", "patcher", "functions", "global_hooks", "callbacks", "samplers"):
            assert after[key] == before[key], key
        nothing_left(webui)
        assert off(webui, model, **SIMPLE).png == reference.png


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_every_sampler_of_transformers(webui: WebUI, model: str, capsys: pytest.CaptureFixture) -> None:
    names = [entry["name"] for entry in webui.get("/sdapi/v1/samplers")]
    refused = {ELSEWHERE, "UniPC"} if model == "tiny-flux" else {ELSEWHERE}
    table = {name: row(webui, model, name, scheduler="Simple") for name in names if name not in refused}
    with capsys.disabled():
        print(f"\n| sampler | {model}: on | {model}: strength 0 |\n|---|---|---|")
        for name, cells in table.items():
            print(f"| {name} | {cells[0]} | {cells[1]} |")
    for name, (changed, zero) in table.items():
        assert isinstance(changed, int) and changed > 5, f"{name}: {changed}"
        assert not isinstance(zero, int) or zero <= GREY_LEVELS, name


def test_switching_between_kinds_of_models(webui: WebUI) -> None:
    first = on(webui, "tiny-sd1")
    for model in ("tiny-flux", "tiny-sdxl", "tiny-sd3"):
        on(webui, model, **SIMPLE)
        nothing_left(webui)
    assert on(webui, "tiny-sd1").png == first.png


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("a cat eating a sandwich", "cat", ["▁cat"]),
        ("a (Cat:1.3), a catnip", "cat", ["▁Cat"]),
        ('the "cat"', "cat", ["cat"]),
        ("a (red:1.2) hat", "red hat", ["▁red", "▁", "hat"]),
        ("a cat and another cat", "cat#2", ["▁cat"]),
        ("a quokka riding a bike", "quokka", None),
        ("concatenation", "cat", []),
    ],
)
def test_columns_of_words_that_t5_reads(webui: WebUI, text: str, name: str, words: list[str] | None) -> None:
    webui.use_model("tiny-flux")
    answer = webui.post("/asyndm-probe/columns", {"text": text, "name": name})
    found = [answer["tokens"][0][column] for column in answer["columns"]]
    spelled = "".join(found).replace("▁", "").lower()
    assert spelled == ("" if words == [] else name.partition("#")[0].replace(" ", "").lower()), found
    if words is None:
        assert len(found) > 1, "a word of several pieces: all of them"
    if "#2" in name:
        assert answer["columns"] == [answer["tokens"][0].index("▁another") + 1]


class TestNotApplied:
    """What cannot be done goes on without, and says so."""

    @pytest.mark.parametrize(
        ("model", "request_", "scripts", "reason"),
        [
            ("tiny-flux", {"sampler_name": "UniPC"}, {}, "takes Flux's timesteps|has no meaning for the kind of model"),
            ("tiny-sd1", {}, {"MultiDiffusion Integrated": {"args": [True]}}, "draws the picture in tiles"),
        ],
    )
    def test_note(self, webui: WebUI, model: str, request_: dict, scripts: dict, reason: str) -> None:
        request = {"prompt": PROMPT, **SIMPLE, **request_}
        plain = webui.txt2img(model, **request, alwayson_scripts=scripts)
        asked = webui.txt2img(model, **request, alwayson_scripts={**scripts, **asyndm(SETTINGS)["alwayson_scripts"]})
        assert difference(plain.image, asked.image) == 0
        assert re.search(rf'AsynDM: "not applied: .*({reason})', asked.infotext)
        assert "AsynDM strength" not in asked.infotext
        nothing_left(webui)

    def test_tiles_in_img2img(self, webui: WebUI) -> None:
        """Where Forge Neo has them alone."""
        source = picture(320, 320)
        tiles = {"MultiDiffusion Integrated": {"args": [True, "MultiDiffusion", 256, 256, 64, 1]}}
        request = {"prompt": PROMPT, "width": 320, "height": 320, "denoising_strength": 0.8}
        without = webui.img2img(source, "tiny-sd1", **request)
        plain = webui.img2img(source, **request, alwayson_scripts=tiles)
        assert difference(without.image, plain.image) > 2, "the tiles can be seen"
        asked = webui.img2img(source, **request, alwayson_scripts={**tiles, **asyndm(SETTINGS)["alwayson_scripts"]})
        assert difference(plain.image, asked.image) == 0
        assert re.search('AsynDM: "not applied: .*draws the picture in tiles', asked.infotext)
        nothing_left(webui)


FREEU = "FreeU Integrated (SD 1.x, SD 2.x, SDXL)"
SAG = "SelfAttentionGuidance Integrated (SD 1.x, SD 2.x, SDXL)"
DYNAMIC = "DynamicThresholding (CFG-Fix) Integrated"
EXTENSIONS = {
    "FreeU": {FREEU: {"args": [True, 1.3, 1.4, 0.9, 0.2]}},
    "PAG": {"PerturbedAttentionGuidance Integrated": {"args": [True, 3.0]}},
    "SAG": {SAG: {"args": [True, 0.5]}},
    "dynamic thresholding": {DYNAMIC: {"args": [True, 4.0, 0.95]}},
    "latent modifier": {"LatentModifier Integrated": {"args": [True, 5.0]}},
    "Kohya HRFix": {"Kohya HRFix Integrated": {"args": [True]}},
    "StyleAlign": {"StyleAlign Integrated": {"args": [True]}},
    "another wrapper": {"asyndm neighbour": {"args": ["wrapper"]}},
    "halves one after the other": {"asyndm neighbour": {"args": ["slices"]}},
}


class TestTogether:
    """Scenario 33: with what Forge brings along, and with what others put into its slots."""

    @pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_extension(self, webui: WebUI, extension: str, sampler: str) -> None:
        request = {"prompt": PROMPT, "sampler_name": sampler, "batch_size": 2}
        script = EXTENSIONS[extension]

        def both(settings: dict) -> np.ndarray:
            scripts = {**script, **asyndm(settings)["alwayson_scripts"]}
            return np.stack(webui.txt2img("tiny-sd1", **request, alwayson_scripts=scripts).images)

        alone = np.stack(webui.txt2img("tiny-sd1", **request, alwayson_scripts=script).images)
        together = both(SETTINGS)
        strength = levels(webui)[2]
        assert np.all((strength > 0).mean(axis=(1, 2, 3)) > 0.02)
        assert not np.array_equal(strength[-1, 0], strength[-1, 1])
        assert difference(alone, together) > 5, "AsynDM does something"
        without = np.stack(on(webui, "tiny-sd1", sampler_name=sampler, batch_size=2).images)
        if extension in ("another wrapper", "halves one after the other"):
            assert difference(together, without) <= GREY_LEVELS, "they change nothing"
        else:
            assert difference(together, without) > 0, "so does the other"
        nothing_left(webui)
        assert difference(alone, both({**SETTINGS, "strength": 0})) <= GREY_LEVELS
        again = np.stack(webui.txt2img("tiny-sd1", **request, alwayson_scripts=script).images)
        assert np.array_equal(alone, again)

    def test_lora_on_and_off(self, webui: WebUI) -> None:
        write_lora(webui)
        tagged = {"prompt": f"{PROMPT} <lora:tiny-lora:1>"}
        plain, slow = off(webui, "tiny-sd1"), on(webui, "tiny-sd1")
        loaded = off(webui, "tiny-sd1", **tagged)
        assert difference(plain.image, loaded.image) > 5, "the LoRA does something"
        both = on(webui, "tiny-sd1", **tagged)
        assert difference(both.image, loaded.image) > 5 and difference(both.image, slow.image) > 5
        zero = on(webui, "tiny-sd1", {**SETTINGS, "strength": 0}, **tagged)
        assert difference(loaded.image, zero.image) <= GREY_LEVELS
        assert on(webui, "tiny-sd1").png == slow.png
        assert off(webui, "tiny-sd1").png == plain.png

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_controlnet(self, webui: WebUI, batch_size: int) -> None:
        """Scenario 31: the control net gets the latent at unit variance, pixel by pixel."""
        models = webui.get("/controlnet/model_list")["model_list"]
        name = next(entry for entry in models if entry.startswith("tiny-control"))
        edges = to_base64(np.repeat(box(64, 96, 160, 192)[:, :, None], 3, axis=2))
        unit = {"enabled": True, "module": "None", "model": name, "image": edges, "weight": 1.0}
        script = {"ControlNet": {"args": [unit]}}
        request = {"prompt": PROMPT, "sampler_name": "Euler", "batch_size": batch_size}

        def picture(settings: dict | None) -> np.ndarray:
            scripts = {**script, **({} if settings is None else asyndm(settings)["alwayson_scripts"])}
            answer = webui.txt2img("tiny-sd1", **request, alwayson_scripts=scripts)
            return np.stack(answer.images[:batch_size])

        alone = picture(None)
        plain = webui.get("/asyndm-probe/control")
        together = picture(SETTINGS)
        slow = webui.get("/asyndm-probe/control")
        assert difference(alone, together) > 5
        assert difference(alone, picture({**SETTINGS, "strength": 0})) <= GREY_LEVELS
        assert difference(alone, np.stack(off(webui, "tiny-sd1", **request).images[:batch_size])) > 5, (
            "it does something"
        )
        # With this model the spread grows from step to step. Slow pixels are behind; scaled by the host's sigma instead
        # of their own, which is higher, they would be ahead.
        assert plain[0] == slow[0] == pytest.approx(1, abs=0.05)
        assert all(ours < theirs for ours, theirs in zip(slow[1:4], plain[1:4], strict=True)), (slow, plain)
        nothing_left(webui)

    @pytest.mark.parametrize("batch_size", [1, 2])
    @pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
    def test_ip_adapter(self, webui: WebUI, sampler: str, batch_size: int) -> None:
        """It takes the place of all cross-attentions; our masks are of the text's keys, which it leaves as they are."""
        names = webui.get("/controlnet/model_list")["model_list"]
        name = next(entry for entry in names if entry.startswith("tiny-ip-adapter"))
        request = {"prompt": PROMPT, "sampler_name": sampler, "batch_size": batch_size}

        def picture(settings: dict | None, left: int = 64) -> np.ndarray:
            seen = to_base64(np.repeat(box(left, 96, left + 96, 192)[:, :, None], 3, axis=2))
            unit = {"enabled": True, "module": "asyndm IP-Adapter", "model": name, "image": seen, "weight": 0.8}
            scripts = {"ControlNet": {"args": [unit]}}
            scripts.update({} if settings is None else asyndm(settings)["alwayson_scripts"])
            answer = webui.txt2img("tiny-sd1", **request, alwayson_scripts=scripts)
            return np.stack(answer.images[:batch_size])

        alone = picture(None)
        without = np.stack(off(webui, "tiny-sd1", sampler_name=sampler, batch_size=batch_size).images[:batch_size])
        assert difference(alone, without) > 5, "it does something"
        together = picture(SETTINGS)
        strength = levels(webui)[2]
        slow = (strength > 0).mean(axis=(1, 2, 3))
        assert np.all((slow > 0.02) & (slow < 0.98)), f"fraction of slow pixels {slow}"
        assert difference(alone, together) > 5
        assert difference(together, picture(SETTINGS, left=0)) > 0, "and so does its picture"
        nothing_left(webui)
        assert difference(alone, picture({**SETTINGS, "strength": 0})) <= GREY_LEVELS
        # In the first step the latent is the same noise with and without it, and its part is small: so are the masks.
        on(webui, "tiny-sd1", sampler_name=sampler, batch_size=batch_size)
        agreement = np.mean((levels(webui)[2][0] > 0) == (strength[0] > 0))
        assert agreement > 0.5, agreement
        assert np.array_equal(alone, picture(None))


def write_lora(webui: WebUI) -> None:
    """Two rows for some projections of the tiny SD1, large enough to be seen."""
    import torch
    from safetensors.torch import save_file

    folder = webui.folder / "models" / "Lora"
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for block, width in (("input_blocks_1_1", 32), ("input_blocks_4_1", 64), ("output_blocks_9_1", 32)):
        for layer, source in (("attn1_to_q", width), ("attn2_to_k", 64), ("attn2_to_v", 64)):
            name = f"lora_unet_{block}_transformer_blocks_0_{layer}"
            weights[f"{name}.lora_up.weight"] = torch.randn(width, 2, generator=generator)
            weights[f"{name}.lora_down.weight"] = torch.randn(2, source, generator=generator)
            weights[f"{name}.alpha"] = torch.tensor(2.0)
    save_file(weights, folder / "tiny-lora.safetensors")
    webui.post("/sdapi/v1/refresh-loras", {})


def test_every_attention_gives_the_same_masks(webui: WebUI, launch: Callable[..., WebUI]) -> None:
    """Scenario 35: Forge chooses its attention when it starts."""
    if webui.kind == "neo":
        pytest.skip("Forge Neo's other attentions are packages for a GPU; on a CPU it has torch's alone")
    on(webui, "tiny-sd1")
    masks = {"pytorch": levels(webui)[2]}
    for name in ("split", "quad"):
        server = launch(
            f"attention-{name}",
            extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE},
            flags=[f"--attention-{name}"],
        )
        on(server, "tiny-sd1")
        masks[name] = levels(server)[2]
        on(server, "tiny-flux", **SIMPLE)
        server.stop()
    for name, mask in masks.items():
        assert np.mean(mask != masks["pytorch"]) < 0.005, name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(
    webui: WebUI,
    launch: Callable[..., WebUI],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    capsys: pytest.CaptureFixture,
) -> None:
    """Scenario 36: weights in half precision and a network that computes in it; ours is float32 or better."""
    monkeypatch.setenv("ASYNDM_E2E_FORGE_DTYPE", dtype)
    server = launch(
        f"forge-{dtype}",
        extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE},
        flags=[webui.about.unet_in.format("bf16" if dtype == "bfloat16" else "fp16")],
        without=webui.about.unet_in_full,
    )
    for model, sampler in (("tiny-sd1", "Euler"), ("tiny-flux", "DPM++ 2M"), ("tiny-sd3", "DDIM")):
        if model not in webui.about.models:
            continue
        request = {"sampler_name": sampler, **SIMPLE}
        before = off(server, model, **request)
        slow = on(server, model, **request)
        nominal, level, strength = levels(server)
        probed = server.txt2img(model, prompt=PROMPT, **request, **asyndm(SETTINGS, probe={}))
        assert {call["dtype"] for call in server.get("/asyndm-probe/last")["calls"]} == {f"torch.{dtype}"}
        assert probed.png == slow.png
        assert difference(before.image, slow.image) > 10 and slow.image.std() > 5
        moved = (strength > 0).mean(axis=(1, 2, 3))
        assert np.all((moved > 0.02) & (moved < 0.98)), f"fraction of slow pixels {moved}"
        # Not rounded to the network's precision: the levels are those of a network in float32, but for the masks.
        on(webui, model, **request)
        full = levels(webui)
        assert np.allclose(nominal, full[0], rtol=1e-6)
        same = (strength == full[2]).all(axis=0)
        assert same.mean() > 0.5 and np.allclose(level[:, same], full[1][:, same], rtol=1e-6)
        zero = on(server, model, {**SETTINGS, "strength": 0}, **request)
        faint = on(server, model, {**SETTINGS, "strength": 1e-4}, **request)
        with capsys.disabled():
            differences = [difference(before.image, one.image) for one in (zero, faint)]
            print(f"\n{model}, {sampler}, {dtype}: strengths 0 and 0.0001 differ by {differences} grey levels from off")
        assert difference(before.image, zero.image) <= GREY_LEVELS
    server.stop()
