"""Writes ``wide-sd1``: the SD1 checkpoint of ``checkpoints.py`` with a UNet wide enough that a step is mostly network.

Runs with the WebUI's own Python, as ``checkpoints.py`` does::

    path/to/webui/venv/bin/python tests/e2e/wide.py --webui path/to/webui --output folder --channels 96
"""

from __future__ import annotations

import argparse
from pathlib import Path

import checkpoints

NAME = "wide-sd1"


def config(channels: int) -> dict:
    """SD1's, with so many channels at the full resolution (the real one has 320) in 8 heads."""
    made = checkpoints.sd1_config()
    made["model"]["params"]["unet_config"]["params"].update(model_channels=channels, num_heads=8)
    return made


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--webui", type=Path, required=True, help="an installed AUTOMATIC1111, started once")
    parser.add_argument("--output", type=Path, required=True, help="where to write")
    parser.add_argument("--channels", type=int, required=True, help="a multiple of 32")
    arguments = parser.parse_args()
    checkpoints.CONFIGS[NAME] = lambda: config(arguments.channels)
    checkpoints.write_all(arguments.webui.resolve(), arguments.output.resolve(), [NAME])


if __name__ == "__main__":
    main()
