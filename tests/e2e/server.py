"""Starts and stops a WebUI process in a data folder of its own, and speaks to it."""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .kinds import KINDS, TINY, Kind, kind_of

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PROBE = HERE / "fault_extension"

# Previews would download an approximate autoencoder for some models; pictures come back over HTTP anyway.
OPTIONS = {"live_previews_enable": False, "samples_save": False, "grid_save": False}
STYLES = "name,prompt,negative_prompt\nzoo,{prompt} beside a zebra,dog\n"
START_SECONDS = int(os.environ.get("ASYNDM_START_SECONDS", "240"))  # a machine that does much else needs more
REQUEST_SECONDS = 600

running: list[WebUI] = []


class ApiError(RuntimeError):
    """The WebUI answered a request with an error."""

    def __init__(self, status: int, body: str):
        super().__init__(f"HTTP {status}: {body[:2000]}")
        self.status = status
        self.body = body

    @property
    def message(self) -> str:
        """What the user is told; A1111 and Forge name it differently."""
        told = json.loads(self.body)
        return told.get("errors") or told.get("message") or told.get("detail", "")


class Lacking(RuntimeError):
    """This WebUI does not have what a request names: a test that needs it is skipped, loudly (``conftest.py``)."""


@dataclass(frozen=True)
class Install:
    """An installed WebUI: where it is and the Python that runs it."""

    folder: Path
    python: Path

    @classmethod
    def from_environment(cls, variable: str = "ASYNDM_WEBUI") -> Install | None:
        """The install that the variable names, or None when it is unset."""
        name = os.environ.get(variable)
        if not name:
            return None
        folder = Path(name).expanduser().resolve()
        python = os.environ.get(f"{variable}_PYTHON")
        return cls(folder, Path(python).expanduser() if python else folder / "venv" / "bin" / "python")

    @property
    def kind(self) -> str:
        """One of the names in ``KINDS``."""
        return kind_of(self.folder).name

    def problem(self) -> str | None:
        """Why this cannot be used, if so."""
        if not (self.folder / "launch.py").is_file():
            return f"ASYNDM_WEBUI={self.folder} holds no launch.py"
        if not self.python.exists():
            return f"ASYNDM_WEBUI_PYTHON={self.python} does not exist"
        return None

    def write_checkpoints(self, output: Path) -> None:
        """Writes the tiny checkpoints with the WebUI's Python; files that are there already are kept."""
        writer = HERE / ("forge_checkpoints.py" if KINDS[self.kind].is_forge else "checkpoints.py")
        command = [str(self.python), str(writer), "--webui", str(self.folder), "--output", str(output)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        if result.returncode:
            raise RuntimeError(
                f"writing the tiny checkpoints failed:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
            )


def checkpoints_in(parent: Path, install: Install) -> Path:
    """The folder of an install's tiny checkpoints below ``parent``: made where it is not there yet, or where what makes
    them has changed."""
    sources = [*sorted(HERE.glob("*checkpoints.py")), *sorted(HERE.glob("*tiny*/**/*.*"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources if path.suffix in (".py", ".json")))
    folder = parent / f"{install.kind}-{digest.hexdigest()[:16]}"
    if not folder.exists():
        # Other processes may be at it as well: the first one that is done wins.
        draft = parent / f"{folder.name}.{os.getpid()}"
        install.write_checkpoints(draft)
        try:
            draft.rename(folder)
        except OSError:
            shutil.rmtree(draft)
    return folder


@dataclass
class Pictures:
    """Answer to a generation request."""

    images: list[Any]
    """uint8 arrays, height x width x 3"""
    png: list[bytes]
    info: dict
    seconds: float

    @property
    def image(self) -> Any:
        """The first picture."""
        return self.images[0]

    @property
    def infotext(self) -> str:
        """The generation parameters, as they are written into the first picture."""
        return self.info["infotexts"][0]


def environment() -> dict[str, str]:
    """Environment of the child processes: offline, and by default one thread, which makes timings comparable."""
    values = {name: value for name, value in os.environ.items() if name not in ("COMMANDLINE_ARGS", "PYTHONPATH")}
    values.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False", PYTHONUNBUFFERED="1")
    values.setdefault("OMP_NUM_THREADS", "1")
    return values


def free_port() -> int:
    """A port of the loopback address that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def link_extension(place: Path, source: Path) -> None:
    """Puts an extension into a data folder: entry by entry, as the WebUI would look for updates in its ``.git``."""
    place.mkdir()
    for child in source.iterdir():
        if child.name != ".git":
            (place / child.name).symlink_to(child)


@dataclass
class WebUI:
    """One WebUI process.

    ``models`` is a folder that ``Install.write_checkpoints`` has filled, ``folder`` an empty one for this process;
    ``extensions`` maps names to folders, which are linked into it. Use it as a context manager.
    """

    install: Install
    models: Path
    folder: Path
    extensions: Mapping[str, Path] = field(default_factory=dict)
    page: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    without: Sequence[str] = ()
    """Flags of ours to leave out."""
    credentials: str = ""
    """What --api-auth asks for, "user:password"."""
    name: str = "webui"
    port: int = 0
    start_seconds: float = 0.0
    process: subprocess.Popen | None = None
    _starts: int = 1
    _loaded: str = ""
    _listed: dict[str, set[str]] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------ process

    @property
    def kind(self) -> str:
        """One of the names in ``KINDS``."""
        return self.install.kind

    @property
    def about(self) -> Kind:
        """What there is to know about its kind."""
        return KINDS[self.kind]

    @property
    def url(self) -> str:
        """Address of the server, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        """Everything that the process prints."""
        return self.folder / "server.log"

    def log(self) -> str:
        """What the process has printed so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def prepare(self) -> None:
        """Lays out the data folder: settings, links to extensions, checkpoints and tokenizers."""
        for child in ("extensions", "tmp"):  # Neo writes the page's pictures into the second and does not make it
            (self.folder / child).mkdir(parents=True, exist_ok=True)
        for child in ("openai", "asyndm-tiny"):  # A1111 looks them up relative to the working directory
            if (self.models / child).exists():
                (self.folder / child).symlink_to(self.models / child)
        if self.kind == "classic":  # so does this one with a part of itself
            (self.folder / "ldm_patched").symlink_to(self.install.folder / "ldm_patched")
        control = self.models / "models" / "ControlNet"
        if control.exists():
            (self.folder / "models").mkdir(exist_ok=True)
            (self.folder / "models" / "ControlNet").symlink_to(control)
        for child in (self.models / "extensions").iterdir():
            (self.folder / "extensions" / child.name).symlink_to(child)
        for name, path in self.extensions.items():
            link_extension(self.folder / "extensions" / name, Path(path).resolve())
        settings = {
            **OPTIONS,
            "sd_model_checkpoint": "tiny-sd1.safetensors",
            **self.about.options,
            **self.options,
        }
        (self.folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        (self.folder / "styles.csv").write_text(STYLES, encoding="utf-8")

    def command(self) -> list[str]:
        """Command line that starts the process."""
        about = self.about
        command = [str(self.install.python), str(self.install.folder / "launch.py"), *about.flags]
        if about.attention and not any(flag.startswith(about.attention_is) for flag in self.flags):
            command.append(about.attention)
        command += ["--port", str(self.port), "--data-dir", str(self.folder)]
        command += [about.ckpt_dir, str(self.models / "models" / "Stable-diffusion")]
        if not self.page:
            command.append("--nowebui")
        else:  # a data folder elsewhere: without this the page comes without the WebUI's and the extensions' scripts
            for source in (self.install.folder, self.models, *self.extensions.values()):
                command += ["--gradio-allowed-path", str(Path(source).resolve())]
        return [part for part in command if part not in self.without] + list(self.flags)

    def start(self) -> WebUI:
        """Starts the process and waits until it answers."""
        self.prepare()
        self.port = self.port or free_port()
        began = time.monotonic()
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running.append(self)
        # Forge Neo finds settings that it has not written itself, and waits for somebody to press Enter.
        with contextlib.suppress(OSError), self.process.stdin as keyboard:  # type: ignore[union-attr]
            keyboard.write(b"\n")
        try:
            self._wait(began + START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def _wait(self, deadline: float) -> None:
        while not self._answers():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the WebUI ended while starting:\n{self.log()[-8000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer in {START_SECONDS} seconds:\n{self.log()[-8000:]}")
            time.sleep(0.3)

    def _answers(self) -> bool:
        # With the page, the port is open before the API is there, and a request in between stops the WebUI
        # ("Cannot add middleware after an application has started"): it has to say first that it is ready.
        if self.log().count("Startup time:") < self._starts:
            return False
        try:
            self.get("/sdapi/v1/samplers", timeout=5)
        except (OSError, ApiError):
            return False
        return True

    def reload_page(self) -> None:
        """Presses "Reload UI": scripts are loaded anew in the same process. Needs the probe and the page."""
        self._starts += 1
        self.post("/asyndm-probe/reload", {})
        self._wait(time.monotonic() + START_SECONDS)

    def stop(self) -> None:
        """Ends the process and whatever it has started."""
        process, self.process = self.process, None
        if self in running:
            running.remove(self)
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            try:
                process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue

    def __enter__(self) -> WebUI:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # --------------------------------------------------------------------------------------------------- HTTP

    def _request(self, path: str, body: object = None, timeout: float = REQUEST_SECONDS) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.credentials:
            headers["Authorization"] = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        request = urllib.request.Request(self.url + path, data, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from None

    def get(self, path: str, timeout: float = REQUEST_SECONDS) -> Any:
        """JSON answer to a GET request."""
        return self._request(path, timeout=timeout)

    def post(self, path: str, body: object, timeout: float = REQUEST_SECONDS) -> Any:
        """JSON answer to a POST request."""
        return self._request(path, body, timeout)

    def client(self) -> Any:
        """A ``webuiapi`` client, which is what most people script a WebUI with."""
        import pytest

        webuiapi = pytest.importorskip("webuiapi")
        client = webuiapi.WebUIApi(host="127.0.0.1", port=self.port)
        client.session.trust_env = False  # no proxy for a loopback address
        return client

    def _names(self, path: str) -> set[str]:
        """What the WebUI lists there; asked once."""
        if path not in self._listed:
            self._listed[path] = {entry["name"] for entry in self.get(path)}
        return self._listed[path]

    def needs_sampler(self, name: str) -> None:
        """Raises ``Lacking`` where the WebUI does not list it."""
        if name not in self._names("/sdapi/v1/samplers"):
            raise Lacking(f"{self.about.title} has no sampler '{name}'")

    def needs_scripts(self, titles: Iterable[str], tab: str) -> None:
        """Raises ``Lacking`` where an extension that the WebUI brings along, or does not, is not in that tab."""
        if tab not in self._listed:
            self._listed[tab] = set(self.get("/sdapi/v1/scripts")[tab])
        for title in titles:
            ours = title.lower().startswith("asyndm")  # where one of ours is missing, that is no reason to skip
            if not ours and title.lower() not in self._listed[tab]:
                raise Lacking(f"{self.about.title} has no {title} in {tab}")

    def has_model(self, name: str) -> bool:
        """Whether it loads this tiny checkpoint."""
        return name in self.about.models

    def upscaler(self, name: str) -> str:
        """This one where the WebUI lists it, otherwise the one that every WebUI has."""
        return (
            name
            if name in self._names("/sdapi/v1/latent-upscale-modes") | self._names("/sdapi/v1/upscalers")
            else "None"
        )

    def needs_model(self, name: str) -> None:
        """Raises ``Lacking`` where the WebUI cannot load this tiny checkpoint."""
        if name in TINY and not self.has_model(name):
            raise Lacking(f"{self.about.title} does not load {name}")

    def use_model(self, name: str) -> None:
        """Loads a checkpoint, as choosing it on the page does. Raises ``Lacking`` where the WebUI cannot."""
        self.needs_model(name)
        title = f"{name}.safetensors"
        if self.get("/sdapi/v1/options")["sd_model_checkpoint"].partition(" [")[0] != title:
            self.post("/sdapi/v1/options", {"sd_model_checkpoint": title})
        if self.about.loads_late and self._loaded != name:
            self.post("/sdapi/v1/txt2img", {"steps": 1, "width": 64, "height": 64})  # what loads it
            self._loaded = name

    def txt2img(self, model: str | None = None, **request: Any) -> Pictures:
        """Generates pictures; small and quick unless told otherwise."""
        return self._generate("/sdapi/v1/txt2img", model, request)

    def img2img(self, picture: Any, model: str | None = None, mask: Any = None, **request: Any) -> Pictures:
        """Generates from a picture (and a mask), both given as arrays."""
        request["init_images"] = [to_base64(picture)]
        if mask is not None:
            request["mask"] = to_base64(mask)
        return self._generate("/sdapi/v1/img2img", model, request)

    def _generate(self, path: str, model: str | None, request: dict) -> Pictures:
        if model:
            self.use_model(model)
        defaults = {
            "prompt": "a red cat and a blue dog",
            "seed": 1,
            "steps": 6,
            "width": 256,
            "height": 256,
            "cfg_scale": 7,
            "sampler_name": "Euler",
        }
        for sampler in (request.get("sampler_name"), request.get("hr_sampler_name")):
            if sampler is not None:
                self.needs_sampler(sampler)
        self.needs_model(request.get("refiner_checkpoint", ""))
        if self.about.is_forge:  # their own extensions differ
            self.needs_scripts(request.get("alwayson_scripts", ()), path.rpartition("/")[2])
        if request.get("enable_hr"):
            defaults.update(self.about.hires)
            if "hr_upscaler" in request:
                request = {**request, "hr_upscaler": self.upscaler(request["hr_upscaler"])}
        began = time.monotonic()
        answer = self.post(path, {**defaults, **request})
        seconds = time.monotonic() - began
        png = [base64.b64decode(image) for image in answer["images"]]
        return Pictures([from_png(data) for data in png], png, json.loads(answer["info"]), seconds)


def from_png(data: bytes) -> Any:
    """A picture file as an array."""
    import numpy as np
    from PIL import Image

    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def to_base64(picture: Any) -> str:
    """An array as the API takes pictures."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@atexit.register
def stop_all() -> None:
    """Leaves no server behind when the tests end without running their fixtures to the end."""
    for server in list(running):
        server.stop()
