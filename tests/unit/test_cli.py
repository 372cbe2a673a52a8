"""The ``asyndm`` command, in-process: files, parameters, report, summary, and what it says to bad arguments."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from asyndm_ext import __version__
from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.embedded import cli, comparison, filmstrip, rows
from asyndm_ext.embedded.job import COUNTED_SOLVERS, VARIANTS, automatic_objects, object_columns
from asyndm_ext.embedded.limits import SCHEDULERS
from asyndm_ext.embedded.sampling import base_schedule, run_variant, step_count
from asyndm_ext.picture import drawing, strip
from asyndm_ext.prompt.objects import parse_objects
from asyndm_ext.ui.coverage import NOTHING_LAGGED
from asyndm_ext.world import judge, model
from asyndm_ext.world.judge import Seen
from asyndm_ext.world.tokens import Tokenizer
from tests.support.processes import modules, start
from tests.support.tiny import job, random_model

PROMPT = "a shark riding a bike"
SINGLES = {f"{variant}-{seed}" for variant in VARIANTS for seed in (5, 6)}
FILES = {"comparison", "filmstrip"} | SINGLES
STEPS = 4
# How the WebUI reads its own parameter line.
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')

LOADERS = {"load_world": model.load_world, "load_judge": judge.load_judge}
RIDING = Seen({"shark": 1, "bike": 1}, "street", "day", "red", True)
ALONE = Seen({"shark": 1}, "sea", "day", "red", False)


class Scripted:
    """A judge that sees what it is told to see: a row of three for each seed, the last for all others.

    The random model's pictures show nothing, and what the trained judge makes of them is no concern of these tests.
    """

    SCRIPT = ((ALONE, ALONE, RIDING), (RIDING, RIDING, RIDING))

    def __init__(self) -> None:
        self.looked_at: list[torch.Tensor] = []

    def see(self, pictures: torch.Tensor) -> list[Seen]:
        self.looked_at.append(pictures)
        return list(self.SCRIPT[min(len(self.looked_at), len(self.SCRIPT)) - 1])


@pytest.fixture(autouse=True)
def judges(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    """Every judge that was loaded; the model is a small random one."""
    loaded: list[Scripted] = []

    def load() -> Scripted:
        loaded.append(Scripted())
        return loaded[-1]

    monkeypatch.setattr(model, "load_world", random_model)
    monkeypatch.setattr(judge, "load_judge", load)
    return loaded


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
    given = [PROMPT, "--seed", "5", "--seeds", "2", "--steps", str(STEPS), "--out", str(folder), *arguments]
    assert cli.main(given) == 0
    return Outcome(folder, *capsys.readouterr())


def parameters(image: Image.Image) -> tuple[str, dict[str, str]]:
    """The prompt and the pairs of a PNG's text chunk."""
    prompt, line = image.text["parameters"].split("\n")
    return prompt, {key: json.loads(value) if value[:1] == '"' else value for key, value in _PAIR.findall(line)}


# --- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_writes_a_sheet_a_filmstrip_and_every_picture(tmp_path, capsys):
    outcome = call(tmp_path / "deep" / "out", capsys)
    assert {path.name for path in outcome.folder.iterdir()} == {f"{name}.png" for name in FILES}
    assert f"{6 * STEPS}/{6 * STEPS}" in outcome.err
    assert all(f"seed {seed}, {variant:>7}" in outcome.err for seed in (5, 6) for variant in VARIANTS)
    images = {name: outcome.picture(name) for name in FILES}
    assert len({images[name].tobytes() for name in SINGLES}) == 6
    assert all(images[name].size == (128, 128) for name in SINGLES)
    for name in FILES:
        prompt, pairs = parameters(images[name])
        variant, _, seed = name.partition("-")
        assert prompt == PROMPT
        assert pairs["Seed"] == (seed or "5")
        assert pairs["Sampler"] == "Euler"
        assert pairs["Size"] == "128x128"
        assert ("AsynDM strength" in pairs) == (variant != "plain")
        assert pairs.get("AsynDM region") == {"plain": None, "concave": "everything"}.get(variant, "objects")
        assert pairs.get("AsynDM objects") == (None if variant in ("plain", "concave") else "shark, bike")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in random_model().modules())


