"""The studio without a browser: the page is built, and its functions are called as the page calls them."""

from __future__ import annotations

import html
import json
import re
import socket
import sys
import threading
import urllib.request
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("gradio", minversion="5.50")

from support.studio import PROMPT, SHOWN, SMALL, WINDOW, array, draw, images, of, values
from support.tiny import random_model

from asyndm_ext.commands.main import COMMANDS
from asyndm_ext.commands.main import main as asyndm
from asyndm_ext.embedded.filmstrip import explanation
from asyndm_ext.embedded.job import VARIANTS
from asyndm_ext.embedded.sampling import run_variant, step_count
from asyndm_ext.picture.drawing import clock_colours, to_picture
from asyndm_ext.region import mask_image
from asyndm_ext.studio import assets, command, messages, page, pictures, server, steps
from asyndm_ext.studio.engine import Engine, Interrupted, Outcome, Progress
from asyndm_ext.studio.request import DRAWING, WITHOUT, find_objects, job_from
from asyndm_ext.studio.runs import Desk
from asyndm_ext.studio.session import OUTPUTS, Studio
from asyndm_ext.ui import chips
from asyndm_ext.world import model
from asyndm_ext.world.judge import Seen, load_judge, verdict
from asyndm_ext.world.telling import faults
from asyndm_ext.world.words import WORDS, read, split


@pytest.fixture(scope="module")
def built() -> Any:
    return page.build(Engine(random_model()))


@pytest.fixture
def studio() -> Studio:
    return Studio(Engine(random_model()), SHOWN)


def outcome_of(last: dict[str, Any]) -> Outcome:
    return last["desk"].shown.outcome


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_panel_is_the_webui_s_but_for_what_means_nothing_here(built: Any) -> None:
    ids = [one["props"].get("elem_id") for one in built.get_config_file()["components"]]
    panel = [f"asyndm_{name}" for name in SHOWN[1:]]
    assert set(panel) | {"asyndm_enabled", "asyndm_enabled-checkbox", "asyndm_chips", "asyndm_find"} <= set(ids)
    assert not {f"asyndm_{name}" for name in WITHOUT} & set(ids)
    named = [one for one in ids if one]
    assert len(named) == len(set(named))
    inputs = of(built, "draw").inputs
    assert [one.elem_id for one in inputs] == [
        None, *(f"studio_{name}" for name in DRAWING), "asyndm_enabled-checkbox", *panel,
    ]  # fmt: skip
    assert len(of(built, "draw").outputs) == len(OUTPUTS)


def test_the_page_as_it_opens_is_a_job(built: Any) -> None:
    sent = [component.value for component in of(built, "draw").inputs[1:]]
    job, variants = job_from(
        dict(zip(DRAWING, sent[: len(DRAWING)], strict=True)), dict(zip(SHOWN, sent[len(DRAWING) :], strict=True))
    )
    assert variants == VARIANTS
    assert [str(spec) for spec in job.settings.objects] == ["shark", "bike"]
    for example in page.EXAMPLES:
        assert len(find_objects(example)) >= 2


def test_run_gives_three_pictures_and_the_steps(built: Any, studio: Studio) -> None:
    *before, last = draw(studio, values(built))
    assert before and all(one["interrupt"]["interactive"] and not one["run"]["interactive"] for one in before)
    assert last["run"]["interactive"] and not last["interrupt"]["interactive"]
    outcome = outcome_of(last)
    shown = images(last["gallery"])
    assert [one.size for one in shown] == [(128, 128)] * 3
    for variant, picture in zip(VARIANTS, shown, strict=True):
        expected = run_variant(random_model(), outcome.job, variant)
        # Not to the last bit: the studio has a number of threads of its own, and sums are rounded as they are shared.
        torch.testing.assert_close(outcome.results[variant].latent, expected.latent, atol=1e-3, rtol=0)
        assert (array(picture) == array(outcome.pictures[variant])).all()
        assert picture.text["parameters"] == outcome.job.infotext(variant)
    assert (outcome.results["asyndm"].strength > 0).any()
    assert last["steps"]["visible"] is True
    assert last["slider"]["maximum"] == step_count(random_model(), outcome.job) == 4
    assert last["slider"]["visible"] is True
    assert last["seed"] == 5 and "seed 5" in last["status"]
    assert "shark, bike" in last["status"]


