"""Fixtures that run a WebUI, and the loud line that says when they did not run.

Importing this needs nothing but pytest: it is also collected where no WebUI is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from .browser import problem as browser_problem
from .server import PROBE, REPOSITORY, Install, Lacking, WebUI, checkpoints_in, running
from .studio import problem as studio_problem

HERE = Path(__file__).resolve().parent
NOT_RUN = "e2e tests NOT run: set ASYNDM_WEBUI (an installed WebUI) and ASYNDM_WEBUI_PYTHON (its Python)"
NEED_NO_WEBUI = ("test_report.py", "test_studio.py", "test_studio_page.py", "test_vote.py")
LOG_CHARACTERS = 6000
KONTEXT = "ASYNDM_KONTEXT"
KONTEXT_NOT_RUN = f"Kontext tests NOT run: set {KONTEXT} (a checkout of DenOfEquity/forge2_flux_kontext)"
_skipped: list[str] = []
_without_browser: list[str] = []
_without_kontext: list[str] = []
_lacking: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """Under xdist with ``--dist loadgroup``, all of these tests share one worker and so one server of each kind."""
    config.addinivalue_line("markers", "xdist_group(name): tests that have to run in the same worker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips everything in this folder that needs a WebUI when there is none."""
    if Install.from_environment() is not None:
        return
    for item in items:
        if HERE in Path(item.fspath).parents and Path(item.fspath).name not in NEED_NO_WEBUI:
            item.add_marker(pytest.mark.skip(reason=NOT_RUN))
            _skipped.append(item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skip is easily overlooked among dots: says it in a line of its own."""
    if _skipped:
        terminalreporter.write_sep("!", f"{NOT_RUN}; {len(_skipped)} skipped", red=True, bold=True)
    if _without_browser:
        terminalreporter.write_sep("!", f"browser tests NOT run: {_without_browser[0]}", red=True, bold=True)
    if _without_kontext:
        terminalreporter.write_sep("!", _without_kontext[0], red=True, bold=True)
    for what, times in sorted(_lacking.items()):
        terminalreporter.write_sep("!", f"{what}; {times} skipped", yellow=True, bold=True)


def _skip_what_is_lacking() -> Generator[None, object, object]:
    try:
        return (yield)
    except Lacking as what:
        _lacking[str(what)] += 1
        pytest.skip(str(what))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Fixtures load models, too."""
    return (yield from _skip_what_is_lacking())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """A test of something that this WebUI does not have says nothing about it."""
    return (yield from _skip_what_is_lacking())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Shows the end of the servers' logs with a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and HERE in Path(item.fspath).parents:
        for server in running:
            report.sections.append((f"log of the WebUI '{server.name}'", server.log()[-LOG_CHARACTERS:]))


@pytest.fixture(scope="session")
def install() -> Install:
    """The installed WebUI."""
    found = Install.from_environment()
    if found is None:
        pytest.skip(NOT_RUN)
    problem = found.problem()
    if problem:
        pytest.fail(problem, pytrace=False)
    return found


@pytest.fixture(scope="session")
def models_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Install], Path]:
    """Makes the folder of an install's tiny checkpoints, 100 to 250 MB; kept in pytest's cache until their sources
    change (--cache-clear)."""

    def make(install: Install) -> Path:
        cache = getattr(request.config, "cache", None)
        parent = Path(cache.mkdir("asyndm-e2e")) if cache else tmp_path_factory.mktemp("asyndm-e2e")
        return checkpoints_in(parent, install)

    return make


@pytest.fixture(scope="session")
def models(install: Install, models_of: Callable[[Install], Path]) -> Path:
    """Folder of the tiny checkpoints."""
    return models_of(install)


@pytest.fixture(scope="session")
def launch(install: Install, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WebUI]]:
    """``launch(name, extensions={...}, page=False, ...)`` starts a WebUI that lives until the end of the session."""
    started: list[WebUI] = []

    def start(name: str, **settings: object) -> WebUI:
        folder = tmp_path_factory.mktemp(name)
        server = WebUI(install, models, folder, name=name, **settings)  # type: ignore[arg-type]
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def chromium() -> None:
    """For tests that need a browser."""
    reason = browser_problem()
    if reason:
        _without_browser.append(reason)
        pytest.skip(f"no browser: {reason}")


@pytest.fixture(scope="session")
def kontext(install: Install) -> Path:
    """Folder of the extension that brings Kontext to Forge."""
    if install.kind != "forge":
        pytest.skip("this is no Forge")
    name = os.environ.get(KONTEXT)
    if not name:
        _without_kontext.append(KONTEXT_NOT_RUN)
        pytest.skip(KONTEXT_NOT_RUN)
    folder = Path(name).expanduser().resolve()
    if not (folder / "scripts" / "kontext.py").is_file():
        pytest.fail(f"{KONTEXT}={folder} holds no scripts/kontext.py", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def gradio_installed() -> None:
    """For the tests of the studio."""
    reason = studio_problem()
    if reason:
        _without_browser.append(reason)
        pytest.skip(f"no studio: {reason}")


@pytest.fixture(scope="session")
def plain_webui(launch: Callable[..., WebUI]) -> WebUI:
    """A WebUI without the extension under test."""
    return launch("plain", extensions={"asyndm-e2e-probe": PROBE})


@pytest.fixture(scope="session")
def webui(launch: Callable[..., WebUI]) -> WebUI:
    """A WebUI with the extension under test."""
    return launch("asyndm", extensions={"asyndm": REPOSITORY, "asyndm-e2e-probe": PROBE})
