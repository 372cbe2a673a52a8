"""The whole command on the embedded model's architecture with random weights: kill, resume, tables and page."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time

import pytest

pytest.importorskip("diffusers")

from asyndm_ext.evaluate.main import main
from asyndm_ext.evaluate.store import Result, Store
from tests.support.processes import start
from tests.support.small_world import save_small

PLAN = ["--prompts", "2", "--kind", "usual,counted,placed", "--steps", "3,2", "--batch", "4"]
PLAN += ["--true-scenes", "0", "--resamples", "50", "--sheet", "2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with random weights in a smaller network."""
    return save_small(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert main([*PLAN, "--weights", str(weights), "--out", str(out)]) == 0
    return out


def tables(folder):
    return [(folder / name).read_bytes() for name in ("pictures.csv", "differences.csv")]


def rows(folder, name="pictures.csv"):
    return list(csv.DictReader((folder / name).open(encoding="utf-8")))


def test_every_picture_is_there_and_judged(whole):
    found = rows(whole)
    assert len(found) == 6 * 8  # prompts, methods
    assert {row["method"] for row in found} == {
        f"{kind}{more}" for kind in ("plain", "concave", "asyndm", "fixed") for more in ("", " steps 2")
    }
    assert all(row["status"] == "made" and (whole / row["picture"]).is_file() for row in found)
    assert all(row["exact"] in ("0", "1") and row["animal"] in ("0", "1") for row in found)
    assert all(row["ground"] for row in found if row["kind"] == "placed")
    assert not any(row["paint"] for row in found)
    assert [row["kind"] for row in found[::8]] == ["usual", "counted", "placed"] * 2
    named = {row["kind"] for row in rows(whole, "differences.csv")}
    assert named == {"all", "usual", "counted", "placed"}


def test_differences_are_those_of_the_pictures(whole):
    found = rows(whole)

    def mean(method, column):
        values = [float(row[column]) for row in found if row["method"] == method]
        return sum(values) / len(values)

    row = next(
        row
        for row in rows(whole, "differences.csv")
        if (row["kind"], row["method"], row["score"]) == ("all", "asyndm steps 2", "animal")
    )
    assert float(row["plain"]) == pytest.approx(mean("plain steps 2", "animal"), rel=1e-4)
    assert float(row["difference"]) == pytest.approx(
        mean("asyndm steps 2", "animal") - mean("plain steps 2", "animal"), rel=1e-3, abs=1e-6
    )


@pytest.mark.parametrize("kept", [0.15, 0.5, 0.93])
def test_a_torn_file_is_continued_to_the_same_bytes(whole, weights, tmp_path, kept):
    """As a kill leaves it: some lines, and a part of the next."""
    data = (whole / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(data[: int(kept * len(data))])
    assert main([*PLAN, "--weights", str(weights), "--out", str(tmp_path)]) == 0
    assert tables(tmp_path) == tables(whole)
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines()
    assert all(json.loads(line) for line in lines) and len(lines) < 1 + 48 + 4 * 8


@pytest.mark.skipif(os.name != "posix", reason="sends signals to a group")
@pytest.mark.parametrize(
    ("how", "lines", "processes"),
    [(signal.SIGKILL, 5, 1), (signal.SIGINT, 5, 1), (signal.SIGINT, 1, 3)],
    ids=["kill", "Ctrl+C", "Ctrl+C while workers start"],
)
def test_a_run_that_was_ended_is_continued_to_the_same_bytes(how, lines, processes, whole, weights, tmp_path):
    """A real end of a run with two processes, which must not stay behind; a terminal sends Ctrl+C to all of them."""
    out = tmp_path / "run"
    wanted = ["--weights", str(weights), "--out", str(out)]
    process = start(tmp_path, ["evaluate", *PLAN, *wanted, "--processes", "2"])
    results = out / "results.jsonl"
    try:
        while process.poll() is None and not (
            results.is_file() and results.read_bytes().count(b"\n") >= lines and in_group(process.pid) >= processes
        ):
            time.sleep(0.05)
        time.sleep(0.2)
        if how == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, how)
        said, errors = process.communicate(timeout=120)
        deadline = time.monotonic() + 60
        while group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not group_lives(process.pid), "workers outlive the run"
    finally:
        if group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    if how == signal.SIGINT:
        told = [line for line in errors.replace("\r", "\n").splitlines() if line.strip() and "picture" not in line]
        assert told == ["asyndm evaluate: stopped; the same command goes on from here"]
        assert (process.returncode, said) == (130, "") and "Does AsynDM help?" in (out / "report.html").read_text(
            "utf-8"
        )
    else:
        assert process.returncode == -signal.SIGKILL, errors
    assert main([*PLAN, *wanted]) == 0
    assert tables(out) == tables(whole)


def in_group(group):
    """How many processes there are: of a run with workers, the tracker of their semaphores is the second."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid="], capture_output=True, text=True, check=True)
    return listed.stdout.split().count(str(group))


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_same_command_again_makes_nothing(whole, weights, monkeypatch):
    before = (whole / "results.jsonl").read_bytes()
    monkeypatch.setattr("asyndm_ext.evaluate.backends.embedded.run_batch", None)  # would fail if called
    assert main([*PLAN, "--weights", str(weights), "--out", str(whole)]) == 0
    assert (whole / "results.jsonl").read_bytes() == before
    assert main([*PLAN, "--out", str(whole), "--report-only"]) == 0


def test_a_run_can_stop_early_and_compares_what_all_have(weights, tmp_path):
    where = ["--weights", str(weights), "--out", str(tmp_path)]
    assert main([*PLAN, *where, "--minutes", "0"]) == 0
    assert rows(tmp_path) == [] and "Nothing to compare yet" in (tmp_path / "report.html").read_text()


def test_other_weights_need_another_folder(whole, weights, tmp_path, capsys):
    save_small(tmp_path, seed=1)
    with pytest.raises(SystemExit):
        main([*PLAN, "--weights", str(tmp_path), "--out", str(whole)])
    assert "made with something else (weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (["--kind", "seven"], "'seven'"),
        (["--strength", "1.5"], "strength"),
        (["--solver", "Eulerian"], "Eulerian"),
        (["--steps", "0"], "1 or more"),
        (["--vary", "show=mask"], "cannot be varied"),
        (["--size", "96"], "pictures of 128 pixels only"),
        (["--metric", "beauty"], "'beauty'"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(weights, tmp_path, capsys, bad, told):
    with pytest.raises(SystemExit):
        main(["--prompts", "1", "--weights", str(weights), "--out", str(tmp_path / "new"), *bad])
    assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_somebody_else_has_written_is_left_alone(weights, tmp_path, capsys):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(SystemExit):
        main([*PLAN, "--weights", str(weights), "--out", str(tmp_path)])
    assert "has a report.html of something else; choose another folder with --out" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_the_page_stands_alone(whole):
    page = (whole / "report.html").read_text(encoding="utf-8")
    for forbidden in ('src="http', "href=", "<script", "url("):
        assert forbidden not in page
    for part in ("Against plain", "Over the settings", "In numbers", "Pictures", "How it was measured"):
        assert part in page
    assert page.count("<svg") == 3 and "nan" not in page.split("</style>")[1].replace("data:image", "").lower()[:4000]


def test_the_last_line_for_a_picture_counts_and_failures_are_tried_again(tmp_path):
    store = Store(tmp_path, {"a": 1})
    store.add([Result("p", 1, "m", status="failed: busy")])
    assert store.done() == set()
    store.add([Result("p", 1, "m", scores={"x": 1.0})])
    store.add_scores([(("p", 1, "m"), {"y": 2.0})])
    again = Store(tmp_path, {"a": 1})
    assert again.done() == {("p", 1, "m")} and again.results["p", 1, "m"].scores == {"x": 1.0, "y": 2.0}
    assert Store(tmp_path, None).made_with == {"a": 1}
    with pytest.raises(ValueError, match="a 1 instead of 2"):
        Store(tmp_path, {"a": 2})
    with pytest.raises(ValueError, match="no results"):
        Store(tmp_path / "elsewhere", None)
