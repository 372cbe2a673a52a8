"""What is kept of the studio's runs: the last ones, links, and the file with everything."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("gradio", minversion="5.50")

from hypothesis import given
from hypothesis import strategies as st
from support.studio import PROMPT, SHOWN, WINDOW, array, draw, images, named, of, opened, values
from support.tiny import random_model

from asyndm_ext.embedded.job import COUNTED_SOLVERS
from asyndm_ext.embedded.limits import SCHEDULERS, SEEDS
from asyndm_ext.region import mask_image
from asyndm_ext.settings import FIELDS
from asyndm_ext.studio import link, page, report, runs
from asyndm_ext.studio.engine import Engine
from asyndm_ext.studio.request import DRAWING
from asyndm_ext.studio.runs import Desk
from asyndm_ext.studio.session import OUTPUTS, Studio

NAMES = (*DRAWING, *SHOWN)


@pytest.fixture(scope="module")
def built() -> Any:
    return page.build(Engine(random_model()))


@pytest.fixture
def studio() -> Studio:
    return Studio(Engine(random_model()), SHOWN)


def mask() -> str:
    """The left half."""
    picture = Image.new("L", (16, 16), 0)
    picture.paste(255, (0, 0, 8, 16))
    return mask_image.encode(picture)


def controls(answer: list[Any], before: int) -> dict[str, Any]:
    """The controls' new values in an answer, after so many others."""
    unchanged = {"__type__": "update"}
    return {name: value for name, value in zip(NAMES, answer[before:], strict=False) if value != unchanged}


# --- the last runs --------------------------------------------------------------------------------------------------


def test_a_run_comes_back_with_its_settings(built: Any, studio: Studio) -> None:
    changed = {"strength": 0.3, "curve": "exponential", "steps": 6, "seed": -1, "objects": "bike"}
    first = list(draw(studio, values(built, **changed)))[-1]
    second = list(draw(studio, values(built, enabled=False), first["desk"]))[-1]
    assert re.findall(r'data-run="(\d)"', second["runs"]) == ["2", "1"], "newest first"
    assert re.findall(r'data-run="(\d)"[^>]*aria-current', second["runs"]) == ["2"]

    answer = studio.pick(WINDOW, second["desk"], 1, "")
    back = named(answer)
    shown = {name: back[name] for name in ("gallery", "step", "slider", "link", "status")}
    assert shown == {name: first[name] for name in shown}
    assert not {"run", "interrupt"} & set(back), "the buttons are those of a drawing"
    assert re.findall(r'data-run="(\d)"[^>]*aria-current', back["runs"]) == ["1"]
    set_to = controls(answer, len(OUTPUTS))
    drawn = first["desk"].shown.outcome.job.seed
    assert set_to == {**dict(zip(NAMES, values(built, **changed), strict=True)), "seed": drawn} and drawn >= 0
    again = list(draw(studio, [set_to[name] for name in NAMES], back["desk"]))[-1]
    assert images(again["gallery"])[2].tobytes() == images(first["gallery"])[2].tobytes()
    assert again["desk"].shown.number == 3


def test_the_panel_opens_and_closes_with_its_run(built: Any, studio: Studio) -> None:
    off = list(draw(studio, values(built, enabled=False)))[-1]
    on = list(draw(studio, values(built), off["desk"]))[-1]
    assert [studio.pick(WINDOW, on["desk"], number, "")[-2]["open"] for number in (1, 2)] == [False, True]
    assert named(studio.pick(WINDOW, on["desk"], 1, ""))["steps"]["visible"] is False


def test_a_mask_comes_back_to_its_picture(built: Any, studio: Studio) -> None:
    desk = list(draw(studio, values(built, region="mask", mask=mask())))[-1]["desk"]
    answer = studio.pick(WINDOW, desk, 1, "")
    assert controls(answer, len(OUTPUTS))["mask"] == mask()
    painted = answer[-1]
    assert (np.asarray(painted["layers"][0].getchannel("A")) == np.asarray(mask_image.decode(mask()))).all()
    assert studio.pick(WINDOW, desk, 1, mask())[-1] == {"__type__": "update"}, "it is there already"
    without = list(draw(studio, values(built), desk))[-1]["desk"]
    assert studio.pick(WINDOW, without, 2, mask())[-1] is None