def test_what_a_person_reads(tmp_path, capsys):
    outcome = call(tmp_path / "out", capsys)
    out = tmp_path / "out"
    assert (
        outcome.out
        == f"""\
prompt:  a shark riding a bike
seeds:   5 to 6
objects: shark, bike (found in the prompt)

Plain           right in 1 of 2
Plain, concave  right in 1 of 2
AsynDM          right in 2 of 2

Seed 5, now right: plain shows a shark and no bike, AsynDM a shark riding a bike.
Nothing that the judge can see changed in seed 6.

Two seeds prove nothing, one way or the other. Whether AsynDM helps is measured over hundreds of
pictures, with error bars, by "asyndm evaluate".

{out / "comparison.png"}: all pictures, side by side; look here first
{out / "filmstrip.png"}: how AsynDM drew seed 5, step by step
plain-5.png to asyndm-6.png: the pictures alone
All 8 pictures are in {out}.
"""
    )


def test_four_seeds_from_the_first_on_nobody_picks(tmp_path, capsys):
    assert cli.main([PROMPT, "--seed", "7", "--steps", "1", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == [7, 8, 9, 10]


def test_a_seed_alone_gives_the_same_bytes(tmp_path, capsys):
    """As in the second row of others, and again."""
    both = call(tmp_path / "both", capsys, "--solver", "euler A")
    alone, again = (
        call(tmp_path / name, capsys, "--solver", "euler A", "--seed", "6", "--seeds", "1") for name in ("a", "b")
    )
    for variant in VARIANTS:
        name = f"{variant}-6.png"
        assert (both.folder / name).read_bytes() == (alone.folder / name).read_bytes(), name
    for path in alone.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes(), path.name


def test_a_random_seed_is_reported(tmp_path, capsys):
    seeds = set()
    for _ in range(2):
        cli.main([PROMPT, "--steps", "1", "--seeds", "2", "--out", str(tmp_path), "--json"])
        first, second = json.loads(capsys.readouterr().out)["seeds"]
        assert second == first + 1 and first < 10**6
        seeds.add(first)
    assert len(seeds) == 2


def test_another_size_is_not_judged(tmp_path, capsys, judges):
    """The judge knows pictures of 128x128; of others it would say anything."""
    outcome = call(tmp_path, capsys, "--size", "64x96", "--objects", "shark", "--solver", "DDIM")
    assert judges == []
    assert "objects: shark (as given)\n" in outcome.out
    assert (
        "Nothing is said about right and wrong at 64x96: the judge has only learnt pictures of 128x128" in outcome.out
    )
    assert "right in" not in outcome.out
    assert outcome.picture("asyndm-6").size == (64, 96)
    summary = json.loads(call(tmp_path, capsys, "--size", "64x96", "--json").out)
    assert summary["right"] == dict.fromkeys(VARIANTS)
    assert {
        (one["right"], one["faults"], one["seen"]) for row in summary["rows"] for one in row["pictures"].values()
    } == {(None, None, None)}
    assert {row["change"] for row in summary["rows"]} == {None}


def test_the_judge_sees_the_pictures_that_are_written(tmp_path, capsys, judges):
    outcome = call(tmp_path, capsys)
    (one,) = judges
    assert [pictures.shape for pictures in one.looked_at] == [(3, 3, 128, 128)] * 2
    for pictures, seed in zip(one.looked_at, (5, 6), strict=True):
        for picture, variant in zip(pictures, VARIANTS, strict=True):
            assert drawing.to_picture(picture).tobytes() == outcome.picture(f"{variant}-{seed}").tobytes()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ([(ALONE, ALONE, ALONE)], ["Nothing that the judge can see changed from plain to AsynDM.\n"]),
        (
            [(RIDING, ALONE, ALONE), (ALONE, ALONE, Seen({}, "sea", "day", "red", False))],
            [
                "Seed 5, no longer right: plain shows a shark riding a bike, AsynDM a shark and no bike.\n",
                "Seed 6, wrong in both: plain shows a shark and no bike, AsynDM no shark and no bike.\n",
            ],
        ),
        (
            [(RIDING, ALONE, Seen({"shark": 1, "bike": 1}, "sea", "day", "red", True)), (ALONE, ALONE, ALONE)],
            [
                "Seed 5, right in both: plain shows a shark riding a bike on a street, AsynDM a shark riding a bike in"
                " the sea. ",
                "Nothing that the judge can see changed in seed 6. ",
            ],
        ),
    ],
    ids=["nothing", "for the worse", "the place"],
)
def test_what_changed_is_said(script, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Scripted, "SCRIPT", script)
    out = call(tmp_path, capsys).out
    for sentence in told:
        assert " ".join(sentence.split()) in " ".join(out.split())


