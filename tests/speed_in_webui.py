"""What AsynDM costs inside a real AUTOMATIC1111: the same job off and on in turns, over the API.

    ASYNDM_WEBUI=path/to/webui python -m tests.speed_in_webui
    ASYNDM_WEBUI=path/to/webui python -m tests.speed_in_webui --channels 128 --steps 10 --pairs 8 --batch 4 --json

The checkpoint has random weights and SD1's layout, wide enough that the network takes most of a step. Each job with
AsynDM is compared with the mean of the jobs without before and behind it, on the clock and in the processor time of the
WebUI's process, which depends less on what else the machine does (Linux only). What is timed is the whole job: text,
sampling and decoding are in it on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tests.conftest  # noqa: F401  (repairs torchvision beside a CPU build of torch)
from tests.e2e import server
from tests.e2e.server import HERE, REPOSITORY, Install, WebUI
from tests.e2e.test_asyndm import SETTINGS, difference, off, on

NAME = "wide-sd1"
SECONDS_TO_START = 1200
SECONDS_OF_A_JOB = 3600


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=96, help="of the UNet's first level (%(default)s; SD1 has 320)")
    parser.add_argument("--size", type=int, default=512, help="side of the picture (%(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="of a job (%(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="pictures of a job (%(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="jobs with AsynDM (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print it for programs")
    arguments = parser.parse_args(argv)
    install = Install.from_environment()
    problem = "set ASYNDM_WEBUI to the folder of an installed WebUI" if install is None else install.problem()
    if install is None or problem:
        parser.error(str(problem))
    if install.kind != "a1111":
        parser.error("the wide checkpoint can be made for AUTOMATIC1111 only")
    server.START_SECONDS = SECONDS_TO_START
    server.REQUEST_SECONDS = SECONDS_OF_A_JOB
    with tempfile.TemporaryDirectory() as folder:
        row = measure(install, Path(folder), arguments)
    if arguments.json:
        print(json.dumps(row, indent=2))
    else:
        print("\n".join(f"{key}: {value}" for key, value in row.items()))
    return 0


def measure(install: Install, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    models = folder / "models"
    writer = [str(install.python), str(HERE / "wide.py"), "--webui", str(install.folder), "--output", str(models)]
    subprocess.run([*writer, "--channels", str(arguments.channels)], check=True, env=server.environment())
    options = {"sd_model_checkpoint": f"{NAME}.safetensors"}
    data = folder / "data"
    data.mkdir()
    request: dict[str, Any] = {
        "width": arguments.size,
        "height": arguments.size,
        "steps": arguments.steps,
        "batch_size": arguments.batch,
        "prompt": "a cat and a sandwich",
    }
    with WebUI(install, models, data, extensions={"asyndm": REPOSITORY}, options=options, name="speed") as webui:
        warm = {**request, "steps": 3}  # with fewer no pixel lags
        moved = difference(on(webui, **warm).image, off(webui, **warm).image)
        without, with_ours = [job(webui, False, request)], []
        for _ in range(arguments.pairs):
            with_ours.append(job(webui, True, request))
            without.append(job(webui, False, request))
        last = webui.get("/asyndm/v1/last-run")
    if not last or not moved:
        raise RuntimeError("AsynDM has not run")
    row: dict[str, Any] = {"webui": install.kind, **vars(arguments), "seconds_off": round(median(without, 0), 2)}
    del row["json"]
    for number, name in enumerate(("ratio", "cpu_ratio")):
        found = [2 * ours[number] / (without[i][number] + without[i + 1][number]) for i, ours in enumerate(with_ours)]
        row |= {name: round(statistics.median(found), 4)}
        row |= {f"{name}_min": round(min(found), 4), f"{name}_max": round(max(found), 4)}
    return row


def median(jobs: list[tuple[float, float]], number: int) -> float:
    return statistics.median(one[number] for one in jobs)


def job(webui: WebUI, ours: bool, request: dict[str, Any]) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    assert webui.process is not None
    before, began = processor_seconds(webui.process.pid), time.monotonic()
    on(webui, settings=SETTINGS, **request) if ours else off(webui, **request)
    found = time.monotonic() - began, processor_seconds(webui.process.pid) - before
    print(f"{'on' if ours else 'off':>3}: {found[0]:.2f} s, processor {found[1]:.2f} s", file=sys.stderr, flush=True)
    return found


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
