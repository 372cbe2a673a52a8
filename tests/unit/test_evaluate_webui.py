"""The WebUI backend against a stand-in that speaks its API, with the ways in which real ones fail."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from asyndm_ext.evaluate.backends.api import Api, Refused, Unreachable
from asyndm_ext.evaluate.backends.webui import Request, WebUIBackend, asked, parameters, sampler_of, state_of
from asyndm_ext.evaluate.main import main
from asyndm_ext.evaluate.methods import FILE, lay_out
from asyndm_ext.evaluate.plan import Pair, Plan
from asyndm_ext.evaluate.prompts import Prompt
from asyndm_ext.evaluate.store import MADE
from asyndm_ext.prompt.objects import parse_objects
from asyndm_ext.settings import Settings

METHODS = lay_out(
    ["concave", "asyndm", "fixed"],
    {"strength": [0.7], "curve": ["quadratic"]},
    {"solver": ["Euler"], "scheduler": ["Automatic"], "steps": [4], "guidance": [7.0]},
)
PLAIN, CONCAVE, ASYNDM, FIXED = METHODS


class StandIn:
    """Answers like a WebUI with the extension; ``trouble`` may answer a txt2img request otherwise: (status, body)."""

    def __init__(self, model="tiny.safetensors", auth="", trouble=lambda number, body: None, pause=0.0):
        self.bodies, self.model, self.auth, self.trouble, self.pause = [], model, auth, trouble, pause
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(owner.get(self.path))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.bodies.append(body)
                time.sleep(owner.pause)
                self.reply(owner.trouble(len(owner.bodies), body) or (200, owner.draw(body)))

            def reply(self, answer):
                wanted = "Basic " + base64.b64encode(owner.auth.encode()).decode()
                if owner.auth and self.headers.get("Authorization") != wanted:
                    answer = (401, {"detail": "Incorrect username or password"})
                if answer == "hang up":
                    self.close_connection = True
                    self.connection.close()
                    return
                status, body = answer
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def get(self, path):
        answers = {
            "/sdapi/v1/options": {"sd_model_checkpoint": self.model},
            "/sdapi/v1/samplers": [{"name": "Euler"}, {"name": "DDIM"}, {"name": "DDIM CFG++"}],
            "/sdapi/v1/schedulers": [{"name": "automatic", "label": "Automatic"}],
            "/sdapi/v1/scripts": {"txt2img": ["asyndm", "seed"], "img2img": ["asyndm"]},
        }
        return (200, answers[path]) if path in answers else (404, {"detail": "Not Found"})

    def draw(self, body):
        settings = (body.get("alwayson_scripts") or {}).get("AsynDM", {}).get("args", [{}])[0]
        said = f"Steps: {body['steps']}, Sampler: {body['sampler_name']}, Seed: {body['seed']}"
        if settings:
            strength, curve = settings.get("strength", 0.7), settings.get("curve", "quadratic")
            said += f", AsynDM strength: {strength}, AsynDM curve: {curve}"
        if settings.get("compare"):
            said += f", AsynDM other method: {settings['compare']['method']}, AsynDM equivalent guidance: 6 8.5"
        picture = io.BytesIO()
        Image.new("RGB", (16, 16), (body["seed"] % 256, 0, 0)).save(picture, "PNG")
        image = base64.b64encode(picture.getvalue()).decode()
        return {"images": [image], "info": json.dumps({"infotexts": [f"{body['prompt']}\n{said}"]})}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stand_in():
    with contextlib.ExitStack() as stack:

        def start(**how):
            one = StandIn(**how)
            stack.callback(one.close)
            return one

        yield start


def plan(number=6, objects=""):
    prompts = [Prompt(f"a cat and a dog, number {n}", "pets", parse_objects(objects)) for n in range(number)]
    return Plan(prompts, METHODS, first_seed=3)


def backend(tmp_path, *servers, auth="", said=None):
    said = [] if said is None else said
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return WebUIBackend(urls, tmp_path, Request(16, 16, timeout=20), auth, waits=(0.01, 0.01), say=said.append)


def run(where, work):
    return [result for results in where.run(work.units()) for result in results]


# Requests


def test_what_is_sent(stand_in, tmp_path):
    server = stand_in()
    request = Request(64, 96, model="other", negative="ugly", eta=1.0)
    where = WebUIBackend([server.url], tmp_path, request)
    results = run(where, plan(1, "cat, dog#1"))
    plain, concave, asyndm, fixed = server.bodies
    assert "alwayson_scripts" not in plain
    common = {"prompt": "a cat and a dog, number 0", "seed": 3, "sampler_name": "Euler", "scheduler": "Automatic"}
    common |= {"steps": 4, "cfg_scale": 7.0, "width": 64, "height": 96, "negative_prompt": "ugly", "eta": 1.0}
    common |= {"override_settings": {"sd_model_checkpoint": "other"}, "batch_size": 1, "n_iter": 1}
    for body in server.bodies:
        assert common.items() <= body.items()
    own = [body["alwayson_scripts"]["AsynDM"]["args"][0] for body in (concave, asyndm, fixed)]
    shared = {"enabled": True, "strength": 0.7, "curve": "quadratic"}
    assert own[0] == {**shared, "region": "everything"}
    assert own[1] == {**shared, "objects": ["cat", "dog#1"]}
    assert own[2] == {**shared, "objects": ["cat", "dog#1"], "mask_source": "fixed"}
    assert [result.status for result in results] == [MADE] * 4
    for result in results:
        with Image.open(tmp_path / result.picture) as picture:
            assert picture.getpixel((0, 0)) == (3, 0, 0)


def test_strengths_of_a_file(stand_in):
    pair = Pair(Prompt("a cat and a dog", "pets", parse_objects("cat:0.3, dog:0.5")), 1)
    settings = {"strength": [0.7, FILE], "curve": ["quadratic"]}
    methods = lay_out(["concave", "asyndm"], settings, {name: [value] for name, value in PLAIN.conditions})
    plain, concave, asyndm, own_concave, own_asyndm = methods
    assert asked(pair, own_asyndm)["objects"] == ["cat:0.3", "dog:0.5"] and "strength" not in asked(pair, own_asyndm)
    assert asked(pair, own_concave)["strength"] == 0.5
    assert asked(pair, asyndm)["objects"] == ["cat", "dog"]
    assert asked(pair, concave)["strength"] == asked(pair, asyndm)["strength"] == 0.7
    assert asked(pair, plain) == {}


def test_cfgpp_is_a_sampler_of_the_webui():
    conditions = {name: [value] for name, value in PLAIN.conditions}
    for solver, told in (("DDIM", ("DDIM CFG++", 5.0)), ("Euler", ("Euler CFG++", 0.4)), ("Heun", None)):
        methods = lay_out(["cfg++", "asyndm+cfg++"], {}, {**conditions, "solver": [solver], "guidance": [5.0]})
        for method in methods[1:]:
            if told is None:
                with pytest.raises(ValueError, match="no step for the sampler 'Heun'"):
                    sampler_of(method)
            else:
                assert sampler_of(method) == told
        assert sampler_of(methods[0]) == (solver, 5.0)
    assert state_of(methods[1], "a cat, AsynDM strength: 0.7\nSteps: 4") == (MADE, "")


def test_other_methods_go_with_a_key_of_their_own(stand_in, tmp_path):
    conditions = {name: [value] for name, value in PLAIN.conditions}
    kinds = ["zigzag", "seg", "s-cfg", "asyndm+seg"]
    methods = lay_out(kinds, {"strength": [0.7], "seg_blur": [math.inf], "seg_scale": [2.0]}, conditions)
    server, pair = stand_in(), Pair(Prompt("a cat", "pets", parse_objects("cat")), 3)
    sent = {method.kind: asked(pair, method) for method in methods}
    host_s_clock = {"enabled": True, "region": "everything", "strength": 0}
    options = {"seg_blur": "inf", "seg_scale": 2.0}
    assert sent.pop("plain") == {}
    assert sent == {
        "zigzag": {**host_s_clock, "compare": {"method": "zigzag"}},
        "seg": {**host_s_clock, "compare": {"method": "seg", **options}},
        "s-cfg": {**host_s_clock, "compare": {"method": "s-cfg"}},
        "asyndm+seg": {
            **{"enabled": True, "strength": 0.7, "objects": ["cat"]},
            "compare": {"method": "seg", **options},
        },
    }
    for settings in sent.values():
        assert Settings.from_dict(json.loads(json.dumps(settings))).compare.name in ("zigzag", "seg", "s-cfg")
    results = run(backend(tmp_path, server), Plan([pair.prompt], methods, first_seed=3))
    assert [result.status for result in results] == [MADE] * 5
    assert [result.scales for result in results] == [[], *[[6.0, 8.5]] * 4]
    # An older AsynDM would have drawn without it.
    assert state_of(methods[2], "a cat\nAsynDM strength: 0, Steps: 4")[0].startswith(
        "not applied: the infotext names no"
    )
    other = "a cat\nAsynDM strength: 0, AsynDM other method: s-cfg, Steps: 4"
    assert state_of(methods[2], other)[0] == "not applied: the infotext names s-cfg"
    assert state_of(methods[2], 'a\nSteps: 4, AsynDM: "not applied: compare: AND"')[0] == "not applied: compare: AND"


# What the infotext says


def test_a_picture_counts_as_what_its_infotext_says():
    applied = 'a cat\nNegative prompt: b\nSteps: 4, AsynDM objects: "cat, dog", AsynDM strength: 0.7'
    assert parameters(applied) == {"Steps": "4", "AsynDM objects": "cat, dog", "AsynDM strength": "0.7"}
    assert state_of(ASYNDM, applied) == (MADE, "")
    assert state_of(ASYNDM, applied + ", AsynDM note: no pixel lagged") == (MADE, "no pixel lagged")
    without = 'a cat\nSteps: 4, AsynDM: "not applied: no version of Foo, sorry"'
    assert state_of(ASYNDM, without) == ("not applied: no version of Foo, sorry", "")
    assert state_of(CONCAVE, "a cat\nSteps: 4")[0].startswith("not applied: the infotext")
    assert state_of(PLAIN, "a cat, AsynDM strength: 0.7\nSteps: 4") == (MADE, "")
    assert state_of(PLAIN, applied)[0].startswith("failed")


def test_pictures_without_asyndm_are_counted_as_such(stand_in, tmp_path):
    def without(number, body):
        if "alwayson_scripts" in body and body["seed"] == 4:
            answer = server.draw({**body, "alwayson_scripts": {}})
            info = json.loads(answer["info"])
            info["infotexts"][0] += ', AsynDM: "not applied: the sampler, it seems"'
            return 200, {**answer, "info": json.dumps(info)}
        return None

    server = stand_in(trouble=without)
    prompts = tmp_path / "pets.txt"
    prompts.write_text("a cat\na dog\na hen\n")
    command = ["--url", server.url, "--prompt-file", str(prompts), "--out", str(tmp_path / "run"), "--steps", "4"]
    assert main([*command, "--first-seed", "3", "--size", "64", "--metric", f"{__name__}:Redness"]) == 0
    with (tmp_path / "run" / "pictures.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    gone = [row for row in rows if row["status"] != MADE]
    assert {(row["prompt"], row["status"]) for row in gone} == {("a dog", "not applied: the sampler, it seems")}
    assert {row["method"] for row in gone} == {"concave", "asyndm", "fixed"}
    assert [row["red"] for row in rows[::4]] == ["3", "4", "5"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "1 not applied: left out of its numbers (not applied: the sampler, it seems)" in page
    with (tmp_path / "run" / "differences.csv").open(encoding="utf-8") as file:
        assert {row["pairs"] for row in csv.DictReader(file)} == {"2"}
    sent = len(server.bodies)
    assert main([*command, "--first-seed", "3", "--size", "64", "--metric", f"{__name__}:Redness"]) == 0
    assert len(server.bodies) == sent


class Redness:
    """A judge of the tests: a metric is whatever has columns and scores."""

    from asyndm_ext.evaluate.metrics import Column

    columns = (Column("red", "red", "How red the picture is."),)

    def score(self, pictures, prompts):
        return [{"red": float(picture.getpixel((0, 0))[0])} for picture in pictures]


# Several WebUIs, and trouble


def test_two_webuis_share_the_work(stand_in, tmp_path):
    servers = [stand_in(pause=0.02), stand_in(pause=0.02)]
    results = run(backend(tmp_path, *servers), plan())
    assert len({result.key for result in results}) == len(results) == 24
    assert all(len(server.bodies) >= 6 for server in servers)


def test_the_others_go_on_when_one_dies(stand_in, tmp_path):
    said = []
    dying = stand_in(trouble=lambda number, body: "hang up" if number > 3 else None, pause=0.01)
    other = stand_in(pause=0.01)
    results = run(backend(tmp_path, dying, other, said=said), plan())
    assert len({result.key for result in results}) == len(results) == 24
    assert all(result.status == MADE for result in results)
    assert len(dying.bodies) == 3 + 3  # three pictures, three tries for the fourth
    assert any("trying again" in line for line in said) and any("going on without" in line for line in said)


def test_a_short_trouble_is_waited_for(stand_in, tmp_path):
    server = stand_in(trouble=lambda number, body: (503, b"busy") if number in (2, 3) else None)
    results = run(backend(tmp_path, server), plan(2))
    assert [result.status for result in results] == [MADE] * 8 and len(server.bodies) == 10


def test_when_none_is_left_the_run_ends_and_can_go_on(stand_in, tmp_path, capsys):
    server = stand_in(trouble=lambda number, body: "hang up" if number > 5 else None)
    found = []
    with pytest.raises(RuntimeError, match="no WebUI is left"):
        for results in backend(tmp_path, server).run(plan().units()):
            found += results
    assert len(found) == 5


def test_a_refused_picture_is_a_failure_and_the_run_goes_on(stand_in, tmp_path):
    def refuse(number, body):
        return (500, {"errors": "AsynDM: 'dog' not found"}) if body["seed"] == 4 and number > 1 else None

    results = run(backend(tmp_path, stand_in(trouble=refuse)), plan(3))
    failed = [result for result in results if not result.final]
    assert len(results) == 12 and len(failed) == 4
    assert {result.status for result in failed} == {"failed: AsynDM: 'dog' not found"}


def test_when_every_request_is_refused_the_run_ends(stand_in, tmp_path):
    server = stand_in(trouble=lambda number, body: (422, {"detail": "Script not found"}))
    with pytest.raises(RuntimeError, match="refuses every request: failed: Script not found"):
        run(backend(tmp_path, server), plan(100))
    # A few more than it takes to give up: the requests do not wait for whoever reads the answers.
    assert len(server.bodies) < 100


def test_passwords(stand_in, tmp_path):
    server = stand_in(auth="me:secret")
    assert len(run(backend(tmp_path, server, auth="me:secret"), plan(1))) == 4
    with pytest.raises(ValueError, match="wants another user and password"):
        backend(tmp_path, server, auth="me:wrong").check(plan(1))


def test_a_password_does_not_follow_a_redirect(stand_in):
    server = stand_in(trouble=lambda number, body: (302, {}))
    with pytest.raises(Unreachable, match="answers 302"):
        Api(server.url, "me:secret").post("/sdapi/v1/txt2img", {"seed": 1})


def test_what_is_checked_before(stand_in, tmp_path):
    server = stand_in()
    backend(tmp_path, server).check(plan())
    other = lay_out(
        ["asyndm"],
        {"strength": [0.7], "curve": ["quadratic"]},
        {"solver": ["Foo"], "scheduler": ["Automatic"], "steps": [4], "guidance": [7.0]},
    )
    with pytest.raises(ValueError, match="no sampler Foo"):
        backend(tmp_path, server).check(Plan(plan().prompts, other))
    server.get = lambda path: (200, {"txt2img": ["seed"]}) if "scripts" in path else StandIn.get(server, path)
    with pytest.raises(ValueError, match="does not have the extension"):
        backend(tmp_path, server).check(plan())
    with pytest.raises(ValueError, match="no address"):
        backend(tmp_path, "127.0.0.1:7860")
    with pytest.raises(ValueError, match="does not answer"):
        backend(tmp_path, "http://127.0.0.1:9").check(plan())


def test_webuis_with_different_checkpoints(stand_in, tmp_path):
    servers = [stand_in(), stand_in(model="other.safetensors")]
    with pytest.raises(ValueError, match="different checkpoints"):
        backend(tmp_path, *servers).made_with()
    assert backend(tmp_path, servers[1]).made_with()["model"] == "other.safetensors"


def test_what_is_no_webui(stand_in):
    server = stand_in(trouble=lambda number, body: (200, b"<html>"))
    with pytest.raises(Unreachable, match="JSON"):
        Api(server.url).post("/x", {})
    with pytest.raises(Unreachable, match="404"):
        Api(server.url).get("/sdapi/v1/nothing")
    refusing = stand_in(trouble=lambda number, body: (500, {"message": "no"}))
    with pytest.raises(Refused, match=r"^no$"):
        Api(refusing.url).post("/x", {})
