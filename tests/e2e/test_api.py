"""The API: the routes, the arguments of the script, and what others forward."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from asyndm_ext import __version__
from asyndm_ext.region.mask_image import decode, encode
from asyndm_ext.settings import FIELDS, Settings
from asyndm_ext.ui import schema

from .server import REPOSITORY, ApiError, WebUI
from .test_asyndm import PROMPT, SETTINGS, asyndm, levels, off, on

pytestmark = pytest.mark.xdist_group("webui")

PAGE = REPOSITORY / "docs" / "API.md"
QUICK = {
    '"steps": 20': '"steps": 4',
    '"steps": 50': '"steps": 4',
    '"width": 512, "height": 512': '"width": 128, "height": 128',
} | {
    "steps=20": "steps=4",
    "width=512, height=512": "width=128, height=128",
}
"""What the page's examples are changed to here, so that they do not take minutes."""


def checked(answer: Any, described: schema.Schema) -> Any:
    Draft202012Validator(described).validate(answer)
    return answer


class TestCapabilities:
    def test_answer(self, webui: WebUI) -> None:
        webui.use_model("tiny-sd1")
        answer = checked(webui.get("/asyndm/v1/capabilities"), schema.CAPABILITIES_ANSWER)
        assert answer["version"] == __version__
        assert answer["webui"] == webui.about.title
        assert answer["model"]["supported"] is True and answer["model"]["name"].startswith("tiny-sd1")
        assert answer["settings"] == schema.settings_schema()
        theirs = [sampler["name"] for sampler in webui.get("/sdapi/v1/samplers")]
        ours = {sampler["name"]: sampler for sampler in answer["samplers"]}
        assert list(ours) == theirs
        flows_only = webui.about.flows_only
        assert [name for name, sampler in ours.items() if not sampler["supported"]] == [*flows_only, "Elsewhere"]
        assert all("no meaning for the kind of model" in ours[name]["reason"] for name in flows_only)
        assert ours["Elsewhere"]["reason"] == "AsynDM does not know it"

    def test_what_it_says_of_a_sampler_is_what_happens(self, webui: WebUI) -> None:
        for name, applied in (("Euler", True), ("Elsewhere", False)):
            infotext = on(webui, "tiny-sd1", sampler_name=name, width=128, height=128, steps=2).infotext
            assert ("not applied" not in infotext) is applied


