"""The axes in the WebUI's X/Y/Z plot.

A cell of the plot is a copy of the job that shares its script arguments. An axis gives the copy arguments of its own,
with our values changed: nothing outlives the cell, and whoever forwards or copies a job's arguments (worker nodes,
ADetailer's own passes) gets the changed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modules import scripts, shared

from asyndm_ext.ui.xyz import Axis, axes, read_mask

PLOT_MODULES = ("xyz_grid.py", "scripts.xyz_grid")
"""What the hosts call the plot's module."""


def register(title: str) -> None:
    """Add our axes to the plot's list, once. Has to run before the plot draws its menus.

    Args:
        title: of our script.
    """
    for plot in _plots():
        known = {option.label for option in plot.axis_options}
        plot.axis_options.extend(_option(plot, axis, title) for axis in axes(_read_mask) if axis.label not in known)


def is_plot(script: Any) -> bool:
    """Whether a script of the Script menu is the plot."""
    return type(script).__module__ in PLOT_MODULES


def _plots() -> Iterator[Any]:
    for data in scripts.scripts_data:
        if data.script_class.__module__ in PLOT_MODULES and hasattr(data.module, "axis_options"):
            yield data.module


def _option(plot: Any, axis: Axis, title: str) -> Any:
    keywords: dict[str, Any] = {"confirm": _confirm(axis)}
    if axis.choices:
        keywords["choices"] = lambda: list(axis.choices)
    if axis.show is not None:
        show = axis.show
        keywords["format_value"] = lambda p, option, value: show(value)
    return plot.AxisOption(axis.label, axis.kind, _apply(axis, title), **keywords)


def _confirm(axis: Axis) -> Callable[[Any, list[Any]], None]:
    """Before the first cell: refuses what the axis cannot take."""

    def confirm(p: Any, values: list[Any]) -> None:
        for value in values:
            axis.settings(value)

    return confirm


def _apply(axis: Axis, title: str) -> Callable[[Any, Any, list[Any]], None]:
    def apply(p: Any, value: Any, values: list[Any]) -> None:
        script = next(script for script in p.scripts.alwayson_scripts if script.title() == title)
        own = slice(script.args_from, script.args_to)
        args = list(p.script_args)
        chosen: frozenset[str] = getattr(p, "asyndm_chosen", frozenset())
        args[own] = axis.changed(args[own], value, getattr(p, "asyndm_switched", False), chosen)
        p.script_args = args
        if not axis.yields:
            p.asyndm_chosen = chosen | axis.settings(value).keys()
        if axis.switches:
            p.asyndm_switched = True

    return apply


def _read_mask(text: str) -> str:
    return read_mask(text, files=not getattr(shared.cmd_opts, "hide_ui_dir_config", False))
