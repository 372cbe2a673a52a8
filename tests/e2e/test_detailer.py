"""Jobs within jobs (scenario 48): ADetailer's passes leave our notes, the found objects and the last run alone.

By a stand-in, which makes its jobs as ADetailer does, loaded before and after the extension under test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .server import PROBE, REPOSITORY, Pictures, WebUI
from .test_asyndm import PROMPT, difference, nothing_left

pytestmark = pytest.mark.xdist_group("webui")

DETAILER = Path(__file__).resolve().parent / "detailer_extension"
BEFORE, AFTER = "aa-detailer", "zz-detailer"
SMALL = {"width": 128, "height": 128, "steps": 6, "sampler_name": "Euler a", "seed": 3}


@pytest.fixture(scope="session")
def detailing(launch: Callable[..., WebUI]) -> WebUI:
    """A WebUI with the stand-in twice."""
    extensions = {BEFORE: DETAILER, "asyndm": REPOSITORY, AFTER: DETAILER, "asyndm-e2e-probe": PROBE}
    return launch("detailing", extensions=extensions)


order = pytest.mark.parametrize("name", [BEFORE, AFTER])


def job(
    webui: WebUI, name: str, settings: dict, prompts: list[str] | str, asked: bool = False, **request: Any
) -> Pictures:
    scripts = {
        "AsynDM": {"args": [{**settings, "adetailer": asked}]},
        "asyndm prompts": {"args": [request.pop("images", "")]},
        name: {"args": [prompts, asked]},
    }
    request = {"prompt": PROMPT, **SMALL, **request}
    return webui.txt2img("tiny-sd1", **request, alwayson_scripts=scripts)


def ours(infotext: str) -> dict[str, str]:
    """Our entries of an infotext."""
    return dict(re.findall(r'(AsynDM(?: [a-z ]+)?): ("(?:[^"\\]|\\.)*"|[^,]*)', infotext))


def passes(webui: WebUI) -> list[tuple[Any, ...]]:
    answer = webui.get("/asyndm/v1/last-run?masks=false")
    return [
        (one["kind"], one["iteration"], one["objects"], len(one["steps"]), one["finished"]) for one in answer["passes"]
    ]


@order
def test_what_the_outer_job_says_stays(detailing: WebUI, name: str) -> None:
    """A style's words are found in the prompt; a threshold so high that nothing is slow gives a note."""
    settings = {"threshold": 5.0, "strength": 0.6}
    alone = job(detailing, name, settings, "")
    told, ran = ours(alone.infotext), passes(detailing)
    assert "no pixel lagged" in told["AsynDM note"] and told["AsynDM found"] == '"cat, sandwich"'
    for asked in (False, True):
        log = len(detailing.log())
        detailed = job(detailing, name, settings, ["", "a dog"], asked)
        assert f"Detailer: {'before' if name == BEFORE else 'after'} the other" in detailed.infotext
        assert difference(alone.image, detailed.image) > 5
        notes = ours(detailed.infotext)
        assert notes.pop("AsynDM note").startswith(told["AsynDM note"].rstrip('"'))
        assert notes.pop("AsynDM in adetailer", None) == ("True" if asked else None)
        assert notes == {key: value for key, value in told.items() if key != "AsynDM note"}
        inner = [("adetailer", 0, [["cat", "sandwich"]]), ("adetailer", 0, [["dog"]])] if asked else []
        assert [one[:3] for one in passes(detailing)] == [ran[0][:3], *inner]
        assert all(finished for *_, finished in passes(detailing))
        assert "Traceback" not in detailing.log()[log:]
    nothing_left(detailing)


@order
def test_batches_with_prompts_of_their_own(detailing: WebUI, name: str) -> None:
    """Two batches of one picture: each infotext lists what was found in its own prompt."""
    images = ["a cat eating a sandwich", "a house with a garden"]
    result = job(detailing, name, {}, ["a dog"], True, images=images, n_iter=2)
    found = [ours(text)["AsynDM found"] for text in result.info["infotexts"][-2:]]
    assert found == ['"cat, sandwich"', '"house, garden"']
    assert [one[:3] for one in passes(detailing)] == [
        ("txt2img", 0, [["cat", "sandwich"]]),
        ("adetailer", 0, [["dog"]]),
        ("txt2img", 1, [["house", "garden"]]),
        ("adetailer", 1, [["dog"]]),
    ]


@order
def test_a_prompt_without_the_objects_is_told_and_repainted_all_the_same(detailing: WebUI, name: str) -> None:
    log = len(detailing.log())
    plain = job(detailing, name, {"objects": "cat"}, ["a dog", ""])  # nothing of ours in these passes
    result = job(detailing, name, {"objects": "cat"}, ["a dog", ""], True)
    note = ours(result.infotext)["AsynDM note"]
    assert "not applied in ADetailer's pass: 'cat' was not found in the prompt 'a dog'" in note
    assert ours(result.infotext)["AsynDM objects"] == "cat" and "AsynDM" not in ours(result.infotext)
    assert [(kind, objects) for kind, _, objects, *_ in passes(detailing)] == [
        ("txt2img", [["cat"]]),
        ("adetailer", [["cat"]]),
    ]
    # What was drawn without AsynDM is the host's own; the other part's blur reaches into it.
    dog, cat = np.s_[:48, :48], np.s_[:48, 80:]
    assert difference(plain.image[dog], result.image[dog]) == 0 < difference(plain.image[cat], result.image[cat])
    assert "Traceback" not in detailing.log()[log:] and "Error" not in detailing.log()[log:]
    nothing_left(detailing)


@order
def test_nothing_to_be_found_in_its_prompt(detailing: WebUI, name: str) -> None:
    result = job(detailing, name, {}, ["masterpiece, best quality"], True)
    note = ours(result.infotext)["AsynDM note"]
    assert "not applied in ADetailer's pass: AsynDM found no object in the prompt" in note
    assert [kind for kind, *_ in passes(detailing)] == ["txt2img"]


@order
def test_the_pictures_of_what_was_done_are_saved_once(detailing: WebUI, name: str) -> None:
    def saved() -> set[Path]:
        return set(detailing.folder.rglob("*-asyndm-mask*"))

    before = saved()
    settings = {"objects": "cat", "show": "mask", "save_shown": True}
    result = job(detailing, name, settings, ["a dog"], save_images=True, n_iter=2)
    assert len(saved() - before) == 2
    assert len(result.images) == 5, "a grid, two pictures, and a mask for each"
    nothing_left(detailing)


@order
def test_the_next_job_is_a_job_of_its_own(detailing: WebUI, name: str) -> None:
    job(detailing, name, {"strength": 0.4}, ["a dog"], True)
    job(detailing, name, {"strength": 0.9}, "")
    assert detailing.get("/asyndm/v1/last-run?masks=false")["settings"]["strength"] == 0.9
    assert [kind for kind, *_ in passes(detailing)] == ["txt2img"]
