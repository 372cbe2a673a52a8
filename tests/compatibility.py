"""Runs every sampler of a WebUI on its tiny models, and writes what came out into docs/COMPATIBILITY.md.

    ASYNDM_WEBUI=path/to/webui python -m tests.compatibility                     # all of it
    ASYNDM_WEBUI=path/to/webui python -m tests.compatibility --models tiny-sd3   # one model anew
    python -m tests.compatibility --write                                        # the page only

Three pictures for each: plain, with AsynDM, and with AsynDM at strength 0. The results of a model take the place of its
older ones in docs/compatibility.json, from which the tables are made; other models and other WebUIs keep theirs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tests.conftest  # noqa: F401  (repairs torchvision beside a CPU build of torch)
from asyndm_ext import __version__
from tests.compatibility_page import RESULTS, Results, load, write
from tests.e2e.server import PROBE, REPOSITORY, ApiError, Install, WebUI, checkpoints_in
from tests.e2e.test_asyndm import SETTINGS, difference, nothing_left, off, on
from tests.e2e.test_samplers import ELSEWHERE, check_levels

MODELS = {
    "a1111": ("tiny-sd1", "tiny-sd2", "tiny-sd2v", "tiny-sdxl", "tiny-sd3"),
    "forge": ("tiny-sd1", "tiny-sd2", "tiny-sd2v", "tiny-sdxl", "tiny-sd3", "tiny-flux", "tiny-chroma"),
}
REQUEST = {"width": 128, "height": 128}
STEPS = 6
# With Automatic, Forge makes black pictures of these with some samplers.
SIMPLE = ("tiny-sd3", "tiny-flux", "tiny-chroma")
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
        measure(install, arguments.models or MODELS[install.kind], arguments.steps)
    write(load())
    return 0


def measure(install: Install, models: Sequence[str], steps: int) -> None:
    """Every sampler on these models; the results are saved after each model."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    checkpoints = checkpoints_in(_CACHE, install)
    extensions = {"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE}
    with (
        tempfile.TemporaryDirectory() as folder,
        WebUI(install, checkpoints, Path(folder), extensions=extensions, name="compatibility") as webui,
    ):
        host = about(webui)
        for model in models:
            request = {**REQUEST, "steps": steps, "scheduler": "Simple" if model in SIMPLE else "Automatic"}
            samplers = {}
            for entry in webui.get("/sdapi/v1/samplers"):
                if entry["name"] != ELSEWHERE:
                    samplers[entry["name"]] = cell(webui, model, entry["name"], request)
                    print(host["name"], model, entry["name"], samplers[entry["name"]], file=sys.stderr, flush=True)
            save(host, model, {**run_of(request), "samplers": samplers})


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


def cell(webui: WebUI, model: str, sampler: str, request: dict[str, Any]) -> dict[str, Any]:
    """What became of one sampler on one model: ``on`` and ``zero``, the largest difference to the plain picture in grey
    levels with AsynDM and with strength 0, or a word about why there is no such number."""
    request = {**request, "sampler_name": sampler}
    try:
        plain = off(webui, model, **request)
    except ApiError as error:
        return {"host": f"fails by itself: {_first_line(error)}"}
    if plain.image.std() < ONE_COLOUR:
        return {"host": "draws one colour by itself"}
    try:
        slow = on(webui, model, **request)
    except ApiError as error:
        return {"stops": _first_line(error)}
    reason = _NOT_APPLIED.search(slow.infotext)
    if reason is not None:
        return {"not_applied": reason[1], "on": difference(plain.image, slow.image)}
    try:
        check_levels(webui, sampler)
        nothing_left(webui)
    except AssertionError as error:
        return {"wrong": str(error).splitlines()[0]}
    zero = on(webui, model, {**SETTINGS, "strength": 0}, **request)
    return {"on": difference(plain.image, slow.image), "zero": difference(plain.image, zero.image)}


def _first_line(error: ApiError) -> str:
    return (error.message or error.body).strip().splitlines()[0][:160]


def save(host: dict[str, str], model: str, run: dict[str, Any]) -> None:
    """The results of a model in the place of its older ones."""
    results: Results = load()
    mine = next((one for one in results if one["host"]["name"] == host["name"]), None)
    if mine is None:
        mine = {"host": host, "models": {}}
        results.append(mine)
    mine["host"] = host
    mine["models"][model] = run
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