def test_each_step_can_be_looked_at(built: Any, studio: Studio) -> None:
    desk = list(draw(studio, values(built)))[-1]["desk"]
    result = desk.shown.outcome.results["asyndm"]
    for number in range(1, 5):
        prediction, slow, clock = images(studio.step(desk, number))
        expected = Engine(random_model()).picture(result.predictions[number - 1 : number])
        assert (array(prediction) == array(expected)).all()
        red, _, blue = np.moveaxis(array(slow), -1, 0)
        assert (red - blue > 40).mean() == pytest.approx(result.slow_fraction[number - 1], abs=0.01)
        assert (array(clock)[::24, ::24] == clock_colours(result.timestep[number - 1])).all()
        assert clock.size == (384, 384)
    assert len(np.unique(array(images(studio.step(desk, 2))[2]).reshape(-1, 3), axis=0)) > 1
    assert studio.step(desk, 99) == studio.step(desk, 4)
    assert studio.step(Desk(), 1) == ""


def test_strength_zero_is_the_plain_picture(built: Any, studio: Studio) -> None:
    last = list(draw(studio, values(built, strength=0)))[-1]
    plain, concave, ours = images(last["gallery"])
    assert array(plain).tobytes() == array(ours).tobytes() == array(concave).tobytes()
    results = outcome_of(last).results
    assert torch.equal(results["plain"].latent, results["asyndm"].latent)


def test_the_panel_s_values_arrive(built: Any, studio: Studio) -> None:
    changed = {"objects": "shark:0.4", "curve": "exponential", "threshold": 1.5, "soft": True, "end": 0.8}
    settings = outcome_of(list(draw(studio, values(built, **changed)))[-1]).job.settings
    written = {name: getattr(settings, name) for name in changed}
    assert {**written, "objects": str(settings.objects[0])} == changed


def test_off_means_the_plain_picture_alone(built: Any, studio: Studio) -> None:
    both = list(draw(studio, values(built)))[-1]
    off = list(draw(studio, values(built, enabled=False, objects="no word of it", strength=1)))[-1]
    assert list(outcome_of(off).results) == ["plain"]
    assert torch.equal(outcome_of(off).results["plain"].latent, outcome_of(both).results["plain"].latent)
    assert len(images(off["gallery"])) == 1 and "AsynDM is off" in off["status"]
    assert off["steps"]["visible"] is False
    assert studio.step(off["desk"], 1) == ""


@pytest.mark.parametrize("changed", [{"steps": 1}, {"strength": 0}, {"curve": "linear"}])
def test_it_is_noted_where_nothing_lags(built: Any, studio: Studio, changed: dict[str, Any]) -> None:
    last = list(draw(studio, values(built, **changed)))[-1]
    assert "Note: no pixel lagged behind, so this is the ordinary picture." in last["status"]
    assert "slow on average" not in last["status"] and "held back:" not in last["step"]


def test_one_step_has_no_slider(built: Any, studio: Studio) -> None:
    """gradio refuses one with one value, and then the page waited for ever."""
    last = list(draw(studio, values(built, steps=1)))[-1]
    slider = of(built, "step").inputs[1]
    type(slider)(**{**slider.constructor_args, **{name: last["slider"][name] for name in ("maximum", "value")}})
    assert last["slider"]["visible"] is False and last["steps"]["visible"] is True
    assert len(images(last["step"])) == 3


