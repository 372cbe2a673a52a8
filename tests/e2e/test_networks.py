"""AsynDM's hooks on the WebUI's own classes of networks, small and with random weights, without a server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .server import Install

SCRIPT = Path(__file__).resolve().parent / "host_networks.py"
NETWORKS = ["Z-Image", "Lumina 2", "FLUX.2 Klein", "Qwen-Image", "Anima"]


@pytest.fixture(scope="module")
def report(install: Install) -> dict[str, dict[str, Any]]:
    """What ``host_networks.py`` has to say."""
    if not (install.folder / "backend" / "nn" / "lumina.py").is_file():
        pytest.skip("this WebUI does not have the networks of Forge Neo")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [str(install.python), str(SCRIPT)]
    ran = subprocess.run(
        command, cwd=install.folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"')]
    return {name: found for line in lines for name, found in line.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_token_has_its_own_timestep(report: dict[str, dict[str, float]], name: str) -> None:
    found = report[name]
    assert found["a map does"] > 0.1
    assert found["conditioning"] < 2e-5
    assert found["conditioning, with a reference"] < 2e-5
    assert found["afterwards"] == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_attention_to_the_objects_is_the_softmax_s(report: dict[str, dict[str, float]], name: str) -> None:
    found = report[name]
    assert found["attention varies"] > 2
    assert found["attention"] < 1e-5
    assert found["attention, not torch's"] < 1e-5


def test_what_is_not_supported_is_taken_for_nothing_else(report: dict[str, dict[str, Any]]) -> None:
    """Their blocks look like those of others: a wrong guess would be a wrong picture."""
    found = report["not supported"]
    assert set(found) == {"Wan", "Krea 2", "Ernie"}
    for name, kind in (("Wan", "WanModel"), ("Krea 2", "SingleStreamDiT"), ("Ernie", "ErnieImageModel")):
        assert found[name] == f"{kind} is a network that AsynDM does not know"
