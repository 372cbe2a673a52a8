"""The studio as a process of its own, and a window on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .browser import SECONDS, Browser, wait
from .server import REPOSITORY

# As `python -m asyndm_ext` does, after tests/conftest.py has repaired a torchvision that does not fit its torch.
_START = "import sys, tests.conftest; from asyndm_ext.commands.main import main; sys.exit(main())"


def problem() -> str | None:
    """Why there is no studio, if so."""
    try:
        import gradio
    except ImportError:
        return "gradio is not installed (pip install -e '.[studio]')"
    return f"gradio {gradio.__version__} is too old" if int(gradio.__version__.split(".")[0]) < 5 else None


class Studio:
    """``asyndm studio`` on a free port."""

    def __init__(self) -> None:
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, "studio", "--port", "0", "--no-browser"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(REPOSITORY)])},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.url = ""

    def __enter__(self) -> Studio:
        try:
            self.url = wait(self._address, "the studio", 5 * SECONDS)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        self._log.close()

    def log(self) -> str:
        return Path(self._log.name).read_text(encoding="utf-8")

    def _address(self) -> str:
        if self._process.poll() is not None:
            raise AssertionError(f"the studio has ended:\n{self.log()}")
        found = re.search(r"http://[^\s/]+", self.log())
        return found[0] if found else ""


class StudioBrowser(Browser):
    """One window on the studio."""

    READY = "return document.documentElement.dataset.studio === 'ready'"

    def id(self, name: str, tab: str = "") -> str:
        return f"#asyndm_{name}"

    def resize(self, width: int, height: int) -> None:
        """Also narrower than a window can be."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prompt(self, text: str) -> None:
        self.write("#studio_prompt textarea", text)

    def number(self, name: str, value: Any) -> None:
        """Sets a number beside the panel: "steps", "width", "seed"."""
        self.write(f"#studio_{name} input[type=number]", value)

    def status(self) -> str:
        return str(self.run("return arguments[0].innerText", self.one("#studio_status"))).strip()

    def is_running(self) -> bool:
        return bool(self.one("#studio_run").get_property("disabled"))

    def press_run(self, seconds: float = 3 * SECONDS) -> None:
        """Presses Run and waits until there is an answer."""
        script = """window.studioHasBegun = false;
            const status = arguments[0];
            new MutationObserver(() => { window.studioHasBegun ||= status.innerText.includes('Waiting'); })
                .observe(status, {childList: true, subtree: true, characterData: true});"""
        self.run(script, self.one("#studio_status"))
        self.click("#studio_run")
        wait(lambda: self.run("return window.studioHasBegun"), "the beginning")

        def answered() -> bool:
            unfinished = self.is_running() or "Waiting" in self.status() or self.all("#studio_status progress")
            return not unfinished

        wait(answered, "an answer", seconds)

    def console(self) -> list[str]:
        """Without what gradio says of itself, of its manifest and of a machine without a graphics card."""
        own = ("manifest.json", "Manifest fetch", "    at ", "iframeResizer", "fonts.g")
        return [line for line in super().console() if not any(one in line for one in own)]

    def pictures(self, where: str = "#studio_gallery .studio-side-by-side") -> list[str]:
        """The addresses of the pictures in a part of the page."""
        script = "return Array.from(document.querySelectorAll(arguments[0] + ' img'), (one) => one.src)"
        return list(self.run(script, where))