@pytest.mark.parametrize("seed", [-1, None])
def test_a_random_seed_is_told(built: Any, studio: Studio, seed: int | None) -> None:
    seeds = {list(draw(studio, values(built, seed=seed, steps=1, width=32, height=32)))[-1]["seed"] for _ in range(2)}
    assert len(seeds) == 2 and min(seeds) >= 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": "a shark riding a bik"}, "does not know the word 'bik'. Did you mean bike"),
        ({"prompt": ""}, "The prompt names no animal"),
        ({"prompt": None}, "The prompt names no animal"),
        ({"prompt": "a red boat"}, "The prompt names no animal"),
        ({"prompt": "a shark and a penguin"}, "one animal at a time; this prompt has shark and penguin"),
        ({"prompt": "a shark " * 15}, "reads at most 22 words; this prompt has 30"),
        ({"objects": "green bike"}, "'green bike' is not in the prompt"),
        ({"objects": "shark:x"}, "must follow the colon"),
        ({"start": 0.9, "end": 0.1}, "Start must be less than End, but they are 0.9 and 0.1"),
        ({"region": "mask"}, "needs a mask"),
        ({"solver": "DDIM", "scheduler": "karras"}, "only the scheduler 'uniform' gives"),
        ({"solver": "DDIM", "steps": 1}, "Steps must be between 2"),
        ({"width": 65}, "multiples of 16"),
        ({"steps": 999}, "Steps must be between 1 and 150 for Euler, got 999"),
        ({"steps": 2.5}, "Steps must be a whole number, got 2.5"),
        ({"steps": None}, "Steps has no value"),
        ({"guidance": None}, "Guidance has no value"),
        ({"strength": 7}, "Strength must lie between 0 and 1, but it is 7"),
        ({"seed": -5}, "Seed must be between 0 and"),
        ({"prompt": "a shark on the <b>moon"}, "does not know the word 'b'"),
    ],
)
def test_what_is_wrong_is_said(built: Any, studio: Studio, changed: dict[str, Any], message: str) -> None:
    (only,) = draw(studio, values(built, **changed))
    assert 'role="alert"' in only["status"]
    assert message in only["status"].replace("&#x27;", "'")
    assert only["run"]["interactive"] and not only["interrupt"]["interactive"] and not images(only["gallery"])


def test_gradio_leaves_numbers_to_us(built: Any) -> None:
    """It would refuse them before our function is called, in words that name neither the number nor its limits."""
    for control in of(built, "draw").inputs[1:]:
        if control.get_block_name() in ("slider", "number"):
            assert control.preprocess(-7) == -7 and control.preprocess(1e9) == 1e9 and control.preprocess(None) is None


# --- the judge ------------------------------------------------------------------------------------------------------


class Judged:
    """Says of one picture after the other what it was told to."""

    def __init__(self, *counts: dict[str, int]) -> None:
        self.counts, self.looked_at = list(counts), []

    def see(self, pictures: Any) -> list[Seen]:
        self.looked_at.append(pictures)
        return [Seen(self.counts[len(self.looked_at) - 1], "street", "day", "red", uses=True)]


def test_it_is_said_whether_a_picture_is_right(built: Any) -> None:
    judge = Judged({"shark": 1}, {"shark": 1, "bike": 1}, {"shark": 2, "bike": 1})
    last = list(draw(Studio(Engine(random_model(), judge), SHOWN), values(built)))[-1]
    assert [tuple(one.shape) for one in judge.looked_at] == [(1, 3, 128, 128)] * 3
    for shown, variant in zip(judge.looked_at, VARIANTS, strict=True):
        assert (array(to_picture(shown[0])) == array(outcome_of(last).pictures[variant])).all()
    asked = read(PROMPT).text
    seen = [Seen(one, "street", "day", "red", True) for one in judge.counts]
    expected = [faults(one, asked, verdict(one, asked)) for one in seen]
    assert list(outcome_of(last).faults.values()) == expected and expected[1] == []
    said = re.findall(r'<span class="studio-verdict studio-(\w+)">(.*?)</span>', last["gallery"])
    assert [kind for kind, _ in said] == ["fault", "right", "fault"]
    assert said[1][1] == "✓ Right: it shows what the prompt says."
    for (_, text), found in zip(said[::2], expected[::2], strict=True):
        assert html.unescape(text) == f"✗ Wrong: {', '.join(found)}."
    tags = re.findall(r'<span class="asyndm-tag[^>]*>(.*?)</span>', last["gallery"])
    assert tags == ["Plain ✗", "AsynDM ✗"]
    assert pictures.verdict(["a <b>"]).count("<b>") == 0
    saved = Studio(Engine(random_model()), SHOWN).bundle(last["desk"])[0]
    assert json.loads(saved)["text"].count("studio-verdict studio-") == 3


@pytest.mark.parametrize(("size", "judge"), [((64, 128), Judged()), ((128, 128), None)])
def test_what_cannot_be_judged_is_not(built: Any, size: tuple[int, int], judge: Any) -> None:
    studio = Studio(Engine(random_model(), judge), SHOWN)
    last = list(draw(studio, values(built, width=size[0], height=size[1])))[-1]
    assert outcome_of(last).faults == {} and "studio-verdict" not in last["gallery"]


