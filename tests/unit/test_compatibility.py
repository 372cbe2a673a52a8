"""docs/COMPATIBILITY.md: its tables are the results, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility_page import KINDS, PAGE, RESULTS, is_right, load, tables, with_tables

ROOT = Path(__file__).resolve().parents[2]
TEXT = PAGE.read_text(encoding="utf-8")
HOST = {"name": "A host", "version": "1.0", "gradio": "3", "torch": "2", "python": "3.11"}
RUN = {"date": "2020-01-02", "asyndm": "0.1", "size": "128x128", "steps": 6, "schedule": "Automatic"}
SAMPLERS: dict[str, dict[str, Any]] = {
    "Euler": {"on": 40, "zero": 1},
    "LMS": {"on": 40, "zero": 3},
    "Heun": {"on": 2, "zero": 0},
    "PLMS": {"not_applied": "it cannot"},
    "LCM": {"host": "fails by itself: no"},
    "DDIM": {"not_applied": "it cannot"},
}


def test_the_page_shows_what_was_measured() -> None:
    assert with_tables(TEXT, load()) == TEXT, f"python -m tests.compatibility --write ({RESULTS.name} has changed)"


def test_every_model_of_every_webui_has_all_of_its_samplers() -> None:
    for one in load():
        runs = [set(run["samplers"]) for run in one["models"].values()]
        assert set(one["models"]) <= set(KINDS) and len(runs) > 1
        assert all(names == runs[0] and len(names) >= 20 for names in runs)


def test_a_table() -> None:
    models = {"tiny-sd1": {**RUN, "samplers": SAMPLERS}, "tiny-sd3": {**RUN, "samplers": {"Euler": SAMPLERS["Euler"]}}}
    lines = tables([{"host": HOST, "models": models}]).splitlines()
    assert lines[0] == "### A host 1.0"
    assert lines[4:12] == [
        "| sampler | SD 1.x | SD3 |",
        "|---|---|---|",
        "| Euler | 40 / 1 | 40 / 1 |",
        "| LMS | **40 / 3** |  |",
        "| Heun | **2 / 0** |  |",
        "| PLMS | (1) |  |",
        "| LCM | (2) |  |",
        "| DDIM | (1) |  |",
    ]
    assert "1. Goes on without: it cannot." in lines and "2. The WebUI fails by itself: no." in lines
    assert lines[-2].endswith("; 1 of 6 samplers") and lines[-1].endswith("; 1 of 1 samplers")


def test_what_counts_as_right() -> None:
    assert [name for name, cell in SAMPLERS.items() if is_right(cell)] == ["Euler"]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[^`]+)`", TEXT))))
def test_the_tests_that_it_names_exist(name: str) -> None:
    file, *inside = name.split("::")
    body: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for part in inside:
        found = [n for n in body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name == part]
        assert found, f"{part} is not in {file}"
        body = found[0].body
