"""Runs every sampler of a WebUI on its tiny models, and writes what came out into docs/COMPATIBILITY.md.

    ASYNDM_WEBUI=path/to/webui python -m tests.compatibility                     # all of it
    ASYNDM_WEBUI=path/to/webui python -m tests.compatibility --models tiny-sd3   # one model anew
    python -m tests.compatibility --write                                        # the page only

Four pictures for each: of the WebUI without AsynDM, with AsynDM switched off (the same bytes), with AsynDM, and with
AsynDM at strength 0. The results of a model take the place of its older ones in docs/compatibility/WEBUI.json; other
models keep theirs. The tables are made from all of these files, so each WebUI can be run where it is installed.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tests.conftest  # noqa: F401  (repairs torchvision beside a CPU build of torch)
from asyndm_ext import __version__
from tests.compatibility_page import KINDS as PAGE_KINDS
from tests.compatibility_page import load, load_one, save_one, write
from tests.e2e.kinds import KINDS
from tests.e2e.server import PROBE, REPOSITORY, ApiError, Install, WebUI, checkpoints_in
from tests.e2e.test_asyndm import SETTINGS, difference, nothing_left, off, on
from tests.e2e.test_samplers import ELSEWHERE, check_levels

NOT_HERE = ("tiny-inpaint", "tiny-edit", "tiny-sd35", "tiny-qwen-image-edit")
"""Models of families that another column stands for already."""
REQUEST = {"width": 128, "height": 128}
STEPS = 6
# Flows: with Automatic, Forge makes black pictures of these with some samplers.
SIMPLE = tuple(name for name in PAGE_KINDS if not name.startswith(("tiny-sd1", "tiny-sd2", "tiny-sdxl")))
ONE_COLOUR = 2  # standard deviation in grey levels
_NOT_APPLIED = re.compile(r'AsynDM: "?not applied: ([^"\n]*)')
_CACHE = REPOSITORY / ".pytest_cache" / "d" / "asyndm-e2e"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="of these only")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each picture (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write the page from the results that there are")
    arguments = parser.parse_args(argv)
    if not arguments.write:
        install = Install.from_environment()
        problem = "set ASYNDM_WEBUI to the folder of an installed WebUI" if install is None else install.problem()
        if install is None or problem:
            parser.error(str(problem))
        measure(install, arguments.models or models_of(install), arguments.steps)
    write(load())
    return 0


def models_of(install: Install) -> list[str]:
    """The tiny models of all families that this WebUI loads."""
    return [name for name in KINDS[install.kind].models if name not in NOT_HERE]


def measure(install: Install, models: Sequence[str], steps: int) -> None:
    """Every sampler on these models; the results are saved after each model."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    checkpoints = checkpoints_in(_CACHE, install)
    with ExitStack() as stack:

        def start(name: str, **extensions: Path) -> WebUI:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            webui = WebUI(install, checkpoints, folder, {"asyndm-e2e-probe": PROBE, **extensions}, name=name)
            return stack.enter_context(webui)

        webui, bare = start("compatibility", asyndm=REPOSITORY), start("bare")
        host = about(webui)
        for model in models:
            request = {**REQUEST, "steps": steps, "scheduler": "Simple" if model in SIMPLE else "Automatic"}
            samplers = {}
            for entry in webui.get("/sdapi/v1/samplers"):
                if entry["name"] != ELSEWHERE:
                    samplers[entry["name"]] = cell(webui, bare, model, entry["name"], request)
                    print(host["name"], model, entry["name"], samplers[entry["name"]], file=sys.stderr, flush=True)
            save(install.kind, host, model, {**run_of(request), "samplers": samplers})


def about(webui: WebUI) -> dict[str, str]:
    """The WebUI's name and version, as it writes it into its pictures, and the versions of what it runs on."""
    version = re.search(r"Version: ([^,\n]+)", webui.txt2img(steps=1, width=64, height=64).infotext)
    script = (
        "import sys; from importlib.metadata import version as v; "
        "print(v('gradio'), v('torch'), '.'.join(map(str, sys.version_info[:2])))"
    )
    found = subprocess.run([str(webui.install.python), "-c", script], capture_output=True, text=True, check=True)
    gradio, torch, python = found.stdout.split()
    name = webui.get("/asyndm/v1/capabilities")["webui"]
    return {
        "name": name,
        "version": version[1] if version else "?",
        "gradio": gradio,
        "torch": torch,
        "python": python,
    }


def run_of(request: dict[str, Any]) -> dict[str, Any]:
    """What is the same for all samplers of a model."""
    return {
        "asyndm": __version__,
        "date": datetime.date.today().isoformat(),
        "steps": request["steps"],
        "size": f"{request['width']}x{request['height']}",
        "schedule": request["scheduler"],
    }


def cell(webui: WebUI, bare: WebUI, model: str, sampler: str, request: dict[str, Any]) -> dict[str, Any]:
    """What became of one sampler on one model: ``on`` and ``zero``, the largest difference to the plain picture in grey
    levels with AsynDM and with strength 0, or a word about why there is no such number."""
    request = {**request, "sampler_name": sampler}
    try:
        plain = off(bare, model, **request)
    except ApiError as error:
        return {"host": f"fails by itself: {_first_line(error)}"}
    if off(webui, model, **request).png != plain.png:
        return {"wrong": "switched off it is not the WebUI's own picture"}
    if plain.image.std() < ONE_COLOUR:
        return {"host": "draws one colour by itself"}
    try:
        slow = on(webui, model, **request)
    except ApiError as error:
        return {"stops": _first_line(error)}
    reason = _NOT_APPLIED.search(slow.infotext)
    if reason is not None and difference(plain.image, slow.image):
        return {"wrong": f"the picture is another one, and it says: {reason[1]}"}
    if reason is not None:
        return {"not_applied": reason[1], "on": 0}
    try:
        check_levels(webui, sampler)
        nothing_left(webui)
    except AssertionError as error:
        return {"wrong": str(error).splitlines()[0]}
    zero = on(webui, model, {**SETTINGS, "strength": 0}, **request)
    return {"on": difference(plain.image, slow.image), "zero": difference(plain.image, zero.image)}


def _first_line(error: ApiError) -> str:
    return (error.message or error.body).strip().splitlines()[0][:160]


def save(kind: str, host: dict[str, str], model: str, run: dict[str, Any]) -> None:
    """The results of a model in the place of its older ones."""
    kept = load_one(kind)
    models = {**kept.get("models", {}), model: run}
    save_one(kind, {"host": host, "models": {name: models[name] for name in KINDS[kind].models if name in models}})


if __name__ == "__main__":
    raise SystemExit(main())