def test_a_model_without_a_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr("asyndm_ext.world.judge.load_judge", partial(load_judge, tmp_path))
    assert command._judge() is None
    assert "the pictures are not judged: no judge.safetensors" in capsys.readouterr().err


# --- the engine -----------------------------------------------------------------------------------------------------


def hooks() -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in random_model().unet.modules())


def test_interrupt_ends_this_window_s_drawing(built: Any, studio: Studio) -> None:
    clean = hooks()
    before = list(draw(studio, values(built)))[-1]
    drawing = draw(studio, values(built, steps=100), before["desk"])
    first = next(drawing)
    assert "of 300" in first["status"] and first["steps"]["visible"] is False
    studio.interrupt(SimpleNamespace(session_hash="another"))
    studio.interrupt(WINDOW)
    *_, last = drawing
    assert "Interrupted" in last["status"] and last["run"]["interactive"]
    assert hooks() == clean
    shown = ("gallery", "desk", "steps", "slider", "step", "seed", "runs", "actions", "link")
    assert {name: last[name] for name in shown} == {name: before[name] for name in shown}, "as it was before"
    studio.interrupt(WINDOW)  # nothing is running
    again = list(draw(studio, values(built)))[-1]
    assert images(again["gallery"])[2].tobytes() == images(before["gallery"])[2].tobytes()


def test_a_window_that_is_closed_leaves_nothing_running(built: Any) -> None:
    job, variants = job_from(
        {**SMALL, "steps": 100, "solver": "Euler", "scheduler": "uniform", "guidance": 4.0}, {"enabled": True}
    )
    drawing = Engine(random_model()).draw(job, variants, threading.Event())
    assert isinstance(next(drawing), Progress)
    drawing.close()
    assert not [one for one in threading.enumerate() if one.name == "asyndm-drawing"]


def test_progress_counts_all_steps() -> None:
    job, variants = job_from(
        {**SMALL, "solver": "Euler", "scheduler": "uniform", "guidance": 4.0},
        {"enabled": True, "mask_source": "fixed"},
    )
    *progress, outcome = Engine(random_model()).draw(job, variants, threading.Event())
    assert isinstance(outcome, Outcome) and all(isinstance(one, Progress) for one in progress)
    steps = [one.step for one in progress]
    assert steps == sorted(steps) and steps[-1] == progress[-1].total == 16
    assert [one.variant for one in progress if one.step in (4, 8, 16)][-1] == "asyndm"
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Interrupted):
        list(Engine(random_model()).draw(job, variants, stopped))


# --- chips, views ---------------------------------------------------------------------------------------------------


def test_chips_are_the_model_s_own_objects() -> None:
    assert [chip.text for chip in chips.chips(PROMPT, "", find_objects)] == ["shark", "bike"]
    line = chips.html("a sharkk", "", "objects", find_objects)
    assert "asyndm-wrong" in line and "Did you mean shark" in line
    assert "are shown here" in chips.html("", "", "objects", find_objects)
    assert "one animal at a time" in chips.html("a shark and a penguin", "", "objects", find_objects)


def test_what_can_be_drawn_is_listed() -> None:
    rows = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", messages.words()))
    assert {name: row.count(",") + 1 for name, row in rows.items()}["Their colours"] == 4
    assert all(set(split(row)) <= set(WORDS) for row in rows.values()), "and every word of it is known"
    animals, things, paints, places, times = (row.split(", ") for row in rows.values())
    for i in range(max(map(len, (animals, things, places, times)))):
        animal, thing, place, time = (names[i % len(names)] for names in (animals, things, places, times))
        text = read(f"two {animal} beside a {paints[0]} {thing} {place} {time}").text
        assert None not in (text.animal, text.thing, text.paint, text.ground, text.light)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, 'Only the pixels of "shark" and "bike" keep'),
        ({"region": "everything"}, "Every pixel keeps its noise for longer"),
        ({"region": "mask"}, "Only the pixels under the mask keep"),
        ({"region": "mask", "mask_invert": True}, "Only the pixels outside the mask keep"),
        ({"region": "objects and mask", "objects": "bike"}, 'of "bike" that are under the mask keep'),
        ({"strength": 0}, "nothing is held back"),
        ({"mask_source": "guidance"}, "Only the pixels where the prompt makes a difference keep"),
        ({"order": "in turn"}, 'In turn: "shark" until 33% of the steps, "bike" until 67% of the steps.'),
        ({"objects": "bike > shark"}, 'In turn: "bike" until 33% of the steps, "shark" until 67% of the steps.'),
    ],
)
def test_a_picture_says_what_was_slow(settings: dict[str, Any], said: str) -> None:
    white = mask_image.encode(Image.new("L", (8, 8), 255))
    half = mask_image.encode(Image.new("L", (8, 8), 128))
    mask = half if settings.get("mask_invert") else white
    drawing = {**SMALL, "solver": "Euler", "scheduler": "uniform", "guidance": 4.0}
    job, _ = job_from(drawing, {"enabled": True, "mask": mask, **settings})
    assert said in explanation(job, "asyndm")


