"""The presets at the top of the panel: a line of buttons, and what the one that the settings equal has earned.

Everything is written here once; the page (javascript/asyndm.js) lights the button whose settings the controls have.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from html import escape

from asyndm_ext.presets import PRESETS, Preset
from asyndm_ext.settings import Settings

GOVERNED = tuple(PRESETS[0].settings)
"""The settings that presets set, all of them the same."""


def button(preset: Preset) -> str:
    """The name of the hidden button that the preset's button presses."""
    return f"preset_{preset.name.lower().replace(' ', '_')}"


def offered(without: Collection[str] = ()) -> list[Preset]:
    """Those whose settings all have a control."""
    return [preset for preset in PRESETS if not set(preset.settings) & set(without)]


def html(presets: Collection[Preset]) -> str:
    """The line, no button lit."""
    buttons = "".join(
        f'<button type="button" class="asyndm-chip" aria-pressed="false" data-press="{button(preset)}" '
        f'data-preset="{escape(json.dumps(preset.settings))}">{preset.name}</button>'
        for preset in presets
    )
    said = "".join(
        f'<p class="asyndm-note" data-says="{button(preset)}" hidden>'
        f"<span>{escape(preset.help, quote=False)}</span> <span>{escape(preset.earned, quote=False)}</span></p>"
        for preset in presets
    )
    # Some versions of gradio draw the controls of a closed accordion once it is opened.
    defaults = escape(json.dumps({name: getattr(Settings, name) for name in GOVERNED}))
    return (
        f'<div class="asyndm-chips asyndm-presets" role="group" aria-label="Presets" data-defaults="{defaults}">'
        f'<span class="asyndm-lead">Preset:</span>{buttons}</div>{said}'
    )
