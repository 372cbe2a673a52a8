"""The ``asyndm`` command, in-process: files, parameters, summaries, pictures, and what it says to bad arguments."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from asyndm_ext import __version__, drawing, strip
from asyndm_ext.embedded import cli, filmstrip, model, sampling
from asyndm_ext.embedded.model import load_tiny
from asyndm_ext.embedded.sampling import (
    COUNTED_SOLVERS,
    SCHEDULERS,
    VARIANTS,
    Job,
    automatic_objects,
    base_schedule,
    object_columns,
    run_variant,
    step_count,
)
from asyndm_ext.embedded.vocabulary import Tokenizer
from asyndm_ext.noise import NoiseTable
from asyndm_ext.objects import parse_objects
from asyndm_ext.settings import Settings
from asyndm_ext.ui.coverage import NOTHING_LAGGED

PROMPT = "a red circle and a blue square"
FILES = {"plain", "concave", "asyndm", "comparison", "filmstrip"}
STEPS = 4
# How the WebUI reads its own parameter line.
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@cache
def tiny() -> model.TinyModel:
    """The shipped weights, or random ones where there are none: the command is the same."""
    if list(model.WEIGHTS.glob("*.safetensors")):
        return load_tiny()
    torch.manual_seed(0)
    return model.TinyModel().eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "load_tiny", tiny)


def job(**values) -> Job:
    settings = {"objects": ("red circle", "blue square"), **values.pop("settings", {})}
    chosen = {"prompt": PROMPT, "seed": 5, "steps": STEPS, "width": 64, "height": 64, **values}
    return Job(settings=Settings(enabled=True, **settings), **chosen)


@dataclass
class Outcome:
    """What a call of the command left behind."""

    folder: Path
    out: str
    err: str

    def picture(self, name: str) -> Image.Image:
        with Image.open(self.folder / f"{name}.png") as image:
            image.load()
            return image


def call(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    assert cli.main([PROMPT, "--seed", "5", "--steps", str(STEPS), "--out", str(folder), *arguments]) == 0
    return Outcome(folder, *capsys.readouterr())


def parameters(image: Image.Image) -> tuple[str, dict[str, str]]:
    """The prompt and the pairs of a PNG's text chunk."""
    prompt, line = image.text["parameters"].split("\n")
    return prompt, {key: json.loads(value) if value[:1] == '"' else value for key, value in _PAIR.findall(line)}


# --- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_writes_five_pictures_and_a_summary(tmp_path, capsys):
    outcome = call(tmp_path / "deep" / "out", capsys, "--json")
    summary = json.loads(outcome.out)
    assert {path.name for path in outcome.folder.iterdir()} == {f"{name}.png" for name in FILES}
    assert {name: Path(path) for name, path in summary["files"].items()} == {
        name: (outcome.folder / f"{name}.png").resolve() for name in FILES
    }
    assert summary["seed"] == 5
    assert summary["parameters"]["steps"] == STEPS
    assert summary["objects"] == [
        {"words": "a red circle", "columns": [1, 2, 3]},
        {"words": "a blue square", "columns": [5, 6, 7]},
    ]
    assert summary["objects_from"] == "prompt"
    assert f"{3 * STEPS}/{3 * STEPS}" in outcome.err

    runs = summary["runs"]
    assert list(runs) == list(VARIANTS)
    assert all(run["seconds_per_step"] > 0 and len(run["slow_fraction"]) == STEPS for run in runs.values())
    assert runs["plain"]["slow_fraction"] == [0.0] * STEPS
    assert runs["concave"]["slow_fraction"] == [1.0] * STEPS
    assert all(0 < fraction < 1 for fraction in runs["asyndm"]["slow_fraction"])
    for name in ("plain", "concave"):
        assert all(low == high for low, high in runs[name]["timesteps"])
    assert any(low < high for low, high in runs["asyndm"]["timesteps"])

    images = {name: outcome.picture(name) for name in FILES}
    assert len({images[variant].tobytes() for variant in VARIANTS}) == 3
    assert all(images[variant].size == (128, 128) for variant in VARIANTS)
    assert images["comparison"].width > 3 * 384
    for name in FILES:
        prompt, pairs = parameters(images[name])
        assert prompt == PROMPT
        assert pairs["Seed"] == "5"
        assert pairs["Sampler"] == "Euler"
        assert pairs["Size"] == "128x128"
        assert ("AsynDM strength" in pairs) == (name != "plain")
        assert pairs.get("AsynDM region") == {"plain": None, "concave": "everything"}.get(name, "objects")
        assert pairs.get("AsynDM objects") == (None if name in ("plain", "concave") else "a red circle, a blue square")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny().modules())


