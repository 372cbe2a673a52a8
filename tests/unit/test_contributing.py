"""What a newcomer is told to open and to run is there: CONTRIBUTING.md, and the forms and workflows of .github."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyndm_ext import __version__
from asyndm_ext.commands.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GITHUB = ROOT / ".github"
YAML = sorted(GITHUB.rglob("*.yml"))
FORMS = [file for file in YAML if file.parent.name == "ISSUE_TEMPLATE"]
SUFFIXES = (".py", ".md", ".json", ".toml", ".ini", ".js", ".css", ".sh", ".yml")

BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line]
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
SPANS = sorted(set(re.findall(r"`([^`]+)`", PROSE)))


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def is_path(text: str) -> bool:
    """A path of the repository, not one of the reader's."""
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*/?", text) or text.startswith(("path/", "venv", "localhost")):
        return False
    return "/" in text or text.endswith(SUFFIXES)


PATHS = sorted({text for text in (*SPANS, *(word for line in LINES for word in words_of(line))) if is_path(text)})


@cache
def sources() -> str:
    """Everything that is written in Python here, but for this file."""
    files = [*(ROOT / "asyndm_ext").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file != Path(__file__))


class TestContributing:
    def test_it_has_paths_and_commands(self) -> None:
        assert len(PATHS) > 40 and len(LINES) > 15

    @pytest.mark.parametrize("path", PATHS)
    def test_a_path_is_there(self, path: str) -> None:
        if "/" in path:
            assert (ROOT / path).exists()
        else:  # "beside it": somewhere in the folders that the page names
            assert any((ROOT / folder / path).is_file() for folder in (".", *map(str, map(folder_of, PATHS))))

    def test_every_room_is_on_the_map(self) -> None:
        rooms = TEXT.partition("## The rooms")[2].partition("\n## ")[0]
        package = ROOT / "asyndm_ext"
        folders = {f"asyndm_ext/{folder.parent.name}/" for folder in package.glob("*/__init__.py")}
        files = {f"asyndm_ext/{file.name}" for file in package.glob("*.py") if not file.name.startswith("__")}
        assert set(re.findall(r"`(asyndm_ext/[^`]+)`", rooms)) == folders | files

    @pytest.mark.parametrize("span", [span for span in SPANS if re.fullmatch(r"[A-Za-z_]\w+(\(.*\))?", span)])
    def test_a_name_is_known(self, span: str) -> None:
        name = span.partition("(")[0]
        if name not in ("mypy", "sample_x"):
            assert re.search(rf"\b{name}\b", sources()), f"nothing is called {name} any more"

    @pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", TEXT))
    def test_a_link_leads_somewhere(self, link: str) -> None:
        file, _, anchor = link.partition("#")
        target = ROOT / file if file else ROOT / "CONTRIBUTING.md"
        assert target.is_file()
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @pytest.mark.parametrize("line", LINES)
    def test_a_command_is_one(self, line: str) -> None:
        words = [word for word in words_of(line) if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]) is not None
        elif words[0] == "asyndm":
            assert words[1] in COMMANDS
        elif words[0] == "export":
            assert words[1:] == [], "its variable is looked up below"
        else:
            assert words[0] in ("python", "python3", "pytest", "pip"), "its paths are looked up above"

    @pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bASYNDM_[A-Z_]+", TEXT))))
    def test_an_environment_variable_is_read(self, variable: str) -> None:
        parent = variable.removesuffix("_PYTHON")
        assert f'"{parent}"' in sources()

    @pytest.mark.parametrize("extra", sorted(set(re.findall(r"'\.\[(\w+)\]'", TEXT))))
    def test_an_extra_is_one(self, extra: str) -> None:
        assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)

    def test_it_names_what_ci_runs(self) -> None:
        script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        for command in ("ruff check .", "ruff format --check .", "mypy"):
            assert f"\n{command}\n" in script and f"`{command}`" in TEXT

    def test_pythons_are_the_same_everywhere(self) -> None:
        workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))
        pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
        assert f"Python {pythons[0]} to {pythons[-1]}" in TEXT
        assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def folder_of(path: str) -> Path:
    return Path(path) if path.endswith("/") else Path(path).parent


class TestGitHub:
    """GitHub says nothing when it cannot read a form: the form is only not there."""

    @pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)
    def test_it_is_yaml(self, file: Path) -> None:
        assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)

    def test_the_workflow_runs_the_same_script_as_everybody(self) -> None:
        workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))
        steps = workflow["jobs"]["test"]["steps"]
        assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
        assert set(workflow[True]) == {"push", "pull_request", "workflow_dispatch"}  # YAML reads "on" as a switch
        assert all(isinstance(python, str) for python in workflow["jobs"]["test"]["strategy"]["matrix"]["python"])

    @pytest.mark.parametrize("form", FORMS, ids=lambda file: file.name)
    def test_a_form_is_one(self, form: Path) -> None:
        content: dict[str, Any] = yaml.safe_load(form.read_text(encoding="utf-8"))
        if form.name == "config.yml":
            assert set(content) <= {"blank_issues_enabled", "contact_links"}
            return
        assert content["name"] and content["description"]
        ids = [field["id"] for field in content["body"] if field["type"] != "markdown"]
        assert ids and len(ids) == len(set(ids))
        for field in content["body"]:
            assert field["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
            assert field["attributes"]["value" if field["type"] == "markdown" else "label"]
            assert set(field) <= {"type", "id", "attributes", "validations"}

    def test_a_bug_comes_with_what_is_needed(self) -> None:
        form = (GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")
        for asked in ("/asyndm/v1/last-run?masks=false", "AsynDM version", "WebUI and version", "Kind of model"):
            assert asked in form
        for asked in ("Sampler", "Other extensions", "Infotext", "Console"):
            assert f"label: {asked}" in form
        assert "/asyndm/v1/last-run" in (ROOT / "docs" / "API.md").read_text(encoding="utf-8")


class TestVersion:
    CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    def test_the_changelog_begins_with_what_comes_and_then_has_this_version(self) -> None:
        headings = re.findall(r"^## (.+)$", self.CHANGES, re.MULTILINE)
        assert headings[0] == "Unreleased"
        assert headings[1].split(" - ")[0] == __version__

    def test_every_version_has_its_day_newest_first(self) -> None:
        entries = re.findall(r"^## (?!Unreleased)(.+)$", self.CHANGES, re.MULTILINE)
        found = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - (\d{4}-\d\d-\d\d)", entry) for entry in entries]
        assert all(found), entries
        versions = [tuple(map(int, match.groups()[:3])) for match in found if match]
        days = [match[4] for match in found if match]
        assert versions == sorted(versions, reverse=True) and days == sorted(days, reverse=True)

    def test_the_api_s_example_is_of_this_version(self) -> None:
        assert f"AsynDM version: {__version__}\n" in (ROOT / "docs" / "API.md").read_text(encoding="utf-8")
