"""docs/TROUBLESHOOTING.md has every message that the code can give, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.messages import Message, messages, normal

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "asyndm_ext"
ROOMS = ("clock", "hosts", "machine", "model", "picture", "prompt", "region", "run", "solvers", "ui")
SOURCES = [
    ROOT / "scripts" / "asyndm.py",
    *(PACKAGE / "embedded" / f"{name}.py" for name in ("cli", "job")),
    *(PACKAGE / "world" / f"{name}.py" for name in ("model", "tokens", "words")),
    *sorted((PACKAGE / "commands").glob("*.py")),
    *sorted(PACKAGE.glob("*.py")),
    *sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")),
]
"""Whatever a user of the WebUI or of ``asyndm "a prompt"`` can meet."""
PAGE = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
FOUND = messages(SOURCES, ROOT)


def listed() -> list[str]:
    """The first column of the page's tables: messages, each in a code span."""
    return [normal(match[1]) for match in re.finditer(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)]


def spans() -> set[str]:
    """Everything in code spans."""
    return {normal(match[1]) for match in re.finditer(r"`([^`]+)`", PAGE)}


@pytest.mark.parametrize("text", sorted({message.text for message in FOUND}))
def test_it_is_on_the_page(text: str) -> None:
    where = ", ".join(f"{m.file}:{m.line}" for m in FOUND if m.text == text)
    assert text in spans(), f"docs/TROUBLESHOOTING.md lacks the message of {where}"


@pytest.mark.parametrize("text", listed())
def test_the_code_says_so(text: str) -> None:
    assert text in {message.text for message in FOUND}, "nothing says this any more"


def test_no_message_is_explained_twice() -> None:
    assert len(listed()) == len(set(listed()))


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.+)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


# -- the collector itself

SAMPLE = """
TEXT = "from the module"
LEFT_OUT: dict[str, str] = {"a": TEXT, "b": "of a table"}

def job(p, value, other):
    raise ValueError(f"wrong: {value!r} {other}, or "
        f"not: {value}")

def hook(p, ok):
    reason = "so it is" if ok else f"so it is not {ok}"
    p.comment(reason)
    note(p, str(ok))
    raise RuntimeError(str(reason))

def note(p):
    return None if p else "a note of it"

def progress(state):
    state.textinfo = "a status line"
"""


def test_the_collector(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(SAMPLE)
    expected = {
        "from the module", "of a table", "wrong: …, or not: …", "so it is", "so it is not …", "a note of it",
        "a status line",
    }  # fmt: skip
    assert {message.text for message in messages([file], tmp_path)} == expected
    assert Message("wrong: …, or not: …", "sample.py", 6) in messages([file], tmp_path)
