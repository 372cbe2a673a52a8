"""Numbers that stand on more than one page say the same everywhere, and what the code says too."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from asyndm_ext import __version__
from asyndm_ext.region import mask_image
from asyndm_ext.settings import FIELDS
from asyndm_ext.ui import last_run
from asyndm_ext.ui.gate import Gate

ROOT = Path(__file__).resolve().parents[2]
NUMBER = r"([+-]?\d+(?:\.\d+)*)"
INTERVAL = rf"{NUMBER} to {NUMBER}"

TODAY = r"\*\*Confirmation on the network of today\*\*"
TWICE: dict[str, list[tuple[str, str]]] = {
    "the exact world: AsynDM's gain": [
        ("README.md", rf"\(difference {NUMBER} points, {INTERVAL}; 3000 pairs\)"),
        ("docs/WHY.md", rf"\| quadratic, 1 \| .* \| {NUMBER} \({INTERVAL}\) \|$"),
        ("docs/EVALUATE.md", rf"\| \*\*quadratic, 1\*\* \| [^|]* \| \*\*{NUMBER} \({INTERVAL}\)\*\*"),
    ],
    "the exact world: how many are right without": [
        ("README.md", rf"instead of {NUMBER} %"),
        ("docs/WHY.md", rf"time\. {NUMBER} % of the pictures come out as asked"),
        ("docs/WHY.md", rf"\| quadratic, 1 \| {NUMBER} %"),
        ("docs/EVALUATE.md", rf"guidance 5, 30 steps, DDIM, eta 1: plain {NUMBER} % right"),
    ],
    "the little world: how many are right without": [
        ("README.md", rf"unusual prompts {NUMBER} % are right without AsynDM"),
        ("docs/EVALUATE.md", rf"{TODAY} \(2000 new pairs, [^)]*; plain {NUMBER} %\)"),
    ],
    "the little world: how many are right with": [
        ("README.md", rf"% are right without AsynDM and {NUMBER} % with it"),
        ("docs/EVALUATE.md", rf"{TODAY}[^*]*?\| AsynDM \| {NUMBER} % \|"),
    ],
    "the little world: AsynDM's gain": [
        ("README.md", rf"no difference \({NUMBER} points, {INTERVAL}; 2000 pairs\)"),
        ("README.md", rf"with it \(difference {NUMBER} points,\s+{INTERVAL}; 2000 pairs"),
        ("docs/EVALUATE.md", rf"{TODAY}[^*]*?\| AsynDM \| [^|]* \| {NUMBER} \({INTERVAL}\)"),
        ("README.md", rf"\| \*Gentle\* \| .* little world: no gain, {NUMBER} \({INTERVAL}\)"),
    ],
    "the paper on SD 2.1": [
        ("README.md", rf"rises\s+from {NUMBER} to {NUMBER} on SD 2.1"),
        ("README.md", rf"paper: ImageReward from {NUMBER} to {NUMBER} on SD 2.1"),
        ("asyndm_ext/presets.py", rf"ImageReward from {NUMBER} to {NUMBER} on SD 2.1"),
        ("docs/WHY.md", rf"\| SD 2.1 \| .* \| {NUMBER} \| {NUMBER} \|$"),
    ],
    "the paper on SDXL": [
        ("README.md", rf"from {NUMBER} to\s+{NUMBER} on SDXL"),
        ("docs/WHY.md", rf"\| SDXL \| .* \| {NUMBER} \| {NUMBER} \|$"),
    ],
    "the paper on SD 3.5": [
        ("README.md", rf"from {NUMBER} to {NUMBER} on SD3.5"),
        ("docs/WHY.md", rf"\| SD 3.5 medium \| .* \| {NUMBER} \| {NUMBER} \|$"),
    ],
    "how much of a picture's step is measured": [
        ("README.md", rf"A step takes at most {NUMBER} % longer on a CPU"),
        ("README.md", rf"a step takes at most {NUMBER} % longer on a CPU"),
    ],
    "the largest mask": [
        ("README.md", rf"any size up to {NUMBER} x {NUMBER}"),
        ("docs/CONTROLS.md", rf"at most {NUMBER} x {NUMBER} pixels"),
    ],
    "the memory of the last job": [
        ("docs/API.md", rf"masks of a job take at most {NUMBER} MB"),
        ("docs/CONTROLS.md", rf"last-run` answers; at most {NUMBER} MB"),
        ("asyndm_ext/hosts/webui/options.py", rf"at most {NUMBER} MB"),
    ],
    "how long a request may wait": [
        ("docs/API.md", rf"no turn within {NUMBER} seconds"),
        ("docs/API.md", rf"did not arrive within {NUMBER} seconds"),
    ],
}


def found(file: str, pattern: str) -> tuple[str, ...]:
    matches = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(matches) == 1, f"{file} has {pattern!r} {len(matches)} times; was the sentence written anew?"
    (match,) = matches
    return (match,) if isinstance(match, str) else match


@pytest.mark.parametrize("what", TWICE)
def test_the_same_everywhere(what: str) -> None:
    said = {f"{file}: {pattern}": tuple(map(float, found(file, pattern))) for file, pattern in TWICE[what]}
    assert len(set(said.values())) == 1, said


def speeds(columns: int) -> list[list[str]]:
    """Rows of a table of docs/SPEED.md, those of the large networks."""
    text = (ROOT / "docs" / "SPEED.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [row for row in rows if row[0] in ("sd21", "sdxl", "sd3", "flux") and len(row) == columns]


def test_the_readme_has_the_speed_that_was_measured() -> None:
    ratios = [float(row[4].split()[0]) for row in speeds(8)]
    memory = [float(row[6]) for row in speeds(8)]
    assert len(ratios) == 8
    longer, more = found("README.md", rf"a step takes at most {NUMBER} % longer on a CPU in [^%]* and {NUMBER} % more")
    assert int(longer) == round(100 * (max(ratios) - 1)) and int(more) == round(100 * (max(memory) - 1))


def test_the_readme_has_the_kernels_that_a_card_counted() -> None:
    sd, sdxl = found("README.md", rf"starts {NUMBER} % more kernels [^%]* SD 2.1 and {NUMBER} % more on SDXL")
    counted = {row[0]: float(row[4]) for row in speeds(5) if row[1] == "1" and "(" not in row[4]}
    assert set(counted) == {"sd21", "sdxl", "flux"}
    assert [int(sd), int(sdxl)] == [round(100 * (counted[name] - 1)) for name in ("sd21", "sdxl")]


def test_the_pages_say_what_the_code_does() -> None:
    defaults = {name: value.default for name, value in inspect.signature(Gate).parameters.items()}
    assert found("docs/API.md", rf"hold {NUMBER} MB of waiting ones") == (str(defaults["together"]),)
    assert found("docs/API.md", rf"no turn within {NUMBER} seconds") == (f"{defaults['patience']:g}",)
    assert found("docs/API.md", rf"the body has more than {NUMBER} MB") == (str(defaults["body"]),)
    assert found("docs/API.md", rf"masks of a job take at most {NUMBER} MB") == (str(last_run.MASK_BYTES // 2**20),)
    assert found("docs/CONTROLS.md", rf"at most {NUMBER} x {NUMBER} pixels") == (str(mask_image.SIDE),) * 2
    assert found("docs/API.md", rf"AsynDM version: {NUMBER}") == (__version__,)


def test_the_readme_has_the_limits_and_defaults_of_every_number() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for spec in (spec for spec in FIELDS if spec.limits is not None):
        (row,) = [line for line in text.splitlines() if line.startswith("|") and f"`{spec.name}`" in line]
        names, values = row.split("|")[2:4]
        low, high, defaults = re.findall(rf"{NUMBER} to {NUMBER} \(([^)]*)\)", values)[0]
        place = re.findall(r"`(\w+)`", names).index(spec.name)
        said = [float(low), float(high), float(defaults.split(", ")[place])]
        assert said == [*spec.limits, spec.default], spec.name
