"""``asyndm evaluate`` on real WebUIs: two share the work, pictures and infotexts are what they should be."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from asyndm_ext.evaluate.main import main

from .browser import wait
from .server import REPOSITORY, Install, WebUI

pytestmark = pytest.mark.xdist_group("webui")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "pictures.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A set in the format of the paper's authors."""
    texts = ["a cat eating a sandwich", "a dog and a cat"]
    path = tmp_path / "pets.json"
    path.write_text(json.dumps(texts))
    items = {"item_idx": {texts[0]: [1, 4], texts[1]: [1, 4]}, "item_k": {texts[0]: [0.7, 0.5], texts[1]: [0.5, 0.5]}}
    (tmp_path / "pets_item.json").write_text(json.dumps(items))
    return path


def test_two_webuis_share_a_run(
    webui: WebUI, launch: Callable[..., WebUI], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = launch("second", extensions={"asyndm": REPOSITORY})
    command = [
        "--url",
        webui.url,
        "--url",
        second.url,
        "--prompt-file",
        str(prompts),
        "--model",
        "tiny-sd1.safetensors",
    ]
    command += ["--steps", "4", "--size", "128", "--file-strengths", "--vary", "threshold=1,1.5"]
    command += ["--metric", f"{__name__}:Brightness"]
    out = tmp_path / "run"
    assert main([*command, "--out", str(out)]) == 0, capsys.readouterr().err
    found = rows(out)
    assert len(found) == 2 * 9 and {row["status"] for row in found} == {"made"}
    infotexts = {}
    for row in found:
        with Image.open(out / row["picture"]) as picture:
            assert picture.size == (128, 128)
            infotexts[row["prompt"], row["method"]] = picture.info["parameters"]
    for (prompt, method), infotext in infotexts.items():
        assert infotext.startswith(prompt) and "Steps: 4, Sampler: Euler" in infotext
        assert ("AsynDM" in infotext) is (method != "plain")
        assert ("AsynDM region: everything" in infotext) is method.startswith("concave")
        assert ("AsynDM mask source: fixed" in infotext) is method.startswith("fixed")
    own = infotexts["a cat eating a sandwich", "asyndm strength file"]
    assert 'AsynDM objects: "cat:0.7, sandwich:0.5"' in own
    assert 'AsynDM objects: "cat, sandwich"' in infotexts["a cat eating a sandwich", "asyndm"]
    assert "AsynDM threshold: 1.5" in infotexts["a dog and a cat", "asyndm threshold 1.5"]
    # The same pictures from the one WebUI alone, and nothing is asked for again.
    alone = tmp_path / "alone"
    assert main([*command[:2], *command[4:], "--out", str(alone)]) == 0
    for one, two in zip(found, rows(alone), strict=True):
        assert (alone / two["picture"]).read_bytes() == (out / one["picture"]).read_bytes()
        assert one == two
    second.stop()
    assert main([*command, "--out", str(out), "--report-only"]) == 0
    assert rows(out) == found
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 of 2 pairs by all of 9 methods" in page and page.count("data:image/jpeg") >= 2 * 4


def test_pictures_without_asyndm_are_counted_as_such(webui: WebUI, prompts: Path, tmp_path: Path) -> None:
    """The probe's sampler Elsewhere is one that AsynDM has no version of."""
    command = ["--url", webui.url, "--prompt-file", str(prompts), "--model", "tiny-sd1.safetensors", "--prompts", "1"]
    command += ["--solver", "Elsewhere", "--methods", "asyndm", "--steps", "2", "--size", "128", "--out", str(tmp_path)]
    assert main(command) == 0
    plain, asyndm = rows(tmp_path)
    assert plain["status"] == "made" and asyndm["status"].startswith("not applied: ")


def test_a_table_of_the_paper_is_killed_and_goes_on(
    webui: WebUI, launch: Callable[..., WebUI], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table 2 at a small size, drawn by two WebUIs: killed in the middle, continued, and the same as undisturbed."""
    if "DDIM CFG++" not in {sampler["name"] for sampler in webui.get("/sdapi/v1/samplers")}:
        pytest.skip(f"{webui.about.title} has no DDIM CFG++, which the paper's table takes")
    model = "tiny-sd2" if "tiny-sd2" in webui.about.models else "tiny-sd1"
    path = _animals(tmp_path)
    second = launch("second for the paper", extensions={"asyndm": REPOSITORY})
    command = ["--paper", "table2", "--prompt-file", str(path), "--prompts", "2", "--seeds", "1", "--steps", "4"]
    command += ["--methods", "concave,asyndm,cfg++,asyndm+cfg++", "--size", "128", "--model", f"{model}.safetensors"]
    command += ["--url", webui.url, "--url", second.url, "--metric", f"{__name__}:Likeness", "--vote", "2"]
    out = tmp_path / "run"
    results = killed_run(command, out, tmp_path / "log", pictures=4)
    made = results.read_bytes().count(b"\n") - 1
    assert main([*command, "--out", str(out)]) == 0, capsys.readouterr().err
    found = rows(out)
    methods = list(dict.fromkeys(row["method"] for row in found))
    assert methods[:5] == ["plain", "concave", "asyndm", "cfg++", "asyndm+cfg++"] and len(methods) == 14
    assert {row["status"] for row in found} == {"made"} and len(found) == 2 * 14 > made >= 4
    for row in found:
        with Image.open(out / row["picture"]) as picture:
            infotext = picture.info["parameters"]
        assert ("Sampler: DDIM CFG++" in infotext) is ("cfg++" in row["method"]) and "CFG scale: 5" in infotext
        assert ("AsynDM objects" in infotext) is row["method"].startswith("asyndm")
        assert ("cat:0.7" in infotext) is (row["method"].startswith("asyndm") and "strength 0.7" not in row["method"])
    alone = tmp_path / "alone"
    assert main([*command[:-6], *command[-4:], "--out", str(alone)]) == 0
    for one, two in zip(found, rows(alone), strict=True):
        assert (alone / two["picture"]).read_bytes() == (out / one["picture"]).read_bytes()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Table 2 of the paper" in page and "All 28 pictures are there." in page and "CLIPScore: paper" in page
    assert (out / "vote.html").is_file()


def test_all_methods_of_the_paper_on_webuis_of_two_kinds(
    webui: WebUI,
    launch: Callable[..., WebUI],
    models_of: Callable[[Install], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Table 4 at a small size by two of the one and one of the other; killed in the middle and continued."""
    other = Install.from_environment("ASYNDM_WEBUI_2")
    if other is None:
        pytest.skip("set ASYNDM_WEBUI_2 (and ASYNDM_WEBUI_2_PYTHON) to a WebUI of another kind")
    prompts, second = _animals(tmp_path), launch("second of the same", extensions={"asyndm": REPOSITORY})
    folder = tmp_path / "data"
    folder.mkdir()
    with WebUI(other, models_of(other), folder, {"asyndm": REPOSITORY}, options={}, name="other") as third:
        out = tmp_path / "run"
        command = ["--paper", "table4", "--prompt-file", str(prompts), "--prompts", "2", "--seeds", "2", "--steps", "4"]
        command += ["--size", "128", "--model", "tiny-sdxl.safetensors", "--metric", f"{__name__}:Likeness"]
        for one in (webui, second, third):
            command += ["--url", one.url]
        results = killed_run(command, out, tmp_path / "log", pictures=9)
        assert main([*command, "--out", str(out)]) == 0, capsys.readouterr().err
    found = rows(out)
    assert {row["status"] for row in found} == {"made"}
    methods = list(dict.fromkeys(row["method"] for row in found))
    assert methods[:8] == ["plain", "concave", "zigzag", "seg", "s-cfg", "cfg++", "asyndm", "concave strength 0.7"]
    drawn = [line for line in map(json.loads, _lines(results)) if line.get("scales")]
    scales = {line["method"].split()[0]: line["scales"] for line in drawn}
    for method in ("zigzag", "seg", "s-cfg"):
        assert len(scales[method]) >= 3 and min(scales[method]) > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Table 4 of the paper" in page and f"All {len(found)} pictures are there." in page
    assert "Not drawn here" not in page


def killed_run(command: list[str], out: Path, log: Path, pictures: int) -> Path:
    """Start the command and kill it when so many pictures are there; returns the file of its results."""
    run, results = [sys.executable, "-m", "asyndm_ext", "evaluate", *command, "--out", str(out)], out / "results.jsonl"
    # The judge is in this module, which has another name or place for the command.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
    with log.open("wb") as said:
        process = subprocess.Popen(run, cwd=REPOSITORY, stdout=said, stderr=said, env=environment)

    def under_way() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        return results.is_file() and results.read_bytes().count(b"\n") >= pictures + 1  # the first line is the run's

    wait(under_way, f"{pictures} pictures")
    process.kill()
    process.wait()
    return results


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()[1:]


def _animals(folder: Path) -> Path:
    """A set of 40 prompts under the name of one of the authors'."""
    texts = [f"a cat eating a sandwich, number {n}" for n in range(40)]
    path = folder / "animal.json"
    path.write_text(json.dumps(texts))
    items = {"item_idx": {t: [1, 4] for t in texts}, "item_k": {t: [0.7, 0.5] for t in texts}}
    (folder / "animal_item.json").write_text(json.dumps(items))
    return path


class Brightness:
    """A judge that needs no weights."""

    from asyndm_ext.evaluate.metrics import Column

    columns = (Column("brightness", "brightness", "Mean grey level."),)

    def score(self, pictures, prompts):
        return [{"brightness": float(picture.convert("L").resize((1, 1)).getpixel((0, 0)))} for picture in pictures]


class Likeness:
    """In the place of one of the paper's judges."""

    from asyndm_ext.evaluate.metrics import Column

    columns = (Column("clipscore", "CLIPScore", "Mean grey level.", digits=4),)

    def score(self, pictures, prompts):
        return [{"clipscore": one["brightness"] / 255} for one in Brightness().score(pictures, prompts)]
