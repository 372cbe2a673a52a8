"""The paper's tables as runs against a stand-in for a WebUI: prompts, conditions, numbers beside each other."""

from __future__ import annotations

import csv
import json
import re

import pytest

from asyndm_ext.evaluate.main import main
from asyndm_ext.evaluate.methods import lay_out
from asyndm_ext.evaluate.metrics import Column
from asyndm_ext.evaluate.options import PAPER, build_parser
from asyndm_ext.evaluate.paper import SETS, TABLES, check, numbers, section
from asyndm_ext.evaluate.plan import Plan
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.evaluate.store import Result
from asyndm_ext.evaluate.summary import Summary
from tests.unit.test_evaluate_webui import stand_in  # noqa: F401

COLUMN = Column("clipscore", "CLIPScore", "Cosine.", digits=4)


class Fixed:
    """A judge that needs no weights."""

    columns = (COLUMN,)

    def score(self, pictures, prompts):
        return [{"clipscore": 0.37 + 0.001 * (picture.getpixel((0, 0))[0] % 3)} for picture in pictures]


@pytest.fixture
def sets(tmp_path):
    """Four sets in the authors' format."""
    files = []
    for name in SETS:
        texts = [f"a cat number {n} of {name} riding a bike" for n in range(40)]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(texts))
        items = {
            "item_idx": {t: [1, 8] for t in texts},
            "item_k": {t: [0.3 + n % 3 / 5, 0.5] for n, t in enumerate(texts)},
        }
        (tmp_path / f"{name}_item.json").write_text(json.dumps(items))
        files += ["--prompt-file", str(path)]
    return files


def test_the_tables_are_those_of_the_paper():
    assert tuple(TABLES) == PAPER
    assert len(numbers("table1")) == 28 and len(numbers("table2")) == 10 and len(numbers("table6")) == 14
    assert numbers("table1")["animal", "asyndm"] == {
        "bertscore": 0.6414,
        "clipscore": 0.3750,
        "imagereward": 0.9219,
        "vlm": 5.5218,
    }
    assert numbers("table1")["geneval", "cfg++"]["imagereward"] == -0.1344
    assert numbers("table6")["animal", "plain steps 5"]["vlm"] == 2.8703
    assert numbers("table2")["animal", "plain"] == numbers("table1")["animal", "plain"] and numbers("figure8") == {}


@pytest.mark.parametrize("name", PAPER)
def test_every_label_of_a_table_is_one_of_its_methods(name):
    options = build_parser(["--paper", name]).parse_args(["--paper", name])
    strength = ["file", *options.strength] if options.file_strengths else options.strength
    settings = {"strength": strength, "curve": options.curve}
    conditions = {
        "solver": options.solver,
        "scheduler": ["Automatic"],
        "steps": options.steps,
        "guidance": options.guidance,
    }
    labels = {method.label for method in lay_out(options.methods, settings, conditions)}
    assert {label for _, label in numbers(name)} <= labels
    seeds = 100 if name == "fid30k" else 32  # 16 000 pictures of 160 prompts
    assert (options.seeds, options.guidance, options.steps[0]) == (seeds, [5.0], 50)


def test_what_is_given_beside_it_counts():
    argv = ["--steps", "4", "--paper", "table1", "--seeds", "2"]
    options = build_parser(argv).parse_args(argv)
    assert (options.steps, options.seeds, options.solver, options.eta) == ([4], 2, ["DDIM"], 1.0)
    assert build_parser([]).parse_args([]).steps == [20]
    with pytest.raises(SystemExit):
        build_parser(["--paper", "table3"]).parse_args(["--paper", "table3"])


def test_other_prompts_are_refused():
    def some(kind, number):
        return [Prompt(f"{kind} {n}", kind) for n in range(number)]

    check("table2", some("animal", 40), False)
    check("table2", some("animal", 3), True)
    with pytest.raises(ValueError, match="a prompt set of the paper has 40 prompts, but animal has 39"):
        check("table2", some("animal", 39), False)
    with pytest.raises(ValueError, match="drawbench, geneval, mscoco is not there; give the files of github"):
        check("table1", some("animal", 40), False)
    with pytest.raises(ValueError, match="table2 has no prompt set pets"):
        check("table2", some("animal", 40) + some("pets", 40), False)


def test_a_small_run_of_table_1(stand_in, sets, tmp_path, capsys):  # noqa: F811
    server = stand_in()
    out = tmp_path / "run"
    command = ["--paper", "table1", "--url", server.url, *sets, "--prompts", "8", "--seeds", "1", "--size", "64"]
    command += ["--metric", f"{__name__}:Fixed", "--out", str(out)]
    assert main(command) == 0, capsys.readouterr().err
    rows = list(csv.DictReader((out / "pictures.csv").open(encoding="utf-8")))
    assert {row["method"] for row in rows} == {
        *("plain", "concave", "zigzag", "seg", "s-cfg", "cfg++", "asyndm"),
        *("concave strength 0.7", "asyndm strength 0.7"),
    }
    assert all((row["steps"], row["guidance"], row["solver"]) == ("50", "5.0", "DDIM") for row in rows)
    sent = {(body["sampler_name"], body["cfg_scale"], body["eta"]) for body in server.bodies}
    assert sent == {("DDIM", 5.0, 1.0), ("DDIM CFG++", 5.0, 1.0)}
    asked = [b["alwayson_scripts"]["AsynDM"]["args"][0] for b in server.bodies if "alwayson_scripts" in b]
    assert {tuple(one.get("objects", ())) for one in asked} >= {("cat:0.3", "bike:0.5"), ("cat", "bike")}
    everything = {(one["strength"], one.get("compare", {}).get("method")) for one in asked if "region" in one}
    assert everything == {(0.5, None), (0.7, None), (0, "zigzag"), (0, "seg"), (0, "s-cfg")}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Table 1 of the paper" in page and "All 72 pictures are there." in page and "Not drawn here" not in page
    assert re.search(r"<tr><th>asyndm</th><td data-of=\"CLIPScore: paper\">0.3750</td>", page)
    assert "gains 3.7 points" in page


def test_the_papers_number_ours_and_what_is_between_them():
    plan = Plan(
        [Prompt(f"p{n}", "animal") for n in range(30)],
        lay_out(
            ["asyndm"],
            {"strength": [0.7], "curve": ["quadratic"]},
            {"solver": ["DDIM"], "scheduler": ["x"], "steps": [50], "guidance": [5.0]},
        ),
    )
    results = {}
    for pair in plan.pairs[:25]:
        for method in plan.methods:
            score = 0.3685 + 0.01 * (pair.seed % 2) - 0.005
            results[pair.key(method)] = Result(pair.prompt.text, pair.seed, method.id, scores={"clipscore": score})
    html = section("table2", Summary(plan, results, [COLUMN], resamples=300))
    assert "10 of 60 pictures are still to come." in html and "Not drawn here: concave, fixed, concave curve" in html
    row = re.search(r"<tr><th>plain</th>(.*?)</tr>", html)[1]
    assert (
        "0.3685</td>" in row and "0.3683</td>" in row and re.search(r"-0\.0002<small>\[-0\.00\d+ to \+0\.00\d+\]", row)
    )
    told = section("table2", Summary(plan, results, []))
    assert "None of the paper's judges was asked" in told and "<table" not in told


def test_a_paper_needs_a_webui(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--paper", "table1", "--out", str(tmp_path / "new")])
    assert "give its address with --url" in capsys.readouterr().err