class TestTokens:
    def ask(self, webui: WebUI, prompt: str, **more: Any) -> Any:
        webui.use_model("tiny-sd1")
        answer = webui.post("/asyndm/v1/tokens", {"prompt": prompt, **more})
        return checked(answer, schema.TOKENS_ANSWER)

    def only(self, answer: Any) -> Any:
        (part,) = answer["parts"]
        (text,) = part["texts"]
        return text

    def test_objects_and_columns(self, webui: WebUI) -> None:
        answer = self.ask(webui, "a (cat:1.3) eating a sandwich <lora:none:1>")
        text = self.only(answer)
        assert answer["objects"] == ["cat", "sandwich"] and answer["missing"] == [] and answer["negative"] is None
        assert text["objects"] == [{"name": "cat", "columns": [2]}, {"name": "sandwich", "columns": [5]}]
        assert [token["text"] for token in text["tokens"]] == ["a", "cat", "eating", "a", "sandwich"]
        assert [token["column"] for token in text["tokens"]] == [1, 2, 3, 4, 5]
        for one in text["objects"]:
            where = {"text": text["text"], "name": one["name"]}
            assert one["columns"] == webui.post("/asyndm-probe/columns", where)["columns"]

    def test_words_of_several_pieces_and_unicode(self, webui: WebUI) -> None:
        text = self.only(self.ask(webui, "a quokka, café 猫"))
        words = {word["word"]: word["columns"] for word in text["words"]}
        assert {"a", "quokka", ",", "café"} <= set(words)
        assert len(words["quokka"]) > 1 and "猫" in words
        columns = [column for word in text["words"] for column in word["columns"]]
        assert columns == [token["column"] for token in text["tokens"]]

    def test_beyond_the_first_chunk(self, webui: WebUI) -> None:
        answer = self.ask(webui, "very " * 80 + "big cat")
        assert self.only(answer)["objects"] == [{"name": "cat", "columns": [77 + 1 + 80 + 1 - 75]}]

    def test_and_prompt_editing_and_negative(self, webui: WebUI) -> None:
        answer = self.ask(webui, "a [cat:dog:0.5] AND a hat :0.4", negative="ugly hat", steps=10)
        assert [part["weight"] for part in answer["parts"]] == [1.0, 0.4]
        first, second = answer["parts"]
        assert [(t["until"], t["text"]) for t in first["texts"]] == [(5, "a cat"), (10, "a dog")]
        assert answer["objects"] == ["cat", "dog", "hat"]
        assert [[one["name"] for one in t["objects"]] for t in first["texts"]] == [["cat"], ["dog"]]
        assert second["texts"][0]["objects"] == [{"name": "hat", "columns": [2]}]
        assert [w["word"] for w in answer["negative"][0]["words"]] == ["ugly", "hat"]

    def test_objects_of_one_s_own(self, webui: WebUI) -> None:
        answer = self.ask(webui, "a cat and a cat", objects=["cat#2:0.4", "dog"])
        assert answer["objects"] == ["cat#2:0.4"] and answer["missing"] == ["dog"]
        assert self.only(answer)["objects"] == [{"name": "cat#2:0.4", "columns": [5]}]

    def test_the_automatic_objects_are_those_of_the_job(self, webui: WebUI) -> None:
        prompt = "a lion wearing a crown, a photo of a blue bird"
        objects = self.ask(webui, prompt)["objects"]
        found = on(webui, "tiny-sd1", {}, prompt=prompt, steps=2).infotext
        assert f'AsynDM found: "{", ".join(objects)}"' in found

    @pytest.mark.parametrize("model", ["tiny-sd2", "tiny-sdxl", "tiny-sd3", "tiny-flux"])
    def test_other_text_encoders(self, webui: WebUI, model: str) -> None:
        """CLIP's tokens begin with the start token; Flux reads T5's, which have none and know no end of a word."""
        webui.use_model(model)
        assert webui.get("/asyndm/v1/capabilities")["model"]["supported"] is True
        answer = checked(webui.post("/asyndm/v1/tokens", {"prompt": PROMPT}), schema.TOKENS_ANSWER)
        text = self.only(answer)
        assert [word["word"] for word in text["words"]] == PROMPT.split()
        for one in text["objects"]:
            (word,) = [word for word in text["words"] if word["word"] == one["name"]]
            assert one["columns"] == word["columns"]
        if model != "tiny-flux":
            assert [one["columns"] for one in text["objects"]] == [[2], [5]]

    def test_samplers_that_the_webui_gets_wrong_on_sd3(self, webui: WebUI) -> None:
        webui.use_model("tiny-sd3")
        samplers = {one["name"]: one for one in webui.get("/asyndm/v1/capabilities")["samplers"]}
        wrong = {"DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"} if webui.kind == "a1111" else set()
        assert {name for name, one in samplers.items() if not one["supported"]} == {*wrong, "Elsewhere"}
        for name in wrong:
            assert samplers[name]["reason"] == "it goes wrong with SD3 in the WebUI itself"

    @pytest.mark.parametrize(
        "body",
        [{}, {"prompt": 3}, {"prompt": "a", "step": 3}, {"prompt": "a", "steps": 0}, {"prompt": "a", "objects": 3}],
    )
    def test_refused(self, webui: WebUI, body: dict) -> None:
        with pytest.raises(ApiError) as caught:
            webui.post("/asyndm/v1/tokens", body)
        assert caught.value.status == 422


class TestValidate:
    def test_ok_and_not(self, webui: WebUI) -> None:
        good = checked(webui.post("/asyndm/v1/validate", {"objects": "cat:0.5"}), schema.VALIDATE_ANSWER)
        assert good["settings"] == Settings.from_dict({"objects": "cat:0.5"}).to_dict()
        bad = checked(webui.post("/asyndm/v1/validate", {"strength": 3}), schema.VALIDATE_ANSWER)
        with pytest.raises(ApiError) as caught:
            on(webui, "tiny-sd1", {"strength": 3})
        assert bad["ok"] is False and bad["message"] in caught.value.message, "the job says the same"

    def test_what_is_no_dictionary(self, webui: WebUI) -> None:
        with pytest.raises(ApiError) as caught:
            webui.post("/asyndm/v1/validate", ["cat"])
        assert caught.value.status == 422


