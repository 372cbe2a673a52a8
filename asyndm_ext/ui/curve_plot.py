"""The plot of the concave curve beside its sliders: the page draws it, from the curves that are written here.

Every curve is a mixture of the straight line and its full self, ``(1 - w) * (1 - u) + w * f(u)``, so the page needs no
formula of its own: a table of each full curve is enough.
"""

from __future__ import annotations

import json
from html import escape

import torch

from asyndm_ext.clock.curves import CURVES, curve_height

POINTS = 61


def tables() -> dict[str, list[float]]:
    """Heights of every curve at strength 1 over evenly spaced progress, 1 at the start to 0 at the end."""
    progress = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    return {curve: [round(float(v), 5) for v in curve_height(curve, progress, 1.0)] for curve in CURVES}


def html(element: str) -> str:
    """An empty figure with its data; ``element`` is its id."""
    data = escape(json.dumps(tables(), separators=(",", ":")))
    return (
        f'<figure id="{element}" class="asyndm-plot" data-curves="{data}">'
        '<svg viewBox="0 0 200 132" role="img" aria-label="noise left over the steps">'
        '<path class="asyndm-axes" d="M8 8V112H192"/>'
        '<path class="asyndm-gap"/><path class="asyndm-rest"/><path class="asyndm-slow"/>'
        '<text x="12" y="106">noise left</text><text x="192" y="126" text-anchor="end">steps</text>'
        "</svg>"
        '<figcaption><span class="asyndm-key asyndm-key-slow">objects</span> '
        '<span class="asyndm-key asyndm-key-rest">the rest</span> '
        '<span title="part of the steps"><span>largest lag</span> <output class="asyndm-lag"></output></span>'
        "</figcaption></figure>"
    )
