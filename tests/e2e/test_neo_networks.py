"""The networks of 2025 and 2026 in Forge Neo: Z-Image, Lumina 2, FLUX.2 Klein, Anima, Qwen-Image and its Edit."""

from __future__ import annotations

import numpy as np
import pytest

from .server import ApiError, WebUI, to_base64
from .test_asyndm import GREY_LEVELS, PROMPT, SETTINGS, asyndm, difference, levels, nothing_left, off, on
from .test_regions import box, paint, picture

SIMPLE = {"scheduler": "Simple"}
# Side of a token in latent pixels, and of a latent pixel in pixels.
TOKENS = {
    "tiny-zimage": (2, 8),
    "tiny-lumina2": (2, 8),
    "tiny-klein": (1, 16),
    "tiny-anima": (2, 8),
    "tiny-qwen-image": (2, 8),
}
COLUMNS = {"tiny-zimage": 3, "tiny-lumina2": None, "tiny-klein": 3, "tiny-anima": None, "tiny-qwen-image": 0}
"""Of the first token of a prompt, behind the head of the template that is not cut off."""
LEAST = {"tiny-anima": 2}
"""Grey levels by which a map changes the picture at least; the tiny Anima sees little of its clock, from 0 to 1."""
pytestmark = pytest.mark.xdist_group("webui")


@pytest.fixture(autouse=True)
def neo(webui: WebUI) -> None:
    if webui.kind != "neo":
        pytest.skip("this is no Forge Neo")


def of_one_level(maps: np.ndarray, side: int) -> bool:
    """Whether the pixels of every token share theirs."""
    first = maps[..., ::side, ::side]
    return all(np.array_equal(maps[..., i::side, j::side], first) for i in range(side) for j in range(side))