class TestLastRun:
    def last(self, webui: WebUI, masks: bool = True) -> Any:
        return checked(webui.get(f"/asyndm/v1/last-run?masks={str(masks).lower()}"), schema.LAST_RUN_ANSWER)

    def test_it_is_what_the_steps_were(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", batch_size=2, sampler_name="Euler a")
        nominal, level, strength = levels(webui)
        (only,) = self.last(webui)["passes"]
        assert (only["kind"], only["sampler"], only["unit"], only["size"]) == ("txt2img", "Euler a", "sigma", [32, 32])
        assert only["finished"] and only["objects"] == [["cat", "sandwich"]] * 2
        assert [step["base"] for step in only["steps"]] == nominal.tolist()
        for step, levels_now, strength_now in zip(only["steps"], level, strength, strict=True):
            for image, one in enumerate(step["images"]):
                assert one["smallest"] == levels_now[image].min() and one["largest"] == levels_now[image].max()
                assert one["slow"] == (strength_now[image] > 0).mean()
                assert np.array_equal(np.array(decode(one["mask"])), np.round(strength_now[image] * 255))

    def test_a_job_without_asyndm_leaves_it(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", {**SETTINGS, "strength": 0.4}, sampler_name="DDIM", steps=4)
        before = self.last(webui)
        assert before["settings"]["strength"] == 0.4 and before["passes"][0]["unit"] == "timestep"
        off(webui, "tiny-sd1", steps=2)
        assert self.last(webui) == before
        assert all(i["mask"] is None for s in self.last(webui, masks=False)["passes"][0]["steps"] for i in s["images"])

    def test_hires_and_batches(self, webui: WebUI) -> None:
        hires = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, "hr_upscaler": "Latent"}
        on(webui, "tiny-sd1", n_iter=2, width=128, height=128, steps=4, **hires)
        passes = self.last(webui, masks=False)["passes"]
        assert [(one["kind"], one["iteration"]) for one in passes] == [
            ("txt2img", 0), ("hires", 0), ("txt2img", 1), ("hires", 1),
        ]  # fmt: skip
        assert [one["size"] for one in passes[:2]] == [[16, 16], [24, 24]]

    def test_a_job_that_fails(self, webui: WebUI) -> None:
        with pytest.raises(ApiError):
            webui.txt2img("tiny-sd1", prompt=PROMPT, **asyndm(SETTINGS, probe={"raise_at": 3}))
        (only,) = self.last(webui)["passes"]
        assert only["finished"] is False and len(only["steps"]) == 2

    def test_a_setting_switches_it_off(self, webui: WebUI) -> None:
        on(webui, "tiny-sd1", steps=2)
        webui.post("/sdapi/v1/options", {"asyndm_last_run": False})
        try:
            on(webui, "tiny-sd1", steps=2)
            assert self.last(webui) is None
        finally:
            webui.post("/sdapi/v1/options", {"asyndm_last_run": True})

    def test_the_console_s_line(self, webui: WebUI) -> None:
        webui.post("/sdapi/v1/options", {"asyndm_console": True})
        try:
            on(webui, "tiny-sd1", steps=3)
            on(webui, "tiny-sd1", steps=2, sampler_name="Elsewhere")
        finally:
            webui.post("/sdapi/v1/options", {"asyndm_console": False})
        assert re.search(r"AsynDM: 3 steps, \d+% of the picture slow on average; cat, sandwich", webui.log())
        assert "AsynDM: not applied: there is no per-pixel version of the sampler 'Elsewhere'" in webui.log()


class TestArguments:
    def test_script_info(self, webui: WebUI) -> None:
        """Scenario 42."""
        infos = [info for info in webui.get("/sdapi/v1/script-info") if info["name"] == "asyndm"]
        assert sorted(info["is_img2img"] for info in infos) == [False, True]
        for info in infos:
            assert info["is_alwayson"] is True
            json.dumps(info)
            args = info["args"]
            assert [arg["label"] for arg in args] == ["AsynDM", *(spec.label for spec in FIELDS)]
            assert args[0]["value"] is False
            for spec, arg in zip(FIELDS, args[1:], strict=True):
                assert arg["value"] == (", ".join(spec.default) if spec.name == "objects" else spec.default)
                assert (arg.get("choices") or None) == (list(spec.choices) or None)
                assert (arg.get("minimum"), arg.get("maximum")) == (spec.limits or (None, None))

    def test_forwarded_as_others_forward_them(self, webui: WebUI) -> None:
        """Scenario 46: a worker node is sent what the always-on scripts' arguments are on the master, as JSON."""
        settings = {**SETTINGS, "soft": True, "end": 0.8}
        here = on(webui, "tiny-sd1", settings)
        packed = json.loads(json.dumps(webui.get("/asyndm-probe/packed")))
        assert packed["AsynDM"]["args"][0] == settings
        there = webui.txt2img("tiny-sd1", prompt=PROMPT, alwayson_scripts={"AsynDM": packed["AsynDM"]})
        assert there.png == here.png

    def test_a_batch_folder_s_jobs_can_be_forwarded(self, webui: WebUI, tmp_path: Path) -> None:
        """They are one object, and who forwards a job sends all that is on it as JSON: nothing of the last picture."""
        webui.use_model("tiny-sd1")
        for folder in ("pictures", "masks"):
            (tmp_path / folder).mkdir()
            for name in ("a", "b"):
                Image.fromarray(np.full((128, 128), 255, np.uint8)).save(tmp_path / folder / f"{name}.png")
        folders = {folder: str(tmp_path / folder) for folder in ("pictures", "masks", "output")}
        settings = {"region": "objects", "show": "all"}
        body = {**folders, "prompt": PROMPT, "only_masked": False, "settings": settings}
        assert len(webui.post("/asyndm-probe/batch", body)) == 2
        at_the_second = webui.get("/asyndm-probe/packed")["attributes"]
        assert at_the_second == {"asyndm_has_run": "bool"}

    def test_forwarded_from_the_panel(self, webui: WebUI) -> None:
        """The panel's values by position."""
        positions = Settings.from_dict(SETTINGS).to_dict()
        positions["objects"] = ", ".join(positions["objects"])
        here = webui.txt2img("tiny-sd1", prompt=PROMPT, **asyndm(*positions.values()))
        packed = json.loads(json.dumps(webui.get("/asyndm-probe/packed")))
        assert packed["AsynDM"]["args"] == list(positions.values())
        assert on(webui, "tiny-sd1").png == here.png


@pytest.fixture(scope="module")
def locked(launch: Callable[..., WebUI]) -> WebUI:
    """A WebUI that asks for credentials."""
    flags = ["--api-auth", "cat:sandwich"]
    return launch("locked", extensions={"asyndm": REPOSITORY}, flags=flags, credentials="cat:sandwich")


def test_before_a_model_is_loaded(locked: WebUI) -> None:
    """Nothing but the tokenizer's route waits for one; Forge has none before the first picture."""
    assert locked.get("/asyndm/v1/last-run") is None
    model = locked.get("/asyndm/v1/capabilities")["model"]
    if locked.about.loads_late:
        assert model == {"loaded": False, "name": None, "supported": None, "reason": None}
        with pytest.raises(ApiError, match="no model is loaded yet") as caught:
            locked.post("/asyndm/v1/tokens", {"prompt": "a cat"})
        assert caught.value.status == 503
    else:
        assert locked.post("/asyndm/v1/tokens", {"prompt": "a cat"})["objects"] == ["cat"]


class TestCredentials:
    @pytest.mark.parametrize(
        ("path", "body"),
        [("capabilities", None), ("last-run", None), ("validate", {}), ("tokens", {"prompt": "a cat"})],
    )
    def test_the_host_s_are_asked_for(self, locked: WebUI, path: str, body: dict | None) -> None:
        locked.use_model("tiny-sd1")
        locked._request(f"/asyndm/v1/{path}", body)
        for wrong in ("", "cat:hamster", "dog:sandwich"):
            locked.credentials = wrong
            try:
                with pytest.raises(ApiError) as caught:
                    locked._request(f"/asyndm/v1/{path}", body)
            finally:
                locked.credentials = "cat:sandwich"
            assert caught.value.status == 401


def test_described_in_the_webui_s_own_documentation(webui: WebUI) -> None:
    described = webui.get("/openapi.json")["paths"]
    assert {path for path in described if path.startswith("/asyndm/")} == {
        f"/asyndm/v1/{name}" for name in ("capabilities", "validate", "tokens", "last-run")
    }
    assert described["/asyndm/v1/validate"]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ]


