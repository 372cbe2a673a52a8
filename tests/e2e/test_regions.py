"""Masks and regions in the real WebUI: the slow pixels are where they should be, read from the maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from asyndm_ext.region.mask_image import decode, slow_fraction

from .server import ApiError, Pictures, WebUI, to_base64
from .test_asyndm import GREY_LEVELS, PROMPT, asyndm, difference, levels, nothing_left, off, on

pytestmark = pytest.mark.xdist_group("webui")

INPAINT = {"denoising_strength": 0.75, "mask_blur": 0, "steps": 8, "inpainting_fill": 1, "inpaint_full_res": False}


def picture(width: int = 256, height: int = 256) -> np.ndarray:
    """Something to start img2img from: a gradient with a box."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    image[height // 3 : height // 2, width // 3 : width // 2] = (240, 220, 40)
    return image


def box(left: int, top: int, right: int, bottom: int, width: int = 256, height: int = 256) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def paint(
    webui: WebUI, mask: np.ndarray | None, settings: dict | None, model: str = "tiny-sd1", **request: object
) -> Pictures:
    """img2img inpainting, with AsynDM's settings or (None) without it."""
    scripts = {} if settings is None else asyndm(settings)
    size = {"width": 256, "height": 256, "prompt": PROMPT}
    return webui.img2img(picture(), model, mask=mask, **{**size, **INPAINT, **scripts, **request})