def test_a_run_that_is_not_kept_any_more(built: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MOST_RUNS", 2)
    desk = Desk()
    for _ in range(3):
        desk = list(draw(studio, values(built, steps=1, width=32, height=32), desk))[-1]["desk"]
    assert [run.number for run in desk.runs] == [2, 3]
    back = named(studio.pick(WINDOW, desk, 1, ""))
    assert "not kept any more" in back["status"] and set(back) == {"status"}
    assert "not kept any more" in named(studio.pick(WINDOW, Desk(), None, ""))["status"]


def test_runs_take_no_more_memory_than_there_is_room_for(
    built: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(draw(studio, values(built)))[-1]["desk"]
    monkeypatch.setattr(runs, "MOST_BYTES", 2 * runs._bytes(first.runs[0]))
    desk = first
    for _ in range(2):
        desk = list(draw(studio, values(built), desk))[-1]["desk"]
    assert [run.number for run in desk.runs] == [2, 3]
    monkeypatch.setattr(runs, "MOST_BYTES", 0)
    assert [run.number for run in list(draw(studio, values(built), desk))[-1]["desk"].runs] == [4], "the shown one"
    results = first.shown.outcome.results
    assert [len(one.predictions) for one in results.values()] == [1, 1, 4], "the steps of AsynDM alone are looked at"


def test_no_run_is_picked_while_one_is_drawn(built: Any, studio: Studio) -> None:
    desk = list(draw(studio, values(built)))[-1]["desk"]
    studio.begin(WINDOW)
    assert named(studio.pick(WINDOW, desk, 1, "")) == {}


# --- links ----------------------------------------------------------------------------------------------------------

RANGES = {
    "prompt": st.text(max_size=40),
    "seed": st.integers(-1, SEEDS - 1),
    "steps": st.integers(1, 150),
    "solver": st.sampled_from(COUNTED_SOLVERS),
    "scheduler": st.sampled_from(SCHEDULERS),
    "guidance": st.integers(0, 30).map(lambda half: half / 2),
    "width": st.integers(1, 32).map(lambda cells: 16 * cells),
    "height": st.integers(1, 32).map(lambda cells: 16 * cells),
    "enabled": st.booleans(),
}
for spec in FIELDS:
    if spec.choices:
        RANGES[spec.name] = st.sampled_from(spec.choices)
    elif spec.limits is not None:
        RANGES[spec.name] = st.floats(*spec.limits).map(lambda value: round(value, 6))
    else:
        RANGES[spec.name] = st.booleans() if spec.is_switch else st.text(max_size=40)


@given(st.fixed_dictionaries({name: RANGES[name] for name in NAMES}))
def test_a_link_carries_everything(settings: dict[str, Any]) -> None:
    text = link.written(settings)
    assert link.read("#" + text) == (settings, [], False)
    assert link.read(text + "&run=1") == (settings, [], True)
    assert re.fullmatch(r"[\w.~%=&+*-]*", text, re.ASCII)


@given(st.text(max_size=60))
def test_any_text_behind_the_hash_is_read(text: str) -> None:
    values, _, _ = link.read(text)
    assert set(values) <= set(link._READERS)


@pytest.mark.parametrize(
    "wrong",
    [
        "steps=0", "steps=151", "steps=x", "steps=2.5", "seed=-2", "width=65", "width=528", "guidance=nan",
        "guidance=16", "solver=Nobody", "scheduler=", "enabled=2", "strength=1.5", "strength=inf", "curve=round",
        "soft=true", "what=1",
    ],
)  # fmt: skip
def test_what_the_page_cannot_be_set_to_is_left_out(studio: Studio, wrong: str) -> None:
    assert link.read(f"#{wrong}&steps_=&prompt=x")[1] == [wrong, "steps_="]
    answer = studio.open(f"#prompt=a+red+boat+and+a+cat&{wrong}&run=1", "")
    assert "Left as it was" in answer[0] and wrong in answer[0]
    assert answer[1] == "", "not drawn: somebody has to look at it first"
    assert controls(answer, 2) == {"prompt": "a red boat and a cat"}


def test_a_link_is_opened(built: Any, studio: Studio) -> None:
    run = list(draw(studio, values(built, strength=0.4, region="mask", mask=mask())))[-1]
    written = json.loads(run["link"])
    assert written["note"] == ""
    answer = studio.open(f"#{written['link']}&run=1", "")
    assert answer[1] == "run" and "Press Run" in answer[0]
    set_to = controls(answer, 2)
    again = list(draw(studio, [set_to[name] for name in NAMES]))[-1]
    assert images(again["gallery"])[2].tobytes() == images(run["gallery"])[2].tobytes()
    for nothing in ("", "#", None, "#run=1"):
        assert controls(studio.open(nothing, ""), 2) == {} and studio.open(nothing, "")[1] == ""
        assert studio.open(nothing, "")[0] == {"__type__": "update"}


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a red circle and a blue square", "from an earlier version, whose model drew coloured shapes: "),
        ("two stars under a star", "from an earlier version"),
        ("a shark riding a bik", "Did you mean bike"),
        ("a shark and a penguin", "one animal at a time; this prompt has shark and penguin"),
    ],
)
def test_a_link_whose_prompt_cannot_be_drawn(studio: Studio, prompt: str, says: str) -> None:
    answer = studio.open(f"#prompt={prompt.replace(' ', '+')}&steps=30&run=1", "")
    assert answer[0].count('role="alert"') == 1 and says in answer[0] and "Left as it was" not in answer[0]
    assert answer[1] == "", "not drawn"
    assert controls(answer, 2) == {"prompt": prompt, "steps": 30}
    both = studio.open(f"#prompt={prompt.replace(' ', '+')}&steps=151", "")[0]
    assert says in both and "Left as it was" in both and "steps=151" in both


