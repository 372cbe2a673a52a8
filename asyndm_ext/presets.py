"""Settings that go together, each with what it has earned and where that was measured (docs/EVALUATE.md, docs/WHY.md).

A preset is a beginning: what is set beside it wins. An infotext has the settings that a picture was made with, each by
itself, so it needs no preset to be made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyndm_ext.messages import shown


@dataclass(frozen=True)
class Preset:
    """A row of the table.

    Attributes:
        name: in the panel, the API and the plot's axis.
        settings: which of them it sets; all presets set the same ones.
        help: what it is for, one sentence.
        earned: what was measured, with 95 % intervals: how many more of a hundred pictures of unusual prompts are
            right, in the exact world ("an ideal model") and in the little world ("our small trained one").
    """

    name: str
    settings: Mapping[str, Any]
    help: str
    earned: str


def _settings(strength: float, curve: str, region: str = "objects", order: str = "together") -> dict[str, Any]:
    return {"strength": strength, "curve": curve, "region": region, "order": order}


PRESETS: tuple[Preset, ...] = (
    Preset(
        "Gentle",
        _settings(0.3, "quadratic"),
        "A small lag, which changes little.",
        "Measured: +1.2 points (+0.2 to +2.2) with an ideal model; with our small trained one no gain, -0.8 (-2.1 to "
        "+0.6).",
    ),
    Preset(
        "Paper",
        _settings(0.7, "quadratic"),
        "The paper's settings, and the ones to begin with.",
        "Measured: ImageReward from 0.754 to 0.922 on SD 2.1 (by the paper); +3.4 points (+2.0 to +4.8) with an ideal "
        "model; with our small trained one no gain, -0.5 (-5.5 to +4.0).",
    ),
    Preset(
        "Strong",
        _settings(1.0, "piecewise linear"),
        "The largest lag there is: look whether noise has stayed in the background.",
        "Measured: +8.9 points (+6.7 to +11.1) with an ideal model; with our small trained one no gain, -5.0 (-11.5 to "
        "+1.5).",
    ),
    Preset(
        "In turn",
        _settings(1.0, "piecewise linear", order="in turn"),
        "One object after the other, in the order of the prompt.",
        "Measured: +3.8 points (+2.6 to +5.0) with an ideal model, where all objects together gain more; with our "
        "small trained one no gain, -5.0 (-11.0 to +1.0).",
    ),
    Preset(
        "Repair",
        _settings(0.7, "quadratic", region="mask"),
        "For a part that went wrong: keep the seed, and paint over the part in Mask.",
        "Not measured: the paper shows pictures of it, and no numbers.",
    ),
)
NAMES = tuple(preset.name for preset in PRESETS)
OF_OBJECTS = tuple(preset.name for preset in PRESETS if preset.settings["region"] == "objects")
"""Those that need no mask."""


def preset(name: Any) -> Preset:
    """Letter case aside. Raises ValueError: there is none of that name."""
    for one in PRESETS:
        if isinstance(name, str) and one.name.casefold() == name.strip().casefold():
            return one
    raise ValueError(f"there is no preset {shown(name)}; the presets are {', '.join(NAMES)}")
