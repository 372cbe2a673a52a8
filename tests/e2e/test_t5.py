"""SD3 with T5 turned on: an object's tokens are looked up in both parts of the conditioning, CLIP's and then T5's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from .server import PROBE, REPOSITORY, WebUI
from .test_asyndm import GREY_LEVELS, SETTINGS, difference, levels, nothing_left, off, on

MODEL = "tiny-sd3"
SIMPLE = {"scheduler": "Simple"}
LONG = "very " * 80 + "big cat"
T5 = {"sd3_enable_t5": True}
pytestmark = pytest.mark.xdist_group("webui")


@pytest.fixture(scope="module")
def servers(launch: Callable[..., WebUI]) -> Iterator[tuple[WebUI, WebUI]]:
    """A WebUI with T5 on, without and with the extension under test."""
    probe = {"asyndm-e2e-probe": PROBE}
    found = (
        launch("plain-t5", extensions=probe, options=T5),
        launch("t5", extensions={"asyndm": REPOSITORY, **probe}, options=T5),
    )
    yield found
    for server in found:
        server.stop()


@pytest.fixture
def with_t5(servers: tuple[WebUI, WebUI]) -> WebUI:
    servers[1].use_model(MODEL)
    return servers[1]


def ask(webui: WebUI, text: str, name: str) -> dict:
    return webui.post("/asyndm-probe/columns", {"text": text, "name": name})


def t5_length(webui: WebUI, clip: int) -> int:
    """Forge gives T5 256 tokens, A1111 as many as CLIP."""
    return 256 if webui.about.is_forge else clip


@pytest.mark.parametrize(
    ("text", "name", "clip", "times"),
    [
        ("a cat eating a sandwich", "cat", [2], 1),
        ("a (Cat:1.3), a catnip", "cat", [2], 1),
        ("a (red:1.2) hat", "red hat", [2, 3], 1),
        ("a cat and another cat", "cat#2", [5], 1),
        ("a cat and another cat", "cat", [2, 5], 2),
        (LONG, "cat", [77 + 1 + 81 - 75], 1),
    ],
    ids=["word", "emphasis", "two words", "second place", "both places", "second chunk"],
)
def test_columns_in_both_parts(with_t5: WebUI, text: str, name: str, clip: list[int], times: int) -> None:
    answer = ask(with_t5, text, name)
    own = [column for column in answer["columns"] if column < answer["clip"]]
    assert own == clip
    assert answer["clip"] == (154 if text is LONG else 77)
    assert answer["shape"][0] == answer["clip"] + t5_length(with_t5, answer["clip"])
    assert answer["is_t5_behind"], "T5's vectors are where the columns say"
    behind = [column - answer["clip"] for column in answer["columns"][len(own) :]]
    spelled = "".join(answer["pieces"][column] for column in behind).replace("▁", "").lower()
    words, _, place = name.partition("#")
    if text is LONG and with_t5.kind == "a1111":
        times = 0  # its small T5 spells the text in more pieces than CLIP has columns: cut off
    assert spelled == words.replace(" ", "") * times
    if place:
        assert behind[0] > answer["pieces"].index("▁cat")


def test_what_prompt_editing_makes_of_a_prompt_is_encoded_to_the_same_length(with_t5: WebUI) -> None:
    """The short text has as many columns of CLIP's as the long one."""
    answer = with_t5.post("/asyndm/v1/tokens", {"prompt": f"a cat [:{LONG}:0.5]", "steps": 10})
    (part,) = answer["parts"]
    short = part["texts"][0]
    assert short["text"].strip() == "a cat"
    (cat,) = short["objects"]
    assert cat["columns"][0] == 2 and min(cat["columns"][1:]) >= 154
    assert [token["column"] for token in short["tokens"]][:2] == [1, 2]
    assert {token["column"] for token in short["tokens"]} >= set(cat["columns"])
    assert [word["word"] for word in short["words"]] == ["a", "cat"]


def test_t5_turned_off_has_no_columns(webui: WebUI) -> None:
    webui.use_model(MODEL)
    answer = ask(webui, "a cat eating a sandwich", "cat")
    assert answer["columns"] == [2] and answer["length"] == 77


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M"])
def test_off_on_and_off_again(servers: tuple[WebUI, WebUI], with_t5: WebUI, webui: WebUI, sampler: str) -> None:
    request = {**SIMPLE, "sampler_name": sampler}
    before = off(with_t5, MODEL, **request)
    assert before.png == off(servers[0], MODEL, **request).png
    assert difference(before.image, off(webui, MODEL, **request).image) > 5, "T5 does something"
    first = on(with_t5, MODEL, **request)
    nominal, level, strength = levels(with_t5)
    assert difference(first.image, before.image) > 10
    nothing_left(with_t5)
    assert off(with_t5, MODEL, **request).png == before.png
    assert np.all(np.diff(level, axis=0) <= 1e-9)
    assert np.all(level >= nominal[:, None, None, None] - 1e-9)
    slow = (strength > 0).mean(axis=(1, 2, 3))
    assert np.all((slow > 0.02) & (slow < 0.98)), f"fraction of slow pixels {slow}"
    zero = on(with_t5, MODEL, {**SETTINGS, "strength": 0}, **request)
    assert difference(before.image, zero.image) <= GREY_LEVELS


def test_images_of_a_batch_with_prompts_of_their_own(with_t5: WebUI) -> None:
    """Of different lengths: the host fills up the shorter conditioning, behind T5's part, with its last row."""
    prompts = ["a cat eating a sandwich", LONG.replace("cat", "cat with a sandwich")]
    scripts = {"AsynDM": {"args": [SETTINGS]}, "asyndm prompts": {"args": [prompts]}}
    batch = with_t5.txt2img(MODEL, batch_size=2, seed=10, **SIMPLE, alwayson_scripts=scripts)
    strength = levels(with_t5)[2]
    assert strength.shape[1] == 2 and np.all((strength > 0).mean(axis=(2, 3)) > 0.02)
    alone = on(with_t5, MODEL, prompt=prompts[1], seed=11, **SIMPLE)
    assert difference(batch.images[-1], alone.image) <= GREY_LEVELS