def slow_box(strength: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the slow pixels of one map, in latent pixels."""
    rows, columns = np.nonzero(strength > 0)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


class TestInpaintMask:
    """Scenario 15."""

    @pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM"])
    def test_the_painted_part_is_slow_and_only_that(self, webui: WebUI, sampler: str) -> None:
        mask = box(64, 96, 160, 192)
        plain = paint(webui, mask, None, sampler_name=sampler)
        slow = paint(webui, mask, {"region": "mask"}, sampler_name=sampler)
        nominal, level, strength = levels(webui)
        assert all(slow_box(one[0]) == (8, 12, 20, 24) for one in strength)
        assert np.unique(strength).tolist() == [0.0, 0.7]
        inside = np.zeros((32, 32), dtype=bool)
        inside[12:24, 8:20] = True
        middle = len(nominal) // 2
        assert np.all(level[middle, 0][inside] > nominal[middle])
        assert np.all(level[middle, 0][~inside] == nominal[middle])
        assert np.all(level[0] == nominal[0]), "it starts where the host does, in the middle of the schedule"
        assert nominal[0] < (14 if sampler != "DDIM" else 900)
        # What is not masked is the host's business, and stays exactly what it makes of it.
        assert difference(plain.image[mask == 0], slow.image[mask == 0]) == 0
        assert difference(plain.image, slow.image) > 5
        nothing_left(webui)
        zero = paint(webui, mask, {"region": "mask", "strength": 0}, sampler_name=sampler)
        assert difference(plain.image, zero.image) <= GREY_LEVELS

    def test_the_blur_is_a_soft_edge(self, webui: WebUI) -> None:
        paint(webui, box(64, 96, 160, 192), {"region": "mask"}, mask_blur=12)
        strength = levels(webui)[2][0, 0]
        assert strength[18, 14] == pytest.approx(0.7, abs=0.01)
        assert len(np.unique(strength.round(4))) > 8
        assert 0.2 < strength[18, 8] < 0.5, "half at the painted edge"
        assert strength[18, 4] < 0.02

    def test_inverted_by_the_host_and_by_the_setting(self, webui: WebUI) -> None:
        mask = box(64, 96, 160, 192)
        paint(webui, mask, {"region": "mask"}, inpainting_mask_invert=1)
        by_the_host = levels(webui)[2][0, 0]
        paint(webui, mask, {"region": "mask", "mask_invert": True})
        by_the_setting = levels(webui)[2][0, 0]
        assert np.array_equal(by_the_host, by_the_setting)
        assert by_the_host[18, 14] == 0 and by_the_host[0, 0] == 0.7

    def test_only_masked(self, webui: WebUI) -> None:
        """The picture is a cut-out around the mask; so is the map."""
        mask = box(96, 96, 160, 128)
        plain = paint(webui, mask, None, inpaint_full_res=True, inpaint_full_res_padding=16)
        slow = paint(webui, mask, {"region": "mask"}, inpaint_full_res=True, inpaint_full_res_padding=16)
        strength = levels(webui)[2][0, 0]
        left, top, right, bottom = slow_box(strength)
        # The cut-out is 96 x 96 (the mask and its padding, made square), 64 x 32 of it are masked.
        assert (right - left, bottom - top) == pytest.approx((32 * 64 / 96, 32 * 32 / 96), abs=1.5)
        assert (left + right) / 2 == pytest.approx(16, abs=1) and (top + bottom) / 2 == pytest.approx(16, abs=1)
        assert difference(plain.image[mask == 0], slow.image[mask == 0]) == 0
        assert difference(plain.image, slow.image) > 5

    @pytest.mark.parametrize("fill", [0, 1, 2, 3])
    def test_every_kind_of_masked_content(self, webui: WebUI, fill: int) -> None:
        mask = box(64, 96, 160, 192)
        plain = paint(webui, mask, None, inpainting_fill=fill)
        slow = paint(webui, mask, {"region": "mask"}, inpainting_fill=fill)
        assert slow_box(levels(webui)[2][0, 0]) == (8, 12, 20, 24)
        assert difference(plain.image[mask == 0], slow.image[mask == 0]) == 0
        assert difference(plain.image, slow.image) > 5

    def test_soft_inpainting(self, webui: WebUI) -> None:
        """Scenario 17."""
        soft = {"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
        mask = box(64, 96, 160, 192)
        results = []
        for settings in (None, {"region": "mask"}, {"region": "mask", "strength": 0}):
            scripts = {**soft, **({} if settings is None else {"AsynDM": {"args": [settings]}})}
            results.append(paint(webui, mask, None, mask_blur=8, alwayson_scripts=scripts))
        assert "Soft inpainting enabled: True" in results[1].infotext
        if difference(results[0].image, picture()) > 0:  # on Forge it gives the picture back as it was, without us too
            assert difference(results[0].image, results[1].image) > 5
        assert difference(results[0].image, results[2].image) <= GREY_LEVELS
        strength = webui.get("/asyndm-probe/levels")
        assert strength

    def test_resize_modes_move_the_mask_with_the_picture(self, webui: WebUI) -> None:
        """Crop and resize of a wide picture to a square one."""
        wide, mask = picture(384, 256), box(256, 96, 320, 160, width=384)
        request = {**INPAINT, **asyndm({"region": "mask"}), "width": 256, "height": 256, "prompt": PROMPT}
        for mode, expected in ((1, (24, 12, 32, 20)), (0, (21, 12, 27, 20))):
            webui.img2img(wide, "tiny-sd1", mask=mask, resize_mode=mode, **request)
            found = slow_box(levels(webui)[2][0, 0] > 0.35)
            assert found == pytest.approx(expected, abs=1), f"mode {mode}"

    def test_together_with_objects(self, webui: WebUI) -> None:
        mask = box(0, 0, 128, 256)
        settings = {"objects": "cat", "strength": 0.6}
        paint(webui, mask, settings)
        objects = levels(webui)[2] > 0
        paint(webui, mask, {**settings, "region": "objects and mask"})
        both = levels(webui)[2]
        assert np.all(both[:, :, :, 16:] == 0) and both[0].any()
        assert np.array_equal(both[0, 0, :, :16] > 0, objects[0, 0, :, :16])
        paint(webui, mask, {**settings, "region": "objects or mask"})
        either = levels(webui)[2]
        assert np.all(either[:, :, :, :16] == 0.6)
        assert np.array_equal(either[0, 0, :, 16:] > 0, objects[0, 0, :, 16:])

    @pytest.mark.parametrize("only_masked", [False, True])
    def test_a_batch_folder_of_different_sizes_carries_nothing_over(
        self, webui: WebUI, tmp_path: Path, only_masked
    ) -> None:
        """Scenario 18: one job object goes through pictures of different sizes."""
        webui.use_model("tiny-sd1")
        for folder in ("pictures", "masks", "output"):
            (tmp_path / folder).mkdir()
        cases = [
            ("a", 256, 320, (64, 64, 128, 128)),
            ("b", 320, 192, (192, 64, 256, 160)),
            ("c", 256, 256, (0, 0, 64, 64)),
        ]
        for name, width, height, edges in cases:
            Image.fromarray(picture(width, height)).save(tmp_path / "pictures" / f"{name}.png")
            Image.fromarray(box(*edges, width, height)).save(tmp_path / "masks" / f"{name}.png")
        body = {
            **{folder: str(tmp_path / folder) for folder in ("pictures", "masks", "output")},
            "prompt": PROMPT, "only_masked": only_masked, "settings": {"region": "mask"},
        }  # fmt: skip
        found = webui.post("/asyndm-probe/batch", body)
        assert [one["shape"] for one in found] == [[1, 1, height // 8, width // 8] for _, width, height, _ in cases]
        for one, (_, width, height, (left, top, right, bottom)) in zip(found, cases, strict=True):
            if only_masked:  # the cut-out is the mask, widened to the picture's shape
                across, down = one["box"][2] - one["box"][0], one["box"][3] - one["box"][1]
                assert across >= width // 8 - 1 or down >= height // 8 - 1
            else:
                assert one["box"] == [left // 8, top // 8, right // 8, bottom // 8]


class TestInpaintingCheckpoints:
    """Scenario 16."""

    @pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
    def test_inpainting(self, webui: WebUI, sampler: str) -> None:
        mask = box(64, 96, 160, 192)
        for settings in ({"region": "mask"}, {"objects": "cat"}):
            plain = paint(webui, mask, None, "tiny-inpaint", sampler_name=sampler)
            slow = paint(webui, mask, settings, "tiny-inpaint", sampler_name=sampler)
            assert difference(plain.image[mask == 0], slow.image[mask == 0]) == 0
            assert difference(plain.image, slow.image) > 3
            zero = paint(webui, mask, {**settings, "strength": 0}, "tiny-inpaint", sampler_name=sampler)
            assert difference(plain.image, zero.image) <= GREY_LEVELS
        nothing_left(webui)
        assert difference(off(webui, "tiny-inpaint").image, on(webui, "tiny-inpaint").image) > 3, "txt2img"

    def test_edit(self, webui: WebUI) -> None:
        """Instruct-pix2pix: three sets of rows."""
        if webui.kind == "forge":
            pytest.skip("Forge takes every SD1 checkpoint with further channels for an inpainting model")
        plain = paint(webui, None, None, "tiny-edit")
        slow = paint(webui, None, {"objects": "cat"}, "tiny-edit")
        strength = levels(webui)[2]
        assert np.all((strength > 0).mean(axis=(1, 2, 3)) > 0.02)
        assert difference(plain.image, slow.image) > 3
        zero = paint(webui, None, {"objects": "cat", "strength": 0}, "tiny-edit")
        assert difference(plain.image, zero.image) <= GREY_LEVELS


class TestGivenMask:
    """A mask in the settings: txt2img, hires fix, the repair recipe."""

    @pytest.mark.parametrize("size", [(256, 256), (512, 768), (832, 1216)])
    def test_txt2img_at_any_size(self, webui: WebUI, size: tuple[int, int]) -> None:
        """Scenario 10; the mask's own size does not matter."""
        width, height = size
        mask = to_base64(box(100, 100, 200, 250, 400, 400))
        on(webui, "tiny-sd1", {"region": "mask", "mask": mask}, width=width, height=height, steps=3)
        strength = levels(webui)[2]
        expected = 0.7 * slow_fraction(decode(mask), (height // 8, width // 8)).numpy()
        assert np.allclose(strength[0], expected[0]), "white where the mask is"
        left, top, right, bottom = slow_box(strength[0, 0] > 0.35)
        assert (left, right) == pytest.approx((width / 8 / 4, width / 8 / 2), abs=1)
        assert (top, bottom) == pytest.approx((height / 8 / 4, height / 8 * 5 / 8), abs=1)

    def test_repair_is_the_same_picture_with_a_part_held_back(self, webui: WebUI) -> None:
        """Section 6 of the paper: same prompt and seed, a mask over the distorted part."""
        plain = off(webui, "tiny-sd1", steps=10)
        mask = to_base64(box(176, 176, 256, 256))
        repaired = on(webui, "tiny-sd1", {"region": "mask", "mask": mask, "strength": 0.9}, steps=10)
        change = np.abs(plain.image.astype(int) - repaired.image.astype(int)).mean(axis=2)
        assert change[192:, 192:].mean() > 3 * change[:128, :128].mean(), "most of the change is under the mask"
        assert "AsynDM region: mask" in repaired.infotext and "AsynDM mask: " in repaired.infotext

    def test_in_img2img_it_goes_before_the_inpaint_mask_and_with_the_cut_out(self, webui: WebUI) -> None:
        given = to_base64(box(96, 96, 128, 128))
        paint(webui, box(64, 64, 192, 192), {"region": "mask", "mask": given})
        assert slow_box(levels(webui)[2][0, 0]) == (12, 12, 16, 16)
        request = {"inpaint_full_res": True, "inpaint_full_res_padding": 0}
        paint(webui, box(64, 64, 192, 192), {"region": "mask", "mask": given}, **request)
        assert slow_box(levels(webui)[2][0, 0]) == pytest.approx((8, 8, 16, 16), abs=1), "a cut-out of half the side"

    def test_all_white_is_everything_and_says_so(self, webui: WebUI) -> None:
        white = on(webui, "tiny-sd1", {"region": "mask", "mask": to_base64(box(0, 0, 64, 64, 64, 64))})
        everything = on(webui, "tiny-sd1", {"region": "everything"})
        assert difference(white.image, everything.image) == 0
        assert "AsynDM note: " in white.infotext and "covered the whole picture" in white.infotext
        assert "AsynDM note" not in everything.infotext

    def test_too_few_steps_to_lag_say_so(self, webui: WebUI) -> None:
        plain = off(webui, "tiny-sd1", steps=2)
        result = on(webui, "tiny-sd1", {"objects": "cat"}, steps=2)
        assert difference(plain.image, result.image) <= GREY_LEVELS
        assert 'AsynDM note: "no pixel lagged behind, so this is the ordinary picture"' in result.infotext

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"region": "mask"}, "needs a mask"),
            ({"region": "objects or mask"}, "needs a mask"),
            ({"region": "mask", "mask": "cat.png"}, "not a picture in base64"),
            ({"region": "mask", "mask": to_base64(box(0, 0, 0, 0))}, "black everywhere"),
            ({"region": "mask", "mask": to_base64(box(0, 0, 256, 256)), "mask_invert": True}, "white everywhere"),
            ({"objects": "cat:0.5, cat:0.6"}, "given twice"),
            ({"objects": "cat:1.5"}, "from 0 to 1"),
            ({"objects": "cat#2"}, "'cat' (number 2) was not found"),
        ],
    )
    def test_bad_input_is_a_message_and_no_picture(self, webui: WebUI, settings: dict, message: str) -> None:
        with pytest.raises(ApiError) as caught:
            on(webui, "tiny-sd1", settings)
        assert caught.value.status == 500
        assert message in caught.value.body.replace("\\", "")
        nothing_left(webui)


