"""Objects in turn, and regions from guidance, in the real WebUI."""

from __future__ import annotations

import re

import numpy as np
import pytest

from .server import ApiError, WebUI
from .test_asyndm import GREY_LEVELS, difference, levels, nothing_left, off, on

pytestmark = pytest.mark.xdist_group("webui")

PROMPT = "a cat eating a sandwich"
SAMPLERS = ("Euler", "DPM++ 2M", "DDIM")


def slow(webui: WebUI) -> np.ndarray:
    """Which pixels are, over the steps ``(steps,H,W)``."""
    return levels(webui)[2][:, 0] > 0


class TestInTurn:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_the_first_one_catches_up_while_the_second_one_waits(self, webui: WebUI, sampler: str) -> None:
        request = {"prompt": PROMPT, "sampler_name": sampler, "steps": 12}
        plain = off(webui, "tiny-sd1", **request)
        together = on(webui, "tiny-sd1", {"objects": "cat, sandwich"}, **request)
        settings = {"objects": "sandwich, cat", "order": "in turn"}  # as in the prompt: the cat is drawn first
        pictures = {}
        for order in ("in turn", "in turn, last first"):
            pictures[order] = on(webui, "tiny-sd1", {**settings, "order": order}, **request)
            nominal, level, strength = levels(webui)
            assert np.all(level >= nominal[:, None, None, None] - 1e-9), "no pixel runs ahead of the host"
            assert np.all(np.diff(level, axis=0) <= 1e-9), "a pixel's noise level rose"
            ends = (strength > 0).reshape(len(strength), -1).any(axis=1)
            count = len(nominal)
            assert ends[: round(count * 0.6)].all() and not ends[-(count // 4) :].any(), "the last turn ends at 2/3"
            assert f'AsynDM order: "{order}"' in pictures[order].infotext or (
                "," not in order and f"AsynDM order: {order}," in pictures[order].infotext
            )
        own = on(webui, "tiny-sd1", {"objects": "cat > sandwich"}, **request)
        assert own.png != together.png
        assert difference(own.image, pictures["in turn"].image) <= GREY_LEVELS, "the same order, written"
        assert "AsynDM objects: cat > sandwich" in own.infotext
        assert difference(pictures["in turn"].image, pictures["in turn, last first"].image) > 2
        assert min(difference(one.image, plain.image) for one in pictures.values()) > 5
        nothing_left(webui)
        assert off(webui, "tiny-sd1", **request).png == plain.png

    def test_objects_that_share_their_region_are_told_where_they_differ(self, webui: WebUI) -> None:
        whole = {"min_area": 0.95}  # each of them covers nearly all of the picture
        request = {"prompt": PROMPT, "steps": 4}
        own = on(webui, "tiny-sd1", {**whole, "objects": "cat:0.7, sandwich:0.3"}, **request).infotext
        assert re.search(
            r"'cat:0.7' and 'sandwich:0.3' share 9\d% of their pixels, where the larger strength counts", own
        )
        turn = on(webui, "tiny-sd1", {**whole, "objects": "cat > sandwich"}, **request).infotext
        assert re.search(r"share 9\d% of their pixels, where the later one's turn counts", turn)
        together = on(webui, "tiny-sd1", {**whole, "objects": "cat, sandwich"}, **request).infotext
        assert "share" not in together
        sharp = {"objects": "cat:0.7, sandwich:0.3", "threshold": 2}
        assert "share" not in on(webui, "tiny-sd1", sharp, **request).infotext

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_strength_zero_is_the_host_s_image(self, webui: WebUI, sampler: str) -> None:
        plain = off(webui, "tiny-sd1", prompt=PROMPT, sampler_name=sampler)
        for settings in ({"order": "in turn"}, {"objects": "sandwich > cat"}, {"mask_source": "guidance"}):
            zero = on(webui, "tiny-sd1", {**settings, "strength": 0}, prompt=PROMPT, sampler_name=sampler)
            assert difference(plain.image, zero.image) <= GREY_LEVELS, settings

    def test_every_image_of_a_batch_has_its_own_order(self, webui: WebUI) -> None:
        """Found automatically, and drawn as each alone."""
        settings = {"order": "in turn"}
        batch = on(webui, "tiny-sd1", settings, prompt=PROMPT, batch_size=2, seed=5, steps=9)
        maps = levels(webui)[2]
        for number in range(2):
            alone = on(webui, "tiny-sd1", settings, prompt=PROMPT, seed=5 + number, steps=9)
            assert difference(batch.images[number - 2], alone.image) <= GREY_LEVELS
            assert np.mean(levels(webui)[2][:, 0] != maps[:, number]) < 0.01

    @pytest.mark.parametrize(
        ("objects", "message"),
        [
            ("cat > sandwich > cat", "the order of the objects goes round in a circle: 'cat > sandwich > cat'"),
            ("cat > dog", "'dog' was not found in the prompt"),
            ("cat >", "a name is missing beside the >"),
        ],
    )
    def test_an_order_that_is_none_stops_the_job(self, webui: WebUI, objects: str, message: str) -> None:
        with pytest.raises(ApiError, match=message):
            on(webui, "tiny-sd1", {"objects": objects}, prompt=PROMPT)
        nothing_left(webui)

    def test_with_a_fixed_mask(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", {"objects": "cat > sandwich", "mask_source": "fixed"}, prompt=PROMPT, steps=12)
        found = slow(webui)
        assert len({one.tobytes() for one in found[:-1]}) == 3, "both, the sandwich, nothing"

    def test_objects_that_attention_cannot_tell_apart_are_told(self, webui: WebUI) -> None:
        settings = {"objects": "cat > sandwich", "threshold": 0.1}
        found = on(webui, "tiny-sd1", settings, prompt=PROMPT)
        assert "of their pixels, where the later one's turn counts" in found.infotext


class TestGuidance:
    @pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ SDE", "DDIM"])
    def test_slow_is_where_the_prompt_makes_a_difference(self, webui: WebUI, sampler: str) -> None:
        # Of these words none is an object.
        request = {"prompt": "slowly, very softly", "sampler_name": sampler}
        plain = off(webui, "tiny-sd1", **request)
        found = on(webui, "tiny-sd1", {"mask_source": "guidance"}, **request)
        share = slow(webui)[:-1].mean(axis=(1, 2))
        assert np.all((share > 0.02) & (share < 0.98)), share
        assert difference(found.image, plain.image) > 5
        assert "AsynDM mask source: guidance" in found.infotext and "not applied" not in found.infotext
        assert "AsynDM found" not in found.infotext and "AsynDM note" not in found.infotext
        nothing_left(webui)
        assert off(webui, "tiny-sd1", **request).png == plain.png

    def test_an_image_of_a_batch_is_the_one_of_its_seed(self, webui: WebUI) -> None:
        settings = {"mask_source": "guidance"}
        batch = on(webui, "tiny-sd1", settings, prompt=PROMPT, batch_size=2, seed=5)
        for number in range(2):
            alone = on(webui, "tiny-sd1", settings, prompt=PROMPT, seed=5 + number)
            assert difference(batch.images[number - 2], alone.image) <= GREY_LEVELS

    def test_words_have_no_use_with_it_and_that_is_told(self, webui: WebUI) -> None:
        found = on(webui, "tiny-sd1", {"mask_source": "guidance", "objects": "dragon"}, prompt=PROMPT)
        assert "the mask source 'guidance' knows no words" in found.infotext
        assert "AsynDM objects" not in found.infotext

    def test_where_nobody_asks_for_the_answer_without_the_prompt(self, webui: WebUI) -> None:
        """AUTOMATIC1111 asks for it at CFG scale 1, too; Forge and its relatives do not."""
        request = {"prompt": PROMPT, "cfg_scale": 1}
        plain = off(webui, "tiny-sd1", **request)
        found = on(webui, "tiny-sd1", {"mask_source": "guidance"}, **request)
        if webui.about.is_forge:
            assert "AsynDM: \"not applied: the mask source 'guidance' compares" in found.infotext
            assert found.png == plain.png or difference(found.image, plain.image) == 0
        else:
            assert "not applied" not in found.infotext
        nothing_left(webui)

    def test_a_step_that_skips_it_keeps_the_mask_before(self, webui: WebUI) -> None:
        if webui.about.is_forge:
            return
        found = on(webui, "tiny-sd1", {"mask_source": "guidance"}, prompt=PROMPT, s_min_uncond=3.0, steps=12)
        assert "the answer without the prompt could not be read in every step" in found.infotext

    @pytest.mark.parametrize("model", ["tiny-sdxl", "tiny-sd3", "tiny-flux", "tiny-zimage"])
    def test_in_any_network(self, webui: WebUI, model: str) -> None:
        request = {"prompt": "slowly, very softly", "steps": 8, "scheduler": "Simple"}
        plain = off(webui, model, **request)
        found = on(webui, model, {"mask_source": "guidance"}, **request)
        assert "not applied" not in found.infotext and "AsynDM note" not in found.infotext
        share = slow(webui)[:-1].mean(axis=(1, 2))
        assert np.all((share > 0.02) & (share < 0.98)), share
        assert difference(found.image, plain.image) > 2
        zero = on(webui, model, {"mask_source": "guidance", "strength": 0}, **request)
        assert difference(plain.image, zero.image) <= GREY_LEVELS