def test_a_mask_too_large_for_a_link_is_left_out_and_told(built: Any, studio: Studio) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (256, 256), dtype=np.uint8)
    large = mask_image.encode(Image.fromarray(noise))
    assert len(large) > link.LONGEST_MASK
    written = json.loads(list(draw(studio, values(built, region="mask", mask=large)))[-1]["link"])
    assert "without the mask" in written["note"] and len(written["link"]) < 1000
    assert "mask" not in link.read(written["link"])[0]


def test_the_controls_of_a_link_are_those_of_the_page(built: Any) -> None:
    """In range, and in the same order as what is restored."""
    components = of(built, "draw").inputs[1:]
    restored = of(built, "open").outputs[2:]
    assert restored[: len(components)] == components
    assert of(built, "pick").outputs[len(OUTPUTS) :] == restored
    for name, component in zip(NAMES, components, strict=True):
        for limit in ("minimum", "maximum"):
            if component.get_block_name() == "slider":
                assert link.read(f"{name}={getattr(component, limit):g}")[1] == [], name
        for choice in getattr(component, "choices", ()):
            assert link.read(link.written({name: choice[1]})) == ({name: choice[1]}, [], False)


# --- the file -------------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """The images and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]


def test_one_file_has_everything(built: Any, studio: Studio) -> None:
    changed = {"steps": 4, "strength": 0.4, "region": "objects or mask", "mask": mask(), "prompt": PROMPT}
    run = list(draw(studio, values(built, **changed)))[-1]
    file, status = studio.bundle(run["desk"])
    assert status == {"__type__": "update"}
    name, text = json.loads(file)["name"], json.loads(file)["text"]
    assert name == "asyndm-5.html"
    seen = Seen(text)
    assert seen.addresses and all(one.startswith("data:image/png;base64,") for one in seen.addresses)
    assert not re.search(r"https?://|url\(|@import", text), "nothing is loaded from elsewhere"
    outcome = run["desk"].shown.outcome
    for variant, picture in zip(outcome.results, images(text), strict=False):
        assert (array(picture) == array(outcome.pictures[variant])).all()
        assert picture.text["parameters"] == outcome.job.infotext(variant)
    data = json.loads(re.search(r'id="run">(.*?)</script>', text)[1])
    assert data["settings"] == {**dict(zip(NAMES, values(built, **changed), strict=True)), "seed": 5}
    assert data["parameters"] == {variant: outcome.job.infotext(variant) for variant in outcome.results}
    for row in ("<th scope=row>Seed</th><td>5</td>", "<th scope=row>Strength</th><td>0.4</td>"):
        assert row in text
    (shown,) = re.findall(r'class="studio-mask" alt="the mask" src="([^"]+)"', text)
    assert (array(opened(shown)) == array(mask_image.decode(mask()))).all()


def test_the_file_has_the_notes_and_no_steps_where_there_are_none(built: Any, studio: Studio) -> None:
    noted = list(draw(studio, values(built, steps=1)))[-1]["desk"]
    assert "Note: no pixel lagged behind" in json.loads(studio.bundle(noted)[0])["text"]
    off = list(draw(studio, values(built, enabled=False)))[-1]["desk"]
    text = json.loads(studio.bundle(off)[0])["text"]
    assert "<h2>Steps</h2>" not in text and "AsynDM is off" in text


def test_nothing_that_was_typed_is_markup_in_the_file(built: Any, studio: Studio) -> None:
    run = list(draw(studio, values(built)))[-1]["desk"].shown
    evil = "</script><b id=evil>"
    typed = runs.Run(1, run.outcome, {**run.values, "prompt": evil, "objects": evil, "curve": evil})
    _, text = report.written(typed, random_model().decode)
    assert evil not in text and "b" not in Seen(text).tags[Seen(text).tags.index("table") :]


def test_there_is_nothing_to_save_before_the_first_run(studio: Studio) -> None:
    file, status = studio.bundle(Desk())
    assert file == "" and "press Run first" in status


def test_the_picture_of_a_mask_is_read_as_it_was_written(studio: Studio) -> None:
    """White paint on black: what the panel makes of it is the mask again."""
    from asyndm_ext.studio.session import _painted
    from asyndm_ext.ui import painted

    read = getattr(painted, "written", None) or (lambda value: painted.read(value).text)
    again = mask_image.decode(read(_painted(mask())))
    assert again.tobytes() == mask_image.decode(mask()).tobytes()
