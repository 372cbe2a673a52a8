"""Pictures of the little world to look at: python -m tests.world_sheet --seed 1 --out scenes.png"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from asyndm_ext.world.scenes import scene, scene_from_seed
from asyndm_ext.world.words import read


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", help="one prompt for all of them; otherwise scenes as they come")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("scenes.png"))
    options = parser.parse_args()
    numbers = range(options.rows * options.columns)
    if options.prompt:
        text = read(options.prompt).text
        images = [scene(text, options.seed, i).image for i in numbers]
    else:
        images = [scene_from_seed(options.seed, i).image for i in numbers]
    rows = [np.concatenate(images[i * options.columns : (i + 1) * options.columns], 1) for i in range(options.rows)]
    Image.fromarray(np.concatenate(rows)).save(options.out)


if __name__ == "__main__":
    main()