@pytest.mark.parametrize("model", TOKENS)
class TestNetworks:
    @pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Euler a"])
    def test_off_on_and_off_again(self, plain_webui: WebUI, webui: WebUI, model: str, sampler: str) -> None:
        request = {**SIMPLE, "sampler_name": sampler}
        before = off(webui, model, **request)
        assert before.png == off(plain_webui, model, **request).png
        first = on(webui, model, **request)
        nominal, level, strength = levels(webui)
        assert "not applied" not in first.infotext
        assert difference(first.image, before.image) > LEAST.get(model, 10)
        assert first.png == on(webui, model, **request).png, "same request, same pixels"
        nothing_left(webui)
        assert off(webui, model, **request).png == before.png

        side, pixel = TOKENS[model]
        assert level.shape[1:] == (1, 256 // pixel, 256 // pixel)
        assert np.all(level[0] == nominal[0])
        assert np.all(np.diff(level, axis=0) <= 1e-9), "a pixel's noise level rose"
        slow = (strength > 0).mean(axis=(1, 2, 3))
        assert np.all((slow > 0.02) & (slow < 0.98)), f"fraction of slow pixels {slow}"
        assert len(np.unique(level[2:-1])) > 3, "the levels differ from pixel to pixel"
        assert of_one_level(level, side)

        zero = on(webui, model, {**SETTINGS, "strength": 0}, **request)
        assert difference(before.image, zero.image) <= GREY_LEVELS

    def test_images_of_a_batch_equal_their_seeds_alone(self, webui: WebUI, model: str) -> None:
        # A prompt of its own: for one that it knows the WebUI keeps FLUX.2's references of the img2img job before.
        request = {**SIMPLE, "width": 320, "prompt": f"{PROMPT} on a plate"}
        batch = on(webui, model, batch_size=2, seed=10, **request)
        _, _, strength = levels(webui)
        assert strength.shape[1] == 2
        for i, image in enumerate(batch.images[-2:]):
            assert difference(image, on(webui, model, seed=10 + i, **request).image) <= GREY_LEVELS

    def test_a_painted_mask(self, webui: WebUI, model: str) -> None:
        """Its edges lie within tokens: every token is one level nevertheless."""
        mask = box(72, 88, 168, 200)
        request = {"scheduler": "Simple", "steps": 8}
        plain = paint(webui, mask, None, model, **request)
        slow = paint(webui, mask, {"region": "mask"}, model, **request)
        assert "not applied" not in slow.infotext
        _, level, strength = levels(webui)
        assert of_one_level(level, TOKENS[model][0])
        assert 0 < (strength > 0).mean() < 1
        if model != "tiny-klein":  # whose picture is nearly its reference's
            assert difference(plain.image, slow.image) > LEAST.get(model, 3)

    def test_a_given_mask(self, webui: WebUI, model: str) -> None:
        """In txt2img, where FLUX.2 has no picture that it keeps to."""
        request = {**SIMPLE, "steps": 8, "prompt": f"{PROMPT} beside a mask"}
        settings = {"region": "mask", "mask": to_base64(box(64, 64, 192, 192))}
        plain = off(webui, model, **request)
        slow = on(webui, model, settings, **request)
        strength = levels(webui)[2][0, 0]
        quarter = len(strength) // 4
        assert np.all(strength[quarter : 3 * quarter, quarter : 3 * quarter] == 0.7)
        assert (strength > 0).sum() == (2 * quarter) ** 2
        assert difference(plain.image, slow.image) > LEAST.get(model, 3)
        zero = on(webui, model, {**settings, "strength": 0}, **request)
        assert difference(plain.image, zero.image) <= GREY_LEVELS

    def test_words_are_found_in_their_columns(self, webui: WebUI, model: str) -> None:
        """The tokens at an object's columns spell it, whatever the template around; the template's words are none."""
        prompt = "a (red hat:1.2) on a caf\u00e9, assistant"
        objects = ["red hat", "caf\u00e9", "assistant", "a"]
        off(webui, model)
        found = webui.post("/asyndm/v1/tokens", {"prompt": prompt, "objects": objects})
        (text,) = found["parts"][0]["texts"]
        assert found["missing"] == []
        spelled = {token["column"]: token["text"] for token in text["tokens"]}
        columns = {one["name"]: one["columns"] for one in text["objects"]}
        for name in ("red hat", "assistant"):
            assert "".join(spelled[column] for column in columns[name]).replace(" ", "") == name.replace(" ", "")
        assert len(columns["a"]) >= 2 and columns["caf\u00e9"]
        words = [one["word"] for one in text["words"]]
        assert "red" in words and "hat" in words and "user" not in words and "designed" not in words
        missing = webui.post("/asyndm/v1/tokens", {"prompt": "a dog", "objects": ["assistant", "user", "background"]})
        assert missing["missing"] == ["assistant", "user", "background"]
        if COLUMNS[model] is not None:
            assert min(spelled) == COLUMNS[model]


EDIT = "tiny-qwen-image-edit"
EDITED = {**SIMPLE, "prompt": f"{PROMPT} as a drawing", "denoising_strength": 1.0, "steps": 8}


class TestReferences:
    """Qwen-Image-Edit: img2img's picture is a reference, shown to the language model and to the network."""

    @pytest.mark.parametrize("size", [(256, 256), (192, 320)])
    def test_words_are_found_behind_it(self, webui: WebUI, size: tuple[int, int]) -> None:
        """The host reads pictures and prompt as one text, in which pictures take columns before the words."""
        source = picture(*size)
        # A prompt of its own for each: for one that it knows the WebUI keeps the references of the job before.
        request = {**EDITED, "prompt": f"{PROMPT} as a (drawing:1.2) of {size[0]}"}
        plain = webui.img2img(source, EDIT, **request)
        if size[0] == size[1]:
            turned = webui.img2img(source[::-1], **{**request, "prompt": f"{request['prompt']}, turned"})
            assert difference(plain.image, turned.image) > 3, "it goes by its picture"
            plain = webui.img2img(source, **request)
        either = {"region": "objects or mask", "mask": to_base64(box(64, 64, 96, 96))}
        for settings in (SETTINGS, either, {"mask_source": "fixed", "objects": "sandwich"}):
            slow = webui.img2img(source, **request, **asyndm(settings))
            assert "not applied" not in slow.infotext
            _, level, strength = levels(webui)
            share = (strength > 0).mean(axis=(1, 2, 3))
            assert np.all((share > 0.02) & (share < 0.98)), "of the picture, and not of its reference"
            assert of_one_level(level, 2)
            assert difference(plain.image, slow.image) > 3
            nothing_left(webui)
        zero = webui.img2img(source, **request, **asyndm({**SETTINGS, "strength": 0}))
        assert difference(plain.image, zero.image) <= GREY_LEVELS
        with pytest.raises(ApiError, match="behind reference pictures"):  # without a job nobody can tell
            webui.post("/asyndm/v1/tokens", {"prompt": request["prompt"]})

    @pytest.mark.parametrize("size", [(256, 256), (192, 320)])
    def test_their_columns_are_those_that_change_with_them(self, webui: WebUI, size: tuple[int, int]) -> None:
        """What the language model answers is the same up to the word that is another one."""
        off(webui, EDIT, prompt="a cat that loads the model")
        for first, other, name in (
            ("a cat on a table", "a dog on a table", "cat"),
            ("a red cat (on) a table", "a red cat (on) a sofa", "table"),
        ):
            body = {"texts": [first, other], "name": name, "size": list(size)}
            found = webui.post("/asyndm-probe/behind-reference", body)
            assert found["columns"][0] == found["differs"], found
            assert found["length"] > 40, "the picture has columns"
            assert found["length"] - found["columns"][-1] > 1, "the template goes on behind the words"

    def test_a_mask_does_without_words(self, webui: WebUI) -> None:
        source = picture(256, 256)
        settings = {"region": "mask", "mask": to_base64(box(64, 64, 192, 192))}
        plain = webui.img2img(source, EDIT, **EDITED)
        slow = webui.img2img(source, **EDITED, **asyndm(settings))
        assert "not applied" not in slow.infotext
        strength = levels(webui)[2][0, 0]
        assert (strength > 0).sum() == (len(strength) // 2) ** 2, "of the picture, and not of its reference"
        assert difference(plain.image, slow.image) > 3
        zero = webui.img2img(source, **EDITED, **asyndm({**settings, "strength": 0}))
        assert difference(plain.image, zero.image) <= GREY_LEVELS
        nothing_left(webui)

    def test_without_a_reference_it_is_qwen_image(self, webui: WebUI) -> None:
        # The WebUI keeps the picture of an img2img job whose words it knew, for the next job with new ones.
        off(webui, EDIT, prompt="a cat that takes it")
        request = {**SIMPLE, "prompt": f"{PROMPT} as an engraving"}
        plain, slow = off(webui, EDIT, **request), on(webui, EDIT, **request)
        assert "not applied" not in slow.infotext and difference(plain.image, slow.image) > 10