def examples() -> list[tuple[str, str]]:
    """The page's examples: language and text."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples())))
def test_the_page_s_examples_run(webui: WebUI, tmp_path: Path, number: int) -> None:
    language, text = examples()[number]
    webui.use_model("tiny-sd1")
    text = text.replace("127.0.0.1:7860", f"127.0.0.1:{webui.port}").replace("port=7860", f"port={webui.port}")
    for slow, quick in QUICK.items():
        text = text.replace(slow, quick)
    if webui.kind == "neo":  # as the page says
        text = text.replace("false, 0, false]", "false, 0, 0, false]")
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    if language == "python":
        pytest.importorskip("webuiapi")
    environment = {"PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "error" not in result.stdout.lower()
    if "> " not in text:
        assert result.stdout.strip(), "an example shows something"


class TestMuchAtOnce:
    """The routes are beside the jobs and the page: what is too much is told so, and the rest goes on."""

    @pytest.mark.parametrize("body", [[], [["strength", 0.5]], "x", 7])
    def test_no_dictionary(self, webui: WebUI, body: Any) -> None:
        for route in ("validate", "tokens"):
            with pytest.raises(ApiError, match="AsynDM: the request must be a dictionary") as caught:
                webui.post(f"/asyndm/v1/{route}", body)
            assert caught.value.status == 422

    def test_a_large_request(self, webui: WebUI) -> None:
        with pytest.raises(ApiError, match="AsynDM: the request is larger than 16 MB") as caught:
            webui.post("/asyndm/v1/validate", {"mask": "A" * 20 * 2**20})
        assert caught.value.status == 413

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ("(" * 101 + "cat" + ")" * 101, "more than 200 brackets"),
            (":" * 5000, "more than 200 brackets"),
            ("a cat " * 2000, "longer than 10000 characters"),
            ("[cat|dog] " + "x " * 900, "too much text for so many steps"),
            ("a\0cat", "prompt must be a text"),
        ],
    )
    def test_a_prompt_that_would_take_minutes(self, webui: WebUI, prompt: str, message: str) -> None:
        webui.use_model("tiny-sd1")
        with pytest.raises(ApiError, match=message) as caught:
            webui.post("/asyndm/v1/tokens", {"prompt": prompt, "steps": 1000})
        assert caught.value.status == 422

    def test_a_crowd_beside_a_job(self, webui: WebUI) -> None:
        """Each is answered, or told to come again; the job's picture is what it is alone."""
        alone = on(webui, "tiny-sd1", steps=8)
        small, nested = ("validate", {"strength": 0.5}), ("tokens", {"prompt": "(" * 90 + "cat" + ")" * 90})
        mask = encode(Image.fromarray(np.eye(2048, dtype=np.uint8) * 255))
        asked = [small, nested, ("validate", {"region": "mask", "mask": mask})] * 11

        def ask(request: tuple[str, dict]) -> int:
            try:
                webui.post(f"/asyndm/v1/{request[0]}", request[1])
            except ApiError as error:
                return error.status
            return 200

        with ThreadPoolExecutor(len(asked) + 1) as pool:
            job = pool.submit(on, webui, "tiny-sd1", steps=8)
            statuses = list(pool.map(ask, asked))
            assert job.result().png == alone.png
        assert set(statuses) <= {200, 503} and statuses.count(200) > 3
        assert webui.post("/asyndm/v1/validate", {})["ok"], "free again"
