"""The command with the other methods and all controls, on random weights: whole, torn and continued, with votes."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

pytest.importorskip("diffusers")

from asyndm_ext.evaluate.main import main
from tests.support.small_world import save_small

KINDS = ("asyndm", "zigzag", "seg", "s-cfg", "cfg++", "asyndm+seg", "asyndm+s-cfg", "asyndm+cfg++")
PLAN = ["--prompts", "2", "--kind", "usual", "--methods", ",".join(KINDS), "--steps", "3", "--batch", "2"]
PLAN += ["--guidance", "4", "--plain-guidance", "6", "--matched", "--vote", "2", "--vote-methods", "plain,asyndm,seg"]
PLAN += ["--true-scenes", "0", "--resamples", "50", "--sheet", "1"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert main([*PLAN, "--weights", str(weights), "--out", str(out)]) == 0
    return out


def rows(folder):
    return list(csv.DictReader((folder / "pictures.csv").open(encoding="utf-8")))


def test_every_method_is_drawn_and_so_are_its_controls(whole):
    methods = list(dict.fromkeys(row["method"] for row in rows(whole)))
    assert methods[: len(KINDS) + 1] == ["plain", *KINDS] and "plain guidance 6" in methods
    lines = [json.loads(line) for line in (whole / "results.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    scales = {line["method"].split()[0]: line["scales"] for line in lines}
    assert all((len(scales[kind]) == 3) is ("+" in kind or kind in KINDS[1:]) for kind in ("plain", *KINDS))
    kept = json.loads((whole / "matched.json").read_text(encoding="utf-8"))
    zigzag = next(scale for name, scale in kept.items() if name.startswith("zigzag"))
    assert f"plain guidance {zigzag:g}" in methods and f"plain steps 7 guidance {zigzag:g}" in methods
    assert zigzag == pytest.approx(
        sum(sum(s["scales"]) for s in lines if s["method"].startswith("zigzag")) / 6, abs=0.01
    )
    page = (whole / "report.html").read_text(encoding="utf-8")
    for part in ("Against plain at its best", "plain as strong", "over the steps", "against the best plain guidance"):
        assert part in page
    assert "nan" not in page.split("</style>")[1].split("<img")[0].lower()


@pytest.mark.parametrize("kept", [0.2, 0.75, 0.97])
def test_a_torn_run_is_continued_to_the_same_bytes(whole, weights, tmp_path, kept):
    """In the middle of the methods, and in the middle of the plain pictures that they are held against."""
    data = (whole / "results.jsonl").read_bytes()
    shutil.copytree(whole / "pictures", tmp_path / "pictures")
    (tmp_path / "results.jsonl").write_bytes(data[: int(kept * len(data))])
    assert main([*PLAN, "--weights", str(weights), "--out", str(tmp_path)]) == 0
    for name in ("pictures.csv", "differences.csv", "matched.json", "vote_key.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_votes_come_into_the_report(whole, weights, capsys):
    key = json.loads((whole / "vote_key.json").read_text(encoding="utf-8"))
    ((page, groups),) = key.items()
    assert len(groups) == 2 and all(len(group["methods"]) == 3 for group in groups)
    votes = {"page": page, "voter": "Ann", "votes": [[0, 0], [1, -1]]}
    (whole / "votes" / "ann.json").write_text(json.dumps(votes), encoding="utf-8")
    again = [*PLAN, "--weights", str(weights), "--out", str(whole), "--report-only"]
    assert main(again) == 0
    assert "2 votes of 1 voter on 2 of 2 groups" in (whole / "report.html").read_text(encoding="utf-8")
    (whole / "votes" / "torn.json").write_text("{")
    assert main(again) == 0
    assert "torn.json is not a voter's file" in capsys.readouterr().err
    (whole / "votes" / "torn.json").unlink()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (["--methods", "zigzag", "--solver", "Heun"], "goes back and forth with DDIM's step or Euler's"),
        (["--methods", "cfg++", "--solver", "LMS"], "CFG++ has no step for the sampler 'LMS'"),
        (["--methods", "sag"], "unknown method 'sag'"),
        (["--methods", "seg", "--vary", "seg_blur=-1"], "must not be negative"),
        (["--methods", "seg", "--url", "http://127.0.0.1:1"], "prompts"),
        (["--methods", "seg", "--exact"], "the exact world has none"),
        (["--file-strengths"], "no prompt comes from a file with strengths"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(weights, tmp_path, capsys, bad, told):
    place = ["--weights", str(weights), "--out", str(tmp_path / "new")]
    with pytest.raises(SystemExit):
        main(["--prompts", "1", *place, *bad])
    assert told in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_a_page_that_cannot_be_made_does_not_stop_the_report(whole, weights, capsys):
    again = [*PLAN, "--weights", str(weights), "--out", str(whole), "--report-only", "--vote-methods", "plain,fixed"]
    assert main(again) == 0
    assert "no page to vote on: --vote-methods names a method that is not drawn" in capsys.readouterr().err
