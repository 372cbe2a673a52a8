"""The browser of the tests in tests/e2e, without one: when a job is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e import browser as module
from tests.e2e.browser import Browser


class Page(Browser):
    """A page that answers with what it is told to show, one answer after another; the last one stays.

    Args:
        results: log, infotext and pictures.
        ends: after how many looks the page has forgotten the job.
    """

    def __init__(self, results: list[list[str]], ends: int) -> None:
        self._left, self._ends, self.looks, self.clicked = list(results), ends, 0, False

    def run(self, script: str, *arguments: Any) -> Any:
        if script == module._RESULTS:
            return self._left.pop(0) if self.clicked and len(self._left) > 1 else self._left[0]
        if script.startswith("return window.asyndmJobHasEnded"):
            self.looks += 1
            return self.looks > self._ends
        return None

    def click(self, css: str) -> None:
        self.clicked = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Time that passes only while one waits."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return lambda: now[0]


def test_two_runs_that_print_the_same_time(clock: Callable[[], float]) -> None:
    log = "Time taken: 0.6 sec."
    page = Page([[log, "Seed: 1", "a.png"]] * 9 + [[log, "Seed: 1", "b.png"]], ends=5)
    page.generate()
    assert clock() < module.SECONDS / 4, "the new picture is enough"


def test_two_runs_that_fail_alike(clock: Callable[[], float]) -> None:
    page = Page([["AsynDMError. Time taken: 0.0 sec.", "", ""]], ends=3)
    page.generate()
    assert module.SECONDS / 4 < clock() < module.SECONDS


def test_a_job_without_an_end(clock: Callable[[], float]) -> None:
    with pytest.raises(AssertionError, match="the pictures"):
        Page([["Time taken: 0.6 sec.", "Seed: 1", "a.png"]], ends=10**9).generate()