class TestObjects:
    def test_strengths_of_their_own(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", {"objects": "cat:0.8, sandwich:0.3"})
        strength = levels(webui)[2]
        assert set(np.unique(strength)) == {0.0, 0.3, 0.8}
        on(webui, "tiny-sd1", {"objects": "cat"})
        cat = levels(webui)[2][0] > 0
        assert np.array_equal(strength[0] == 0.8, cat), "the stronger wins where they overlap"
        found = on(webui, "tiny-sd1", {"objects": {"cat": 0.8, "sandwich": 0.3}})
        assert 'AsynDM objects: "cat:0.8, sandwich:0.3"' in found.infotext

    def test_the_same_word_twice(self, webui: WebUI) -> None:
        prompt = "a cat beside a cat"
        webui.use_model("tiny-sd1")
        columns = [
            webui.post("/asyndm-probe/columns", {"text": prompt, "name": name})["columns"]
            for name in ("cat#1", "cat#2", "cat", "cat#3")
        ]
        assert columns == [[2], [5], [2, 5], []]
        on(webui, settings={"objects": "cat#1:0.4, cat#2:0.8"}, prompt=prompt)
        assert {0.4, 0.8} <= set(np.unique(levels(webui)[2]))

    def test_soft_objects_and_areas(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", {"objects": "cat", "soft": True})
        assert len(np.unique(levels(webui)[2][0])) > 20
        on(webui, "tiny-sd1", {"objects": "cat", "max_area": 0.1})
        assert np.all((levels(webui)[2] > 0).mean(axis=(1, 2, 3)) <= 0.1)
        on(webui, "tiny-sd1", {"objects": "cat", "min_area": 0.8})
        assert np.all((levels(webui)[2] > 0).mean(axis=(1, 2, 3)) >= 0.8)
        on(webui, "tiny-sd1", {"objects": "cat", "smoothing": 2.0})
        smoothed = levels(webui)[2][0, 0] > 0
        on(webui, "tiny-sd1", {"objects": "cat"})
        plain = levels(webui)[2][0, 0] > 0
        edges = [np.abs(np.diff(mask.astype(int), axis=axis)).sum() for mask in (plain, smoothed) for axis in (0, 1)]
        assert sum(edges[2:]) < sum(edges[:2]), "fewer edges"

    def test_start_end_and_hold(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", {"objects": "cat", "start": 0.25, "end": 0.7}, steps=9)
        nominal, level, strength = levels(webui)
        slow = [bool(one.any()) for one in strength]
        assert slow == [False, False, True, True, True, True, False, False, False]
        assert np.all(level[2] == nominal[2]) and np.any(level[4] > nominal[4])
        assert np.all(level[-1] == nominal[-1])
        on(webui, "tiny-sd1", {"objects": "cat", "hold_after": 0.5}, steps=9)
        strength = levels(webui)[2]
        assert all(np.array_equal(strength[4], one) for one in strength[4:])
        assert any(not np.array_equal(strength[0], one) for one in strength[1:4])


class TestPromptsOfABatch:
    """Scenario 12: tokens are looked up per image."""

    prompts = ("a cat eating a sandwich", "a very old house with a garden and a dog")

    def batch(self, webui: WebUI, settings: dict) -> Pictures:
        scripts = {"AsynDM": {"args": [settings]}, "asyndm prompts": {"args": [list(self.prompts)]}}
        return webui.txt2img("tiny-sd1", prompt="x", batch_size=2, seed=5, alwayson_scripts=scripts)

    def test_each_image_has_its_own_objects(self, webui: WebUI) -> None:
        batch = self.batch(webui, {})
        maps = levels(webui)[2]
        found = [
            text.partition("AsynDM found: ")[2].partition('"')[2].partition('"')[0] for text in batch.info["infotexts"]
        ]
        assert found[-2:] == ["cat, sandwich", "house, garden, dog"]
        for i, prompt in enumerate(self.prompts):
            alone = on(webui, "tiny-sd1", {}, prompt=prompt, seed=5 + i)
            assert difference(batch.images[-2 + i], alone.image) <= GREY_LEVELS
            assert np.mean(levels(webui)[2][:, 0] != maps[:, i]) < 0.005

    def test_a_named_object_has_to_be_in_all_of_them(self, webui: WebUI) -> None:
        with pytest.raises(ApiError, match="'dog' was not found in the prompt 'a cat eating a sandwich'"):
            self.batch(webui, {"objects": "dog"})

    def test_a_style_s_words_are_words_of_the_prompt(self, webui: WebUI) -> None:
        found = on(webui, "tiny-sd1", {}, prompt="a cat", styles=["zoo"])
        assert 'AsynDM found: "cat, zebra"' in found.infotext


class TestFixedMask:
    @pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ SDE", "DDIM", "DPM++ 2M"])
    def test_a_plain_pass_before_leaves_no_trace(self, webui: WebUI, sampler: str) -> None:
        settings = {"objects": "cat, sandwich", "mask_source": "fixed"}
        plain = off(webui, "tiny-sd1", sampler_name=sampler)
        slow = on(webui, "tiny-sd1", settings, sampler_name=sampler)
        strength = levels(webui)[2]
        assert all(np.array_equal(strength[0], one) for one in strength), "one mask for all steps"
        assert 0.02 < (strength > 0).mean() < 0.98
        assert difference(plain.image, slow.image) > 5
        # The same noise is drawn again: at strength 0 it is the host's picture, ancestral samplers included.
        zero = on(webui, "tiny-sd1", {**settings, "strength": 0}, sampler_name=sampler)
        assert difference(plain.image, zero.image) <= GREY_LEVELS
        assert off(webui, "tiny-sd1", sampler_name=sampler).png == plain.png
        nothing_left(webui)

    def test_twice_the_model_calls(self, webui: WebUI) -> None:
        settings = {"objects": "cat", "mask_source": "fixed"}
        webui.txt2img("tiny-sd1", prompt=PROMPT, **asyndm(settings, probe={"record_sigmas": True}))
        assert len(webui.get("/asyndm-probe/last")["calls"]) == 12

    def test_an_error_in_the_plain_pass(self, webui: WebUI) -> None:
        before = off(webui, "tiny-sd1", sampler_name="Euler a")
        with pytest.raises(ApiError, match="fault in call 3"):
            scripts = asyndm({"objects": "cat", "mask_source": "fixed"}, probe={"raise_at": 3})
            webui.txt2img("tiny-sd1", prompt=PROMPT, sampler_name="Euler a", **scripts)
        nothing_left(webui)
        assert off(webui, "tiny-sd1", sampler_name="Euler a").png == before.png

    def test_with_a_refiner(self, webui: WebUI) -> None:
        """The plain pass stays with the base model; the real one switches."""
        off(webui, "tiny-sd1")
        request = {"refiner_checkpoint": "tiny-sd1", "refiner_switch_at": 0.5}
        on(webui, "tiny-sd2", {"objects": "cat", "mask_source": "fixed"}, **request)
        fixed = levels(webui)[2]
        on(webui, "tiny-sd2", {"objects": "cat", "mask_source": "fixed"})
        assert np.array_equal(fixed[0], levels(webui)[2][0])
        plain = off(webui, "tiny-sd2", **request)
        zero = on(webui, "tiny-sd2", {"objects": "cat", "mask_source": "fixed", "strength": 0}, **request)
        assert difference(plain.image, zero.image) <= GREY_LEVELS


class TestHires:
    """Scenario 13."""

    request: ClassVar[dict] = {
        "enable_hr": True,
        "hr_scale": 2,
        "denoising_strength": 0.7,
        "width": 128,
        "height": 128,
        "steps": 5,
    }

    @pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
    @pytest.mark.parametrize(("hires", "sides"), [("both", {16, 32}), ("first", {16}), ("hires", {32})])
    def test_passes(self, webui: WebUI, upscaler: str, hires: str, sides: set[int]) -> None:
        request = {**self.request, "hr_upscaler": upscaler, "hr_sampler_name": "DPM++ 2M", "hr_second_pass_steps": 4}
        plain = off(webui, "tiny-sd1", **request)
        mask = to_base64(box(0, 0, 64, 128, 128, 128))
        slow = on(webui, "tiny-sd1", {"region": "mask", "mask": mask, "hires": hires}, **request)
        records = webui.get("/asyndm-probe/levels")
        assert {len(record["level"][0]) for record in records} == sides
        for record in records:
            strength = np.array(record["strength"])[0]
            half = strength.shape[1] // 2
            assert np.all(strength[:, :half] == 0.7) and np.all(strength[:, half:] == 0)
        assert difference(plain.image, slow.image) > 5
        nothing_left(webui)
        zero = on(webui, "tiny-sd1", {"objects": "cat", "strength": 0, "hires": hires}, **request)
        assert difference(plain.image, zero.image) <= GREY_LEVELS

    def test_its_own_prompt_and_objects(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", {"hires": "hires"}, hr_prompt="a dog on a bike", hr_upscaler="Latent", **self.request)
        assert np.all((np.array(webui.get("/asyndm-probe/levels")[-2]["strength"]) > 0).mean() > 0.02)

    @pytest.mark.parametrize("hires", ["both", "hires"])
    @pytest.mark.parametrize(
        ("settings", "hr_prompt", "message"),
        [
            ({"objects": "cat"}, "a dog", "'cat' was not found in the hires prompt 'a dog'"),
            ({"objects": "cat#2"}, "a cat", r"'cat' \(number 2\) was not found in the hires prompt 'a cat'; it stands"),
            ({}, "best quality", "found no object in the hires prompt 'best quality'"),
            ({}, "ein Hund auf einer Wiese", "English prompts only, and the hires prompt"),
        ],
    )
    def test_a_hires_prompt_without_the_object_is_told_before_the_first_pass(
        self, webui: WebUI, settings: dict, hr_prompt: str, message: str, hires: str
    ) -> None:
        """Scenario 51: not a single step is made."""
        request = {"hr_upscaler": "Latent", "prompt": "a cat and a cat", **self.request}
        script = asyndm({**settings, "hires": hires}, probe={"record_sigmas": True})
        with pytest.raises(ApiError, match=message):
            webui.txt2img("tiny-sd1", hr_prompt=hr_prompt, **request, **script)
        assert webui.get("/asyndm-probe/last")["calls"] == []
        # In the first pass alone the hires prompt does not matter.
        result = on(webui, "tiny-sd1", {**settings, "hires": "first"}, hr_prompt=hr_prompt, **request)
        assert "AsynDM note" not in result.infotext

    def test_what_was_found_in_both_passes(self, webui: WebUI) -> None:
        request = {"hr_upscaler": "Latent", "prompt": "a cat on a mat", **self.request}
        for hires, hr_prompt, expected in (
            ("both", "a dog on a mat", "cat, mat; hires pass: dog, mat"),
            ("both", "", "cat, mat"),
            ("first", "a dog", "cat, mat"),
            ("hires", "a dog", "hires pass: dog"),
        ):
            result = on(webui, "tiny-sd1", {"hires": hires}, hr_prompt=hr_prompt, **request)
            found = re.search(r'AsynDM found: (?:"([^"]*)"|([^,]*))', result.infotext)
            assert found is not None and (found[1] or found[2]) == expected

    def test_set_to_a_pass_that_there_is_not(self, webui: WebUI) -> None:
        plain = off(webui, "tiny-sd1")
        result = on(webui, "tiny-sd1", {"objects": "cat", "hires": "hires"})
        assert difference(plain.image, result.image) == 0
        assert 'AsynDM: "not applied: it is set to the hires pass, and this job has none"' in result.infotext
        assert "AsynDM strength" not in result.infotext


class TestImg2img:
    @pytest.mark.parametrize("denoising", [0.3, 0.75, 1.0])
    @pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
    def test_starts_at_the_truncated_sigma(self, webui: WebUI, sampler: str, denoising: float) -> None:
        """Scenario 14: as many steps as the host's."""
        request = {"sampler_name": sampler, "denoising_strength": denoising, "steps": 10, "inpainting_fill": 1}
        counts = []
        for settings in ({"enabled": False}, {"objects": "cat"}):
            scripts = asyndm(settings, probe={"record_sigmas": True})
            webui.img2img(picture(), "tiny-sd1", prompt=PROMPT, **request, **scripts)
            counts.append(len(webui.get("/asyndm-probe/last")["calls"]))
        assert counts[0] == counts[1]
        nominal, level, _ = levels(webui)
        assert np.all(level[0] == nominal[0])
        assert np.all(np.diff(level, axis=0) <= 1e-9)
        plain = webui.img2img(picture(), "tiny-sd1", prompt=PROMPT, **request)
        zero = webui.img2img(
            picture(), "tiny-sd1", prompt=PROMPT, **request, **asyndm({"objects": "cat", "strength": 0})
        )
        assert difference(plain.image, zero.image) <= GREY_LEVELS

    def test_no_step_at_all_says_so(self, webui: WebUI) -> None:
        """So little denoising strength that DDIM makes no step."""
        request = {"sampler_name": "DDIM", "denoising_strength": 0.05, "steps": 10, "prompt": PROMPT}
        plain = webui.img2img(picture(), "tiny-sd1", **request)
        result = webui.img2img(picture(), "tiny-sd1", **request, **asyndm({"objects": "cat"}))
        assert difference(plain.image, result.image) <= GREY_LEVELS
        assert "no pixel lagged behind" in result.infotext


class TestADetailer:
    """Scenario 32: its inner passes are jobs with a mark on them."""

    def test_left_alone_unless_asked(self, webui: WebUI) -> None:
        mask = box(64, 96, 160, 192)
        plain = paint(webui, mask, None)
        scripts = {"AsynDM": {"args": [{"region": "mask"}]}, "asyndm inner pass": {"args": [True]}}
        inner = paint(webui, mask, None, alwayson_scripts=scripts)
        assert inner.png == plain.png and webui.get("/asyndm-probe/levels") == []
        scripts["AsynDM"] = {"args": [{"region": "mask", "adetailer": True}]}
        asked = paint(webui, mask, None, alwayson_scripts=scripts)
        assert difference(plain.image, asked.image) > 5
        assert slow_box(levels(webui)[2][0, 0]) == (8, 12, 20, 24)