def test_one_seed_is_told_as_one(tmp_path, capsys):
    out = call(tmp_path, capsys, "--seeds", "1").out
    assert "seeds:   5\n" in out
    assert "One seed proves nothing, " in out
    assert "plain-5.png, concave-5.png and asyndm-5.png: the pictures alone\n" in out


# --- for programs ---------------------------------------------------------------------------------------------------


def shape(value):
    """Keys and types, lists by their first item, seeds and clocks by name."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_the_summary_has_all_of_it(tmp_path, capsys):
    outcome = call(tmp_path / "out", capsys, "--json")
    summary = json.loads(outcome.out)
    assert summary["version"] == __version__
    assert summary["prompt"] == PROMPT
    assert summary["seeds"] == [5, 6]
    assert summary["parameters"]["steps"] == STEPS
    assert summary["objects"] == [{"words": "shark", "columns": [2]}, {"words": "bike", "columns": [5]}]
    assert summary["objects_from"] == "prompt"
    assert summary["right"] == {"plain": 1, "concave": 1, "asyndm": 2}
    first, second = summary["rows"]
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["change"] == "Seed 5, now right: plain shows a shark and no bike, AsynDM a shark riding a bike."
    assert second["change"] is None
    assert 0 <= first["changed_pixels"] <= 1
    assert list(first["pictures"]) == list(VARIANTS)
    plain, asyndm = first["pictures"]["plain"], first["pictures"]["asyndm"]
    assert (plain["right"], plain["faults"]) == (False, ["no bike"])
    assert (asyndm["right"], asyndm["faults"]) == (True, [])
    assert plain["seen"] == {
        "words": "a shark in the sea by day",
        "counts": {"shark": 1},
        "ground": "sea",
        "light": "day",
        "paint": "red",
        "uses": False,
    }
    for row in summary["rows"]:
        for variant, one in row["pictures"].items():
            assert Path(one["file"]) == (outcome.folder / f"{variant}-{row['seed']}.png").resolve()
            assert one["seconds_per_step"] > 0 and len(one["slow_fraction"]) == STEPS
            assert all(low == high for low, high in one["timesteps"]) == (variant != "asyndm")
        shares = {variant: one["slow_fraction"] for variant, one in row["pictures"].items()}
        assert shares["plain"] == [0.0] * STEPS and shares["concave"] == [1.0] * STEPS
        assert all(0 < share < 1 for share in shares["asyndm"])
    for name in ("comparison", "filmstrip"):
        assert Path(summary[name]) == (outcome.folder / f"{name}.png").resolve()


def test_the_summarys_shape_is_the_documents(tmp_path, monkeypatch, capsys):
    """docs/COMMAND.md has a whole example; programs may count on its keys and types."""
    page = (Path(cli.__file__).parents[2] / "docs" / "COMMAND.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.+?)```", page, re.DOTALL)
    beside = replace(RIDING, uses=False)
    monkeypatch.setattr(Scripted, "SCRIPT", [(ALONE, beside, RIDING)])
    summary = json.loads(call(tmp_path, capsys, "--json").out)
    assert shape(json.loads(example)) == shape(summary)
    told = json.loads(example)["rows"][0]
    assert told["change"] == summary["rows"][0]["change"].replace("5", "1", 1)
    for variant, one in told["pictures"].items():
        assert one["faults"] == summary["rows"][0]["pictures"][variant]["faults"]


def test_every_word_is_listed(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--words"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("A prompt of the little world has an animal") and '  asyndm "a shark riding a bike"' in out


@pytest.mark.parametrize("solver", COUNTED_SOLVERS)
def test_strength_zero_is_plain_bit_for_bit(solver):
    chosen = job({"strength": 0.0}, solver=solver)
    results = [run_variant(random_model(), chosen, variant) for variant in VARIANTS]
    assert all(len(r.strength) == len(r.predictions) == step_count(random_model(), chosen) for r in results)
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
    table = NoiseTable.from_alphas_cumprod(random_model().alphas_cumprod)
    base = base_schedule(job(scheduler=scheduler, steps=10), table)
    assert base.steps == step_count(random_model(), job(steps=10)) == 10
    assert base.final == 0
    lowest = table.log_sigmas[0].exp()
    assert torch.allclose(base.nodes[0], table.log_sigmas[-1].exp(), rtol=1e-12)
    # These two are made to have sigma 0 for their lowest level.
    assert (base.nodes[-1] > lowest) if scheduler in ("SGM uniform", "beta") else torch.isclose(base.nodes[-1], lowest)
    assert (base.nodes.diff() < 0).all()


def test_karras_and_exponential_are_k_diffusions():
    sampling = pytest.importorskip("k_diffusion.sampling")
    table = NoiseTable.from_alphas_cumprod(random_model().alphas_cumprod)
    ends = [float(table.log_sigmas[i].exp()) for i in (0, -1)]
    for scheduler in ("karras", "exponential"):
        theirs = getattr(sampling, f"get_sigmas_{scheduler}")(10, *ends)[:-1].double()
        assert torch.allclose(base_schedule(job(scheduler=scheduler, steps=10), table).nodes, theirs, rtol=1e-5)


def test_sgm_uniform_and_beta_are_the_webuis():
    stats = pytest.importorskip("scipy.stats")
    table = NoiseTable.from_alphas_cumprod(random_model().alphas_cumprod)
    last = len(table.log_sigmas) - 1
    for steps in (10, 30):
        even = last * (1 - torch.arange(steps, dtype=torch.float64) / steps)
        theirs = torch.as_tensor(stats.beta.ppf(even / last, 0.6, 0.6) * last).round()
        for scheduler, timesteps in (("SGM uniform", even), ("beta", theirs)):
            ours = table.sigma_to_t(base_schedule(job(scheduler=scheduler, steps=steps), table).nodes)
            assert torch.allclose(ours, timesteps, atol=1e-6)


def test_timesteps_are_the_webuis():
    base = base_schedule(job(solver="DDIM", steps=4), NoiseTable.from_alphas_cumprod(random_model().alphas_cumprod))
    assert base.nodes.tolist() == [751, 501, 251, 1]


# --- objects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a shark riding a bike", ["shark", "bike"]),
        ("Two polar bears, beside a yellow hot air balloon!", ["polar bears", "hot air balloon"]),
        ("a red boat and a cat at night", ["boat", "cat"]),
        ("a kitten", ["kitten"]),
    ],
)
def test_automatic_objects(prompt, found):
    assert automatic_objects(prompt) == found


@pytest.mark.parametrize(
    ("phrase", "columns"),
    [("red boat", [5, 6]), ("Red  BOAT", [5, 6]), ("a red boat", [4, 5, 6]), ("cat", [2, 8]), ("red", [5])],
)
def test_a_word_that_comes_twice_is_told_apart_by_its_phrase(phrase, columns):
    assert object_columns(Tokenizer(), "a cat in a red boat a cat", parse_objects(phrase)) == [columns]


def test_a_phrase_leaves_to_a_longer_one_what_is_its():
    phrases = parse_objects("bear, polar bear")
    assert object_columns(Tokenizer(), "a bear and a polar bear", phrases) == [[2], [5, 6]]
    assert object_columns(Tokenizer(), "a polar bear", phrases) == [[3], [2, 3]]


def test_a_place_of_its_own():
    phrases = parse_objects("cat#2:0.3, cat#1")
    assert object_columns(Tokenizer(), "a cat and a cat", phrases) == [[5], [2]]
    with pytest.raises(ValueError, match="'cat#3' is not in the prompt"):
        object_columns(Tokenizer(), "a cat and a cat", parse_objects("cat#3"))


# --- bad arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt; write one behind the command"),
        ([PROMPT, "--objects", "shark, boat"], "'boat' is not in the prompt"),
        ([PROMPT, "--objects", "riding shark"], "'riding shark' is not in the prompt"),
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
        ([PROMPT, "--seed", str(2**32)], "seed must"),
        ([PROMPT, "--seed", "five"], "argument --seed: 'five' is not a whole number"),
        (
            [PROMPT, "--seed", str(2**32 - 3)],
            "4 seeds from 4294967293 on go beyond the last one, 4294967295; take a sm",
        ),
        ([PROMPT, "--seeds", "0"], "argument --seeds: must be from 1 to 16, got 0"),
        ([PROMPT, "--seeds", "17"], "argument --seeds: must be from 1 to 16, got 17"),
        ([PROMPT, "--size", "100"], "multiples of 16 from 16 to 512, got 100x100"),
        ([PROMPT, "--size", "128x528"], "multiples of 16 from 16 to 512, got 128x528"),
        ([PROMPT, "--size", "big"], "'big' is not a size"),
        ([PROMPT, "--solver", "Heun++"], "unknown name 'Heun++'; choose one of: Euler"),
        ([PROMPT, "--curve", "cubic"], "unknown name 'cubic'"),
        ([PROMPT, "--solver", "DDIM", "--scheduler", "karras"], "DDIM walks along whole timesteps"),
    ],
)
def test_a_bad_argument_is_named_and_leaves_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    refused(arguments, message, "asyndm --help lists the options.", tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a sharkk riding a bike", "does not know the word 'sharkk'. Did you mean shark or sharks?"),
        ("a tiger on a skateboard", "does not know the word 'tiger'. Did you mean lion?"),
        ("a unicorn", "does not know the word 'unicorn'."),
        ("a cat and a dog", "draws one animal at a time; this prompt has cat and dog."),
        ("a cat in a boat on a sled", "draws one thing at a time; this prompt has boat and sled."),
        ("a cat in the snow on a beach", "draws one place at a time; this prompt has snow and beach."),
        ("a cat at dusk at night", "draws one time of day at a time; this prompt has dusk and night."),
        ("a red cat", "only things are painted"),
        ("a red boat", "The prompt names no animal"),
        ("", "The prompt names no animal"),
        (" ".join(["a shark and"] * 8), "reads at most 22 words; this prompt has 24."),
    ],
)
def test_a_prompt_that_cannot_be_read_leads_to_the_words(prompt, message, tmp_path, monkeypatch, capsys):
    refused([prompt], message, "asyndm --words lists what a prompt can have.", tmp_path, monkeypatch, capsys)


def refused(arguments, message, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    first, *rest = printed.err.splitlines()
    assert message in first and rest == [hint]
    assert printed.out == ""
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_with_a_prompt_comes_before_anything_is_loaded(tmp_path):
    process = start(tmp_path, ["a cat and a dog"], show=True)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "one animal at a time" in err
    assert not modules(out) & {"torch", "diffusers", "tqdm"}


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
        given = ["a", "shark", "--seed", "5", "--seeds", "1", "--steps", "1", "--size", "32", *arguments]
        assert cli.main(given) == 0
        out = capsys.readouterr().out
        assert out.endswith(f"All 5 pictures are in asyndm_out-{number}, because asyndm_out holds earlier pictures.\n")
        assert str(Path(f"asyndm_out-{number}", "comparison.png")) in out
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
    assert outcome.out.count(f"note: {NOTHING_LAGGED}\n") == said, "once, for it goes for all seeds"
    same = outcome.picture("asyndm-5").tobytes() == outcome.picture("plain-5").tobytes()
    assert same == said
    assert ("AsynDM's pictures look like the plain ones." in outcome.out) >= said
    summary = json.loads(call(tmp_path / "program", capsys, "--size", "64", "--json", *arguments).out)
    assert [row["note"] for row in summary["rows"]] == [NOTHING_LAGGED if said else None] * 2
    assert not said or {row["changed_pixels"] for row in summary["rows"]} == {0}


@pytest.mark.parametrize("moment", ["run_variant", "comparison", "filmstrip"])
def test_ctrl_c_leaves_nothing(moment, tmp_path, monkeypatch, capsys):
    def stopped(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        {"run_variant": rows, "comparison": comparison, "filmstrip": filmstrip}[moment], moment, stopped
    )
    assert cli.main([PROMPT, "--seeds", "1", "--steps", "1", "--size", "32", "--out", str(tmp_path / "out")]) == 130
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.splitlines()[-1] == "asyndm: interrupted, nothing written"
    assert not (tmp_path / "out").exists()


def test_a_terminal_without_umlauts(tmp_path, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=e) for e in ("strict", "backslashreplace"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    for number in range(2):
        arguments = ["--json"] if number else []
        assert (
            cli.main(
                [PROMPT, "--seeds", "1", "--steps", "1", "--size", "32", "--out", str(tmp_path / "Bücher"), *arguments]
            )
            == 0
        )
        out.flush()
    text = out.buffer.getvalue().decode("ascii")
    report, summary = text[: text.index("{")], json.loads(text[text.index("{") :])
    assert "B\\xfccher" in report
    assert Path(summary["comparison"]) == (tmp_path / "Bücher-2" / "comparison.png").resolve()
    err.flush()
    assert "100%|####" in err.buffer.getvalue().decode("ascii")


@pytest.mark.parametrize(
    ("module", "load", "file"),
    [(model, "load_world", "world.safetensors"), (judge, "load_judge", "judge.safetensors")],
    ids=["model", "judge"],
)
def test_missing_weights_are_a_message(module, load, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, load, lambda: LOADERS[load](tmp_path / "nothing"))
    assert cli.main([PROMPT, "--out", str(tmp_path / "out")]) == 1
    assert f"asyndm: no {file} in {tmp_path / 'nothing'}; train one: python -m" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- the filmstrip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "steps"), [((128, 128), 12), ((64, 96), 2)])
def test_the_filmstrip_shows_what_was_recorded(size, steps):
    chosen = job(width=size[0], height=size[1], steps=steps)
    result = run_variant(random_model(), chosen, "asyndm")
    page = filmstrip.filmstrip(chosen, result, random_model().decode)
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
    prompt = "three flamingos standing next to one of the yellow hot air balloon on the sand dune under the stars"
    chosen = job({"objects": ("flamingos",)}, prompt=prompt, steps=2, width=32, height=32)
    result = run_variant(random_model(), chosen, "asyndm")
    layout = filmstrip.layout(chosen, result)
    page = filmstrip.filmstrip(chosen, result, random_model().decode)
    margin = page.crop((page.width - drawing.MARGIN, 0, page.width, layout.top))
    assert margin.getcolors() == [(margin.width * margin.height, drawing.PAPER)]


def test_the_name_stands_once_before_a_message(tmp_path, capsys):
    """The settings' own messages begin with AsynDM's name, the command's with the command's."""
    with pytest.raises(SystemExit):
        cli.main([PROMPT, "--strength", "1.5", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.startswith("asyndm: Strength must lie between 0 and 1, but it is 1.5\n")