def test_a_seed_gives_the_same_bytes(tmp_path, capsys):
    first, second = (call(tmp_path / name, capsys, "--size", "64", "--solver", "euler A") for name in "ab")
    for name in FILES:
        assert (first.folder / f"{name}.png").read_bytes() == (second.folder / f"{name}.png").read_bytes(), name


def test_a_random_seed_is_reported(tmp_path, capsys):
    seeds = set()
    for _ in range(2):
        cli.main([PROMPT, "--steps", "1", "--size", "32", "--out", str(tmp_path), "--json"])
        seeds.add(json.loads(capsys.readouterr().out)["seed"])
    assert len(seeds) == 2


def test_a_person_is_told_where_to_look(tmp_path, capsys):
    outcome = call(tmp_path, capsys, "--size", "64x96", "--objects", "circle", "--solver", "DDIM")
    assert outcome.out.startswith(f"prompt: {PROMPT}; seed: 5\nobjects: circle (as given)\n")
    assert outcome.out.endswith(f"All five pictures are in {tmp_path}.\n")
    assert "note:" not in outcome.out
    assert all(str(tmp_path / f"{name}.png") in outcome.out for name in FILES)
    assert outcome.picture("asyndm").size == (64, 96)


@pytest.mark.parametrize("solver", COUNTED_SOLVERS)
def test_strength_zero_is_plain_bit_for_bit(solver):
    chosen = job(solver=solver, settings={"strength": 0.0})
    results = [run_variant(tiny(), chosen, variant) for variant in VARIANTS]
    assert all(len(r.strength) == len(r.predictions) == step_count(tiny(), chosen) for r in results)
    latents = [result.latent for result in results]
    assert torch.isfinite(latents[0]).all()
    assert torch.equal(latents[0], latents[1])
    assert torch.equal(latents[0], latents[2])


def test_runs_as_a_module_from_any_directory(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    command = [sys.executable, "-m", "asyndm_ext", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"asyndm {__version__}\n"


# --- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_sigmas_fall_from_the_models_highest_to_its_lowest_to_zero(scheduler):
    table = NoiseTable.from_alphas_cumprod(tiny().alphas_cumprod)
    base = base_schedule(job(scheduler=scheduler, steps=10), table)
    assert base.steps == step_count(tiny(), job(steps=10)) == 10
    assert base.final == 0
    assert torch.allclose(base.nodes[[0, -1]], table.log_sigmas[[-1, 0]].exp(), rtol=1e-12)
    assert (base.nodes.diff() < 0).all()


def test_karras_and_exponential_are_k_diffusions():
    sampling = pytest.importorskip("k_diffusion.sampling")
    table = NoiseTable.from_alphas_cumprod(tiny().alphas_cumprod)
    ends = [float(table.log_sigmas[i].exp()) for i in (0, -1)]
    for scheduler in ("karras", "exponential"):
        theirs = getattr(sampling, f"get_sigmas_{scheduler}")(10, *ends)[:-1].double()
        assert torch.allclose(base_schedule(job(scheduler=scheduler, steps=10), table).nodes, theirs, rtol=1e-5)


def test_timesteps_are_the_webuis():
    base = base_schedule(job(solver="DDIM", steps=4), NoiseTable.from_alphas_cumprod(tiny().alphas_cumprod))
    assert base.nodes.tolist() == [751, 501, 251, 1]


# --- objects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a red circle and a blue square", ["a red circle", "a blue square"]),
        ("two green stars above a circle on a white background", ["two green stars", "a circle"]),
        ("a red circle and a red circle", ["a red circle"]),
        ("orange triangle, star", ["orange triangle", "star"]),
        ("red", []),
    ],
)
def test_automatic_objects(prompt, found):
    assert automatic_objects(Tokenizer().words(prompt)) == found


@pytest.mark.parametrize(
    ("phrase", "columns"),
    [("red circle", [2, 3]), ("Blue  circle", [6, 7]), ("a blue circle", [5, 6, 7]), ("circle", [3, 7]), ("blue", [6])],
)
def test_a_word_that_comes_twice_is_told_apart_by_its_phrase(phrase, columns):
    assert object_columns(Tokenizer(), "a red circle and a blue circle", parse_objects(phrase)) == [columns]


