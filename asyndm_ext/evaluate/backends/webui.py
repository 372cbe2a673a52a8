"""Pictures of real checkpoints: one or several WebUIs with the extension share the work over their API."""

from __future__ import annotations

import base64
import io
import json
import math
import queue
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from asyndm_ext.evaluate.backends.api import Api, Refused, Unreachable
from asyndm_ext.evaluate.methods import Method, check_usual
from asyndm_ext.evaluate.plan import Pair, Plan, Unit
from asyndm_ext.evaluate.store import MADE, Result
from asyndm_ext.rivals import cfgpp
from asyndm_ext.settings import COMPARE_KEY, FIELDS, Settings
from asyndm_ext.solvers import SOLVERS
from asyndm_ext.ui.infotext import EQUIVALENT_KEY

_WAITS = (2.0, 5.0, 15.0)  # seconds before another try
_LOOK_UP = 0.5  # seconds
_HOPELESS = 5  # refusals in a row, with nothing made before: the requests themselves are wrong
_STRENGTH = next(spec.infotext_key for spec in FIELDS if spec.name == "strength")
ON_COMPARE = ("zigzag", "seg", "s-cfg")
"""The methods that go with the key "compare"."""
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""The WebUI's own rule for its line of parameters."""


@dataclass(frozen=True)
class Request:
    """What all pictures have in common.

    Attributes:
        width, height: pixels.
        model: checkpoint's name; "": the loaded one.
        negative: prompt.
        eta: noise weight of ancestral samplers and DDIM; None: the WebUI's setting.
        timeout: for one picture, seconds.
    """

    width: int
    height: int
    model: str = ""
    negative: str = ""
    eta: float | None = None
    timeout: float = 600.0

    def body(self, pair: Pair, method: Method) -> dict[str, Any]:
        """For ``/sdapi/v1/txt2img``."""
        host = method.host
        sampler, guidance = sampler_of(method)
        body: dict[str, Any] = {
            "prompt": pair.prompt.text,
            "negative_prompt": self.negative,
            "seed": pair.seed,
            "sampler_name": sampler,
            "scheduler": host["scheduler"],
            "steps": host["steps"],
            "cfg_scale": guidance,
            "width": self.width,
            "height": self.height,
            "batch_size": 1,
            "n_iter": 1,
            "send_images": True,
            "save_images": False,
        }
        if self.eta is not None:
            body["eta"] = self.eta
        if self.model:
            body["override_settings"] = {"sd_model_checkpoint": self.model}
            body["override_settings_restore_afterwards"] = False
        settings = asked(pair, method)
        if settings:
            body["alwayson_scripts"] = {"AsynDM": {"args": [settings]}}
        return body


def sampler_of(method: Method) -> tuple[str, float]:
    """The WebUI's sampler and CFG scale for this method."""
    name, guidance = str(method.host["solver"]), float(method.host["guidance"])
    if method.rival != "cfg++":
        return name, guidance
    name = cfgpp.sibling(name)
    # DDIM's form divides the scale itself; the others take it for lambda.
    return name, round(guidance / cfgpp.WHOLE / SOLVERS[name].guidance, 4)


def asked(pair: Pair, method: Method) -> dict[str, Any]:
    """AsynDM's settings for this picture as the API takes them; empty: off."""
    settings, objects = method.asyndm(), method.objects(pair.prompt.objects)
    if not asks(method):
        return {}
    if method.rival in ON_COMPARE:
        # JSON has no infinity.
        options = {name: str(value) if value == math.inf else value for name, value in method.rival_options.items()}
        settings["compare"] = {"method": method.rival, **options}
    if method.base == "plain":
        return {"enabled": True, "region": "everything", "strength": 0, **settings}  # the host's own clock
    if method.kind != "concave":
        settings["objects"] = [str(spec) for spec in objects]
    own = [spec.strength for spec in objects if spec.strength is not None]
    if method.kind == "concave" and own:
        settings["strength"] = max(own)  # as the authors' code has it
    return {"enabled": True, **settings}


def asks(method: Method) -> bool:
    """Whether AsynDM is asked for anything; CFG++ is the WebUI's own sampler."""
    return method.base != "plain" or method.rival in ON_COMPARE


