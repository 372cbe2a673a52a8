"""What the WebUI and its extension index read of the repository: metadata.ini, and our entry for the index.

The index's rules are those of its ``.github/scripts/validate.py`` and ``tags.json``, restated (956826e, May 2026).
"""

from __future__ import annotations

import ast
import configparser
import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "extension-index"
ENTRY = FOLDER / "asyndm-webui.json"
ADDRESS = re.compile(r"https://[^ ]+?(\.git)?$")
TAGS = {
    *("script", "localization", "tab", "dropdown", "ads", "installed", "training", "models", "UI related", "prompting"),
    *("editing", "manipulations", "online", "animation", "query", "science", "extras"),
}
NOT_OURS = {"ads", "online", "installed", "localization"}


def problems(entry: dict[str, Any]) -> list[str]:
    """What the index would refuse."""
    found = [f"no {key}" for key in ("name", "url", "description", "tags") if key not in entry]
    found += [f"no such tag: {tag}" for tag in entry.get("tags", ()) if tag not in TAGS]
    if not ADDRESS.match(entry.get("url", "")):
        found.append("no address")
    if entry.get("added"):
        try:
            datetime.date.fromisoformat(entry["added"])
        except ValueError:
            found.append("no day")
    return found


def entry() -> dict[str, Any]:
    return json.loads(ENTRY.read_text(encoding="utf-8"))


class TestEntry:
    def test_the_index_takes_it(self) -> None:
        assert problems(entry()) == []

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"url": "http://example.com/a.git"}, "no address"),
            ({"url": "https://example.com/a b.git"}, "no address"),
            ({"tags": ["scripts"]}, "no such tag: scripts"),
            ({"added": "26.11.2026"}, "no day"),
        ],
    )
    def test_the_rules_refuse_what_the_index_does(self, change: dict[str, Any], problem: str) -> None:
        assert problems({**entry(), **change}) == [problem]
        assert problems({}) == ["no name", "no url", "no description", "no tags", "no address"]

    def test_it_has_nothing_but_what_we_fill_in(self) -> None:
        ours = entry()
        assert list(ours) == ["name", "url", "description", "tags"], "the index fills in the rest"
        assert ours["tags"] and len(set(ours["tags"])) == len(ours["tags"])
        assert not NOT_OURS & set(ours["tags"])
        assert ours["description"].isascii() and len(ours["description"]) < 300

    def test_the_owner_is_all_that_is_left_to_write(self) -> None:
        assert entry()["url"].count("OWNER") == 1 and "`OWNER`" in (FOLDER / "README.md").read_text(encoding="utf-8")


class TestMetadata:
    @pytest.fixture
    def metadata(self) -> configparser.ConfigParser:
        read = configparser.ConfigParser()
        assert read.read(ROOT / "metadata.ini", encoding="utf-8")
        return read

    def test_our_script_comes_after_those_that_repaint(self, metadata: configparser.ConfigParser) -> None:
        """Its section is named as the WebUI looks it up: by the file, whatever the folder is called."""
        assert (ROOT / "scripts" / "asyndm.py").is_file()
        assert metadata.get("scripts/asyndm.py", "After") == "adetailer, sd-dynamic-prompts"

    def test_no_section_depends_on_the_folder_s_name(self, metadata: configparser.ConfigParser) -> None:
        assert not [section for section in metadata.sections() if section.startswith("callbacks/")]

    def test_it_requires_no_other_extension(self, metadata: configparser.ConfigParser) -> None:
        assert not [section for section in metadata.sections() if metadata.has_option(section, "Requires")]


NETWORK = {
    *("aiohttp", "ftplib", "gradio_client", "http", "httpx", "huggingface_hub", "requests", "smtplib", "socket"),
    *("ssl", "telnetlib", "urllib3", "webbrowser", "websockets", "xmlrpc"),
}
ELSEWHERE = (
    "asyndm_ext/evaluate/backends/api.py",  # speaks to the WebUI that the command line names
    "asyndm_ext/studio/server.py",  # serves the studio's page
)
"""Of the ``asyndm`` command; the extension in a WebUI imports neither."""
ROOMS_OF_THE_COMMAND = {"bench", "commands", "embedded", "evaluate", "exact", "studio", "world"}


def imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


class TestNetwork:
    """README: AsynDM makes no network access."""

    def test_nothing_imports_what_speaks_to_a_network(self) -> None:
        files = [ROOT / "install.py", *(ROOT / "scripts").glob("*.py"), *(ROOT / "asyndm_ext").rglob("*.py")]
        speaking = {
            file.relative_to(ROOT).as_posix()
            for file in files
            if any(name.split(".")[0] in NETWORK or name.startswith("urllib.request") for name in imported(file))
        }
        assert speaking == set(ELSEWHERE)
        modules = {name[: -len(".py")].replace("/", ".") for name in ELSEWHERE}
        loaded = [file for file in files if not ROOMS_OF_THE_COMMAND & {*file.relative_to(ROOT).parts}]
        assert len(loaded) > 100
        assert not modules & set().union(*map(imported, loaded))

    def test_the_page_s_script_asks_no_server(self) -> None:
        for file in (*(ROOT / "javascript").glob("*.js"), ROOT / "style.css"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|https?://|@import|url\(", text)