def test_a_phrase_leaves_to_a_longer_one_what_is_its():
    phrases = parse_objects("circle, red circle")
    assert object_columns(Tokenizer(), "a circle and a red circle", phrases) == [[2], [5, 6]]
    assert object_columns(Tokenizer(), "a red circle", phrases) == [[3], [2, 3]]


def test_a_place_of_its_own():
    phrases = parse_objects("circle#2:0.3, circle#1")
    assert object_columns(Tokenizer(), "a red circle and a blue circle", phrases) == [[7], [3]]
    with pytest.raises(ValueError, match="'circle#3' is not in the prompt"):
        object_columns(Tokenizer(), "a red circle and a blue circle", parse_objects("circle#3"))


# --- bad arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a red dog"], "does not know 'dog'"),
        ([" ".join(["a red circle and"] * 8)], "reads at most 22 words"),
        ([""], "no object found"),
        (["a red"], "no object found"),
        ([], "there is no prompt; write one behind the command"),
        ([PROMPT, "--objects", "red circle, green star"], "'green star' is not in the prompt"),
        ([PROMPT, "--objects", "red square"], "'red square' is not in the prompt"),
        ([PROMPT, "--objects", "a"], "the object 'a' names nothing"),
        ([PROMPT, "--strength", "1.5"], "Strength must"),
        ([PROMPT, "--strength", "-0.1"], "Strength must"),
        ([PROMPT, "--strength", "nan"], "argument --strength: 'nan' is not a number"),
        ([PROMPT, "--strength", "much"], "argument --strength: 'much' is not a number"),
        ([PROMPT, "--threshold", "0"], "Threshold must"),
        ([PROMPT, "--guidance", "-1"], "guidance must lie between 0 and 30, got -1"),
        ([PROMPT, "--guidance", "1e5"], "guidance must lie between 0 and 30, got 100000"),
        ([PROMPT, "--steps", "0"], "steps must be between 1 and 150"),
        ([PROMPT, "--steps", "1", "--solver", "DDIM"], "steps must be between 2 and 150 for DDIM"),
        ([PROMPT, "--seed", "-2"], "seed must"),
        ([PROMPT, "--seed", "five"], "argument --seed: 'five' is not a whole number"),
        ([PROMPT, "--size", "100"], "multiples of 32 from 32 to 512, got 100x100"),
        ([PROMPT, "--size", "128x544"], "multiples of 32 from 32 to 512, got 128x544"),
        ([PROMPT, "--size", "big"], "'big' is not a size"),
        ([PROMPT, "--solver", "Heun++"], "unknown name 'Heun++'; choose one of: Euler"),
        ([PROMPT, "--curve", "cubic"], "unknown name 'cubic'"),
        ([PROMPT, "--solver", "DDIM", "--scheduler", "karras"], "DDIM walks along whole timesteps"),
    ],
)
def test_a_bad_argument_is_named_and_leaves_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    first, *rest = printed.err.splitlines()
    assert message in first and rest == ["asyndm --help lists the options."]
    assert printed.out == ""
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_folders_place_is_refused_before_anything_is_drawn(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        cli.main([PROMPT, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def earlier(folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    for name in FILES:
        (folder / f"{name}.png").write_bytes(name.encode())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("arguments", [[], ["--out", "asyndm_out"]], ids=["default", "explicit"])
def test_earlier_pictures_are_left_alone(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = earlier(tmp_path / "asyndm_out")
    for number in (2, 3):
        assert cli.main(["a", "red", "circle", "--steps", "1", "--size", "32", *arguments]) == 0
        out = capsys.readouterr().out
        assert out.endswith(
            f"All five pictures are in asyndm_out-{number}, because asyndm_out holds earlier pictures.\n"
        )
        assert str(Path(f"asyndm_out-{number}", "plain.png")) in out
        assert len(list((tmp_path / f"asyndm_out-{number}").iterdir())) == 5
    assert {path.name: path.read_bytes() for path in (tmp_path / "asyndm_out").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "1"], True),
        (["--strength", "0"], True),
        (["--curve", "linear"], True),
        ([], False),
    ],
    ids=str,
)
def test_where_nothing_lags_a_note_says_so(arguments, said, tmp_path, capsys):
    outcome = call(tmp_path / "person", capsys, "--size", "64", *arguments)
    assert (f"note: {NOTHING_LAGGED}\n" in outcome.out) == said
    same = outcome.picture("asyndm").tobytes() == outcome.picture("plain").tobytes()
    assert same == said
    note = json.loads(call(tmp_path / "program", capsys, "--size", "64", "--json", *arguments).out)["note"]
    assert note == (NOTHING_LAGGED if said else None)


@pytest.mark.parametrize("moment", ["run_variant", "filmstrip"])
def test_ctrl_c_leaves_nothing(moment, tmp_path, monkeypatch, capsys):
    def stopped(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr({"run_variant": sampling, "filmstrip": filmstrip}[moment], moment, stopped)
    assert cli.main([PROMPT, "--steps", "1", "--size", "32", "--out", str(tmp_path / "out")]) == 130
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.splitlines()[-1] == "asyndm: interrupted, nothing written"
    assert not (tmp_path / "out").exists()


def test_a_terminal_without_umlauts(tmp_path, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=e) for e in ("strict", "backslashreplace"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    for number in range(2):
        arguments = ["--json"] if number else []
        assert cli.main([PROMPT, "--steps", "1", "--size", "32", "--out", str(tmp_path / "Bücher"), *arguments]) == 0
        out.flush()
    text = out.buffer.getvalue().decode("ascii")
    report, summary = text[: text.index("{")], json.loads(text[text.index("{") :])
    assert "B\\xfccher" in report
    assert Path(summary["files"]["plain"]) == (tmp_path / "Bücher-2" / "plain.png").resolve()
    err.flush()
    assert "100%|####" in err.buffer.getvalue().decode("ascii")


def test_missing_weights_are_a_message(tmp_path, monkeypatch, capsys):
    def missing() -> None:
        raise FileNotFoundError("no tiny.safetensors")

    monkeypatch.setattr(model, "load_tiny", missing)
    assert cli.main([PROMPT, "--out", str(tmp_path / "out")]) == 1
    assert "asyndm: no tiny.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "steps"), [((128, 128), 12), ((64, 96), 2)])
def test_the_filmstrip_shows_what_was_recorded(size, steps):
    chosen = job(width=size[0], height=size[1], steps=steps)
    result = run_variant(tiny(), chosen, "asyndm")
    page = filmstrip.filmstrip(chosen, result, tiny().decode)
    layout = filmstrip.layout(chosen, result)
    assert page.size == layout.size
    assert layout.steps[0] == 0
    assert layout.steps[-1] == steps - 1
    assert len(layout.steps) == min(steps, strip.COLUMNS)
    half = layout.factor // 2
    for column, step in enumerate(layout.steps):
        colours = drawing.clock_colours(result.timestep[step])
        for y in range(0, result.strength.shape[1], 3):
            for x in range(0, result.strength.shape[2], 3):
                inside = (x * layout.factor + half, y * layout.factor + half)
                mask, clock = (
                    page.getpixel((left + inside[0], top + inside[1]))
                    for left, top in (layout.origin(1, column), layout.origin(2, column))
                )
                # The picture below the tint is grey; the tint is orange.
                assert (mask[0] - mask[2] > 100) == bool(result.strength[step, y, x] > 0)
                assert clock == tuple(colours[y, x])


def test_a_long_prompt_fits_a_narrow_page():
    prompt = (
        "three yellow triangles to the left of three orange triangles and three purple triangles on a white background"
    )
    chosen = job(prompt=prompt, settings={"objects": ("yellow triangles",)}, steps=2, width=32, height=32)
    result = run_variant(tiny(), chosen, "asyndm")
    layout = filmstrip.layout(chosen, result)
    page = filmstrip.filmstrip(chosen, result, tiny().decode)
    margin = page.crop((page.width - drawing.MARGIN, 0, page.width, layout.top))
    assert margin.getcolors() == [(margin.width * margin.height, drawing.PAPER)]


def test_the_name_stands_once_before_a_message(tmp_path, capsys):
    """The settings' own messages begin with AsynDM's name, the command's with the command's."""
    with pytest.raises(SystemExit):
        cli.main([PROMPT, "--strength", "1.5", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.startswith("asyndm: Strength must lie between 0 and 1, but it is 1.5\n")