def parameters(infotext: str) -> dict[str, str]:
    """The key-value pairs in the last line of an infotext."""
    lines = infotext.strip().split("\n")
    return {key: json.loads(value) if value[:1] == '"' else value for key, value in _PAIR.findall(lines[-1])}


def state_of(method: Method, infotext: str) -> tuple[str, str]:
    """Status and note of a picture: what its infotext says was done, against what was asked for."""
    said = parameters(infotext)
    if not asks(method):
        return ("failed: AsynDM is in the plain picture's infotext" if _STRENGTH in said else MADE), ""
    if "AsynDM" in said:
        return said["AsynDM"], ""  # "not applied: ..."
    if _STRENGTH not in said:
        return "not applied: the infotext does not name AsynDM", ""
    named = said.get(COMPARE_KEY, "").split(" ")[0]
    if named != (method.rival if method.rival in ON_COMPARE else ""):
        return f"not applied: the infotext names {named or 'no other method'}", ""
    return MADE, said.get("AsynDM note", "")


class WebUIBackend:
    """WebUIs as a :class:`~asyndm_ext.evaluate.backends.Backend`.

    Args:
        urls: of the WebUIs, with the same checkpoint.
        folder: of the run.
        request: what all pictures have in common.
        auth: "user:password", or "".
        waits: seconds before each further try of a WebUI that does not answer.
        say: where messages about WebUIs go.
    """

    def __init__(
        self,
        urls: Sequence[str],
        folder: Path,
        request: Request,
        auth: str = "",
        waits: Sequence[float] = _WAITS,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._apis = [Api(url, auth, request.timeout) for url in dict.fromkeys(urls)]
        self._folder, self._request, self._waits = folder, request, waits
        self._say = say or (lambda text: print(f"\nasyndm evaluate: {text}", file=sys.stderr))
        self._stop = threading.Event()

    def made_with(self) -> Mapping[str, Any]:
        request = self._request
        return {
            "backend": "webui",
            "model": request.model or self._loaded(),
            "width": request.width,
            "height": request.height,
            "negative": request.negative,
            "eta": request.eta,
        }

    def _loaded(self) -> str:
        """The checkpoint that every reachable WebUI has loaded. Raises ValueError if they differ."""
        found = {
            api.url: str(options.get("sd_model_checkpoint")) for api, options in self._answers("/sdapi/v1/options")
        }
        if len(set(found.values())) > 1:
            told = ", ".join(f"{url}: {name}" for url, name in found.items())
            raise ValueError(f"the WebUIs have different checkpoints loaded ({told}); name one with --model")
        return next(iter(found.values()))

    def _answers(self, path: str) -> list[tuple[Api, Any]]:
        """What the reachable WebUIs answer. Raises ValueError if none does."""
        answers, troubles = [], []
        for api in self._apis:
            try:
                answers.append((api, api.get(path)))
            except (Unreachable, Refused) as error:
                troubles.append(str(error))
        if not answers:
            raise ValueError("; ".join(troubles))
        return answers

    def check(self, plan: Plan) -> None:
        check_usual(plan.methods)
        for path, name, what in (
            ("/sdapi/v1/samplers", "solver", "sampler"),
            ("/sdapi/v1/schedulers", "scheduler", "schedule type"),
        ):
            for api, listed in self._answers(path):
                known = {text for item in listed for text in (item["name"], item.get("label")) if text}
                wanted = {sampler_of(m)[0] if name == "solver" else str(m.host[name]) for m in plan.methods}
                missing = wanted - known
                if missing:
                    raise ValueError(f"{api.url} has no {what} {', '.join(sorted(missing))}")
        for api, scripts in self._answers("/sdapi/v1/scripts"):
            if "asyndm" not in [name.lower() for name in scripts["txt2img"]]:
                raise ValueError(f"{api.url} does not have the extension AsynDM")
        for method in plan.methods:
            for pair in plan.pairs:
                Settings.from_dict(asked(pair, method))

    # -- the work

    def run(self, units: Iterable[Unit]) -> Generator[list[Result], None, None]:
        self._stop.clear()
        work = _Work(units)
        finished: queue.Queue[list[Result] | BaseException | None] = queue.Queue()
        threads = [threading.Thread(target=self._serve, args=(api, work, finished), daemon=True) for api in self._apis]
        for thread in threads:
            thread.start()
        alive, made, refused, reasons = len(threads), 0, 0, []
        try:
            while alive:
                try:
                    # Not forever: on Windows nothing wakes a wait without an end, Ctrl+C included.
                    found = finished.get(timeout=_LOOK_UP)
                except queue.Empty:
                    continue
                if found is None:
                    alive -= 1
                elif isinstance(found, BaseException):
                    reasons.append(str(found))
                    alive -= 1
                else:
                    refused = 0 if found[0].final else refused + 1
                    made += found[0].final
                    yield found
                    if refused >= _HOPELESS and not made:
                        raise RuntimeError(f"the WebUI refuses every request: {found[0].status}")
            if work.left:
                raise RuntimeError(f"no WebUI is left ({'; '.join(reasons)})")
        finally:
            self._stop.set()

    def _serve(self, api: Api, work: _Work, finished: queue.Queue[list[Result] | BaseException | None]) -> None:
        """Work for one WebUI until there is none, or it fails for good."""
        try:
            while not self._stop.is_set() and (task := work.take()) is not None:
                pair, method = task
                try:
                    finished.put([self._picture(api, pair, method)])
                except BaseException:
                    work.give_back(task)
                    raise
                work.done()
            finished.put(None)
        except Unreachable as error:
            if len(self._apis) > 1 and not self._stop.is_set():
                self._say(f"going on without {api.url}: {error}")
            finished.put(error)
        except BaseException as error:
            finished.put(error)

    def _picture(self, api: Api, pair: Pair, method: Method) -> Result:
        try:
            answer = self._patiently(api, self._request.body(pair, method))
        except Refused as error:
            return Result(pair.prompt.text, pair.seed, method.id, status=f"failed: {error}")
        data = base64.b64decode(answer["images"][0].split(",", 1)[-1])
        infotext = json.loads(answer["info"])["infotexts"][0]
        status, note = state_of(method, infotext)
        name = Path("pictures") / method.slug / f"{pair.slug}.png"
        place = self._folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format == "PNG":
                place.write_bytes(data)
            else:
                picture.save(place)
        scales = [float(scale) for scale in parameters(infotext).get(EQUIVALENT_KEY, "").split()]
        return Result(pair.prompt.text, pair.seed, method.id, status, name.as_posix(), note, scales=scales)

    def _patiently(self, api: Api, body: dict[str, Any]) -> Any:
        """The answer, with further tries where the WebUI does not answer."""
        for wait in (*self._waits, None):
            try:
                return api.post("/sdapi/v1/txt2img", body)
            except Unreachable as error:
                if wait is None or error.final or self._stop.is_set():
                    raise
                self._say(f"{error}; trying again in {wait:g} s")
                if self._stop.wait(wait):
                    raise
        raise AssertionError("the last try answers or raises")


class _Work:
    """The pictures to make, taken one at a time by several threads; one that a WebUI could not make comes back.

    A thread waits while others are at work: theirs may come back.
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        self._coming = ((pair, method) for unit in units for method in unit.methods for pair in unit.pairs)
        self._returned: list[tuple[Pair, Method]] = []
        self._out = 0
        self._changed = threading.Condition()

    def take(self) -> tuple[Pair, Method] | None:
        """The next picture, or None when there is nothing left to do."""
        with self._changed:
            while True:
                task = self._returned.pop() if self._returned else next(self._coming, None)
                if task is not None:
                    self._out += 1
                    return task
                if not self._out:
                    return None
                self._changed.wait()

    def done(self) -> None:
        with self._changed:
            self._out -= 1
            self._changed.notify_all()

    def give_back(self, task: tuple[Pair, Method]) -> None:
        with self._changed:
            self._out -= 1
            self._returned.append(task)
            self._changed.notify_all()

    @property
    def left(self) -> bool:
        """Whether something is still to be done."""
        with self._changed:
            return bool(self._returned) or next(self._coming, None) is not None
