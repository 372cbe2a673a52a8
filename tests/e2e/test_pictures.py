"""The pictures beside the results, over the API of the real WebUI."""

from __future__ import annotations

import numpy as np
import pytest

from .server import WebUI
from .test_asyndm import difference, on
from .test_regions import box, paint

pytestmark = pytest.mark.xdist_group("webui")

SMALL = {"width": 128, "height": 192, "steps": 4}


def test_they_follow_the_results_of_all_batches(webui: WebUI) -> None:
    """Scenario 44: the right number, and the results are what they are without."""
    batches = {**SMALL, "batch_size": 2, "n_iter": 2}
    without = on(webui, "tiny-sd1", {}, **batches)
    shown = on(webui, "tiny-sd1", {"show": "all"}, **batches)
    assert len(without.images) == 4 and len(shown.images) == 4 + 4 * 3
    for alone, beside in zip(without.images, shown.images[:4], strict=True):
        assert difference(alone, beside) == 0
    assert shown.info["index_of_first_image"] == 0
    seeds = [text.split("Seed: ")[1].split(",")[0] for text in shown.info["infotexts"]]
    assert seeds == ["1", "2", "3", "4", *(seed for seed in "1234" for _ in range(3))]
    mask, clock, strip = shown.images[4:7]
    assert mask.shape[1] == clock.shape[1] == 128 and mask.shape[0] > 192 and strip.shape[1] > 4 * 128
    assert difference(shown.images[4], shown.images[7]) > 0, "each image has its own"


def test_the_mask_lies_over_the_cut_out_that_was_sampled(webui: WebUI) -> None:
    """Inpainting only the masked part: the picture is of what was sampled, not of the whole."""
    mask = box(96, 96, 160, 128)
    shown = paint(
        webui, mask, {"region": "mask", "show": "mask"}, inpaint_full_res=True, inpaint_full_res_padding=16
    ).images
    assert len(shown) == 2
    slow = shown[1][:256].astype(int)
    orange = slow[..., 0] - slow[..., 2] > 60
    rows, columns = np.nonzero(orange)
    # 64 x 32 of the 96 x 96 that were cut out and enlarged to 256 x 256.
    assert columns.max() - columns.min() == pytest.approx(256 * 64 / 96, abs=12)
    assert rows.max() - rows.min() == pytest.approx(256 * 32 / 96, abs=12)


def test_a_script_s_grid_is_made_of_results_only(webui: WebUI) -> None:
    request = {**SMALL, "prompt": "a cat|red", "script_name": "prompt matrix"}
    arguments = {"script_args": [False, False, "positive", "comma", 0]}
    plain = on(webui, "tiny-sd1", {"region": "everything"}, **request, **arguments)
    shown = on(webui, "tiny-sd1", {"region": "everything", "show": "all"}, **request, **arguments)
    assert len(shown.images) == len(plain.images) == 3, "the grid and two pictures"
    assert all(difference(a, b) == 0 for a, b in zip(plain.images, shown.images, strict=True))


def test_hires_fix(webui: WebUI) -> None:
    request = {**SMALL, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    shown = on(webui, "tiny-sd1", {"show": "mask"}, **request).images
    assert len(shown) == 2
    assert shown[0].shape[:2] == (384, 256) and shown[1].shape[1] == 256