def test_the_chart_ends_where_the_noise_does(built: Any, studio: Studio) -> None:
    result = outcome_of(list(draw(studio, values(built)))[-1]).results["asyndm"]
    chart = steps.chart(result, 2)
    lines = [
        [tuple(map(float, point.split(","))) for point in line.split()]
        for line in re.findall(r'<polyline class="[^"]+" points="([^"]+)"', chart)
    ]
    for line in lines:
        assert line[0] == (0.0, 0.0) and line[-1][0] == 600.0
        assert [y for _, y in line] == sorted(y for _, y in line)
    assert any(below != above for below, above in zip(*lines, strict=True))
    assert f'x1="{lines[0][2][0]:.1f}"' in chart


# --- the command and its server -------------------------------------------------------------------------------------


def test_the_page_is_served_with_the_webui_s_own_script_and_style() -> None:
    running = server.Server(Engine(random_model()))
    try:
        url = running.start("127.0.0.1", 0, browser=False)
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
            policy = answer.headers["Content-Security-Policy"]
    finally:
        running.stop()
    for part in ("var asyndm = ", "var gradioApp = ", ".asyndm-chips", ".studio-gallery", ".studio-lightbox"):
        assert part in text
    assert policy == "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:", "nothing from another server"
    for name in ("javascript/asyndm.js", "style.css"):
        assert assets.panel_text_of(name) in server.head()
    with pytest.raises(FileNotFoundError):
        assets.panel_text_of("javascript/other.js")


def test_a_free_port_that_is_taken_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    running, free = server.Server(Engine(random_model())), server._free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], free("127.0.0.1")])
        monkeypatch.setattr(server, "_free_port", lambda host: next(ports))
        try:
            assert urllib.request.urlopen(running.start("127.0.0.1", 0, browser=False), timeout=60).status == 200
        finally:
            running.stop()
        assert next(ports, None) is None


def test_it_is_a_command(capsys) -> None:
    assert COMMANDS["studio"].module == command.__name__
    with pytest.raises(SystemExit) as left:
        asyndm(["studio", "--help"])
    assert left.value.code == 0 and "--listen" in capsys.readouterr().out


def test_its_options() -> None:
    def parsed(*arguments: str) -> Any:
        return command.build_parser().parse_args(arguments)

    assert (parsed().host, parsed().port, parsed().no_browser) == ("127.0.0.1", 7870, False)
    assert parsed("--listen").host == "0.0.0.0"
    assert parsed("--host", "10.0.0.1", "--port", "0").port == 0
    for wrong in (("--port", "x"), ("--port", "70000"), ("--port", "-1"), ("--host", "h", "--listen"), ("--share",)):
        with pytest.raises(SystemExit) as left:
            parsed(*wrong)
        assert left.value.code == 2


def test_a_missing_gradio_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command.main([]) == 1
    assert capsys.readouterr().err == (
        "asyndm studio: gradio is missing; pip install 'asyndm-webui[studio]' brings it\n"
    )
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="3.41.2"))
    assert command.main([]) == 1
    assert "gradio 3.41.2 is older than 5.50" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(model, "load_world", random_model)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert command.main(["--no-browser", "--port", str(taken.getsockname()[1])]) == 1
    said = capsys.readouterr().err
    assert said.startswith("asyndm studio: ") and "--port" in said and "Traceback" not in said
