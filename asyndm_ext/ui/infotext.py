"""What a job writes into the infotext, and how it is read back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from asyndm_ext import __version__
from asyndm_ext.messages import plain
from asyndm_ext.prompt.finder import automatic_objects
from asyndm_ext.settings import FIELDS, Field, Settings, SettingsError

FOUND_KEY = "AsynDM found"
NOTE_KEY = "AsynDM note"
VERSION_KEY = "AsynDM version"
EQUIVALENT_KEY = "AsynDM equivalent guidance"
PREFIX = "AsynDM"
PLAIN = "plain picture for comparison"
"""What stands at :data:`PREFIX` for the plain pictures of a job; the page finds them by it (javascript/asyndm.js)."""


class Found(list[str | None]):
    """The objects of each image of a job, found automatically: an entry that differs from image to image.

    The host looks an image's up by its number in its batch, and in the first batch, or for a grid, by its number in the
    job. Images that other machines add have numbers beyond its end, and no entry. (A function would do as well, but is
    no JSON: whole jobs are sent to those machines.)

    Args:
        first, hires: in the prompt of each image and in its hires prompt, names with commas; None: no such pass, or
            nothing found.
    """

    def __init__(self, first: Sequence[str | None], hires: Sequence[str | None]) -> None:
        super().__init__(map(_both, first, hires))
        self._first, self._hires = list(first), list(hires)
        self._batch = range(0)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return super().__getitem__(index)
        if index < len(self._batch):
            index += self._batch.start
        return super().__getitem__(index) if index < len(self) else None

    def begin_batch(self, first: int, size: int) -> None:
        """From now on the host asks for the images of this batch."""
        self._batch = range(first, first + size)

    def put(self, names: Sequence[Sequence[str]] | None, hires: bool) -> None:
        """What was really found in the batch, per image, or None where its pass went on without us."""
        part = self._hires if hires else self._first
        for each in (self, self._first, self._hires):  # another extension may have added images (Dynamic Prompts)
            each.extend([None] * (self._batch.stop - len(each)))
        for place, image in enumerate(self._batch):
            part[image] = ", ".join(names[place]) if names is not None else None
            self[image] = _both(self._first[image], self._hires[image])


def _both(first: str | None, hires: str | None) -> str | None:
    if hires is None or hires == first:
        return first
    return f"{first}; hires pass: {hires}" if first else f"hires pass: {hires}"


def entries_of(settings: Settings) -> dict[str, str]:
    """What a job with these settings writes, before it has seen its prompts. The version is for whoever reads it:
    pasting passes over it."""
    return {**settings.infotext(), VERSION_KEY: __version__}


def record(p: Any, args: Sequence[Any]) -> None:
    """Write the settings of an enabled job into its infotext; remove ours from a disabled one.

    XYZ cells share one dictionary, so leftovers of another cell have to go. Settings that are wrong are not
    reported here: the host would swallow it. The sampling function reads them again and stops the job.
    """
    forget(p)
    try:
        settings = Settings.from_args(args)
    except SettingsError:
        return
    p.extra_generation_params.update(entries_of(settings))
    if settings.uses_words and not settings.objects:
        has_hires = bool(getattr(p, "enable_hr", False) and getattr(p, "all_hr_prompts", None))
        none = [None] * len(p.all_prompts)
        first = none if has_hires and settings.hires == "hires" else map(_expected, p.all_prompts)
        hires = map(_expected, p.all_hr_prompts) if has_hires and settings.hires != "first" else none
        p.extra_generation_params[FOUND_KEY] = Found(list(first), list(hires))


def _expected(prompt: str) -> str | None:
    return ", ".join(automatic_objects(prompt)) or None


def begin_pass(p: Any, settings: Settings, names: Sequence[Sequence[str]] | None) -> None:
    """What is known when a pass begins: the settings are in use after all (a pass before it may have had to go
    without), and what was really found in this batch's images takes the place of what was expected.

    Args:
        names: of the objects, one list per image; None where the region has none.
    """
    entries, hires = p.extra_generation_params, getattr(p, "is_hr_pass", False)
    entries.update(entries_of(settings))
    if not hires:
        entries.pop(NOTE_KEY, None)
    if names is None or settings.objects:
        return
    if not isinstance(entries.get(FOUND_KEY), Found):  # the first pass had to go without
        none = [None] * len(p.all_prompts)
        entries[FOUND_KEY] = Found(none, none)
    entries[FOUND_KEY].begin_batch(p.iteration * p.batch_size, len(names))
    entries[FOUND_KEY].put(names, hires)


def note(p: Any, text: str) -> None:
    """Say something about the pictures, in the infotext, besides what was said about them already, and below them."""
    known = p.extra_generation_params.get(NOTE_KEY)
    if not known:
        p.extra_generation_params[NOTE_KEY] = text
    elif f"; {text}; " not in f"; {known}; ":  # several of ADetailer's passes say the same
        p.extra_generation_params[NOTE_KEY] = f"{known}; {text}"
    p.comment(f"AsynDM: {text}.")


def equivalent(p: Any, scales: Sequence[Tensor]) -> None:
    """Write down how strongly another method has guided in each step of a pass, ``(B,)`` each: the images' mean."""
    if scales:
        means = torch.stack([scale.double().nanmean() for scale in scales]).tolist()
        p.extra_generation_params[EQUIVALENT_KEY] = " ".join(f"{mean:.4g}" for mean in means)


def not_applied(p: Any, reason: str) -> None:
    """Say that a pass was sampled without AsynDM although it was enabled."""
    if getattr(p, "is_hr_pass", False):
        found = p.extra_generation_params.get(FOUND_KEY)
        if isinstance(found, Found):
            found.begin_batch(p.iteration * p.batch_size, len(p.prompts))
            found.put(None, hires=True)
        note(p, f"not applied in the hires pass: {reason}")
        return
    forget(p)
    p.extra_generation_params[PREFIX] = f"not applied: {reason}"
    p.comment(f"AsynDM was enabled but not applied: {reason}.")


def why_not_applied(p: Any) -> str | None:
    """What :func:`not_applied` has said of a job."""
    return p.extra_generation_params.get(PREFIX)


def refused(p: Any, message: str) -> None:
    """Say that nothing is drawn, and why."""
    forget(p)
    p.extra_generation_params[PREFIX] = f"not drawn: {message.removeprefix('AsynDM: ')}"
    p.comment(message)


def forget(p: Any) -> None:
    """Remove our entries."""
    for key in _own(p):
        del p.extra_generation_params[key]


def become_plain(p: Any) -> dict[str, Any]:
    """From now on the host asks for plain pictures, of which there is only that they are plain, and for the grid of all
    of them, whose settings are the job's. Returns the entries as they were."""
    before = {key: p.extra_generation_params[key] for key in _own(p)}
    grid = {key: next(iter(value), None) if isinstance(value, list) else value for key, value in before.items()}
    for key in {PREFIX: None, **before}:
        p.extra_generation_params[key] = _ByPicture(grid.get(key), PLAIN if key == PREFIX else None)
    return before


def _own(p: Any) -> list[str]:
    return [key for key in p.extra_generation_params if key.split(" ")[0] == PREFIX]


class _ByPicture(str):
    """An entry that the host calls with what it knows: of the grid this text, of a plain picture another or none. (A
    text, because whole jobs are sent to other machines in JSON.)"""

    _grid: str | None
    _plain: str | None

    def __new__(cls, grid: str | None, plain: str | None) -> _ByPicture:
        made = super().__new__(cls, grid or plain or "")
        made._grid, made._plain = grid, plain
        return made

    def __call__(self, *, use_main_prompt: bool = False, **_: Any) -> str | None:
        return self._grid if use_main_prompt else self._plain


@functools.cache
def pasted(name: str) -> Callable[[dict[str, Any]], Any]:
    """How a control reads its value from a parsed infotext; an infotext without AsynDM switches it off.

    A setting that the infotext does not name had its default. The mask itself is not in there: its control stays.
    Always the same function for a name: the host finds the controls of two tabs that belong together by it.
    """
    if name == "enabled":
        return lambda params: _strength_key() in params
    spec = next(field for field in FIELDS if field.name == name)

    def read(params: dict[str, Any]) -> Any:
        if _strength_key() not in params or name == "mask":
            return None  # leave the control as it is
        text = params.get(spec.infotext_key)
        if text is None:
            return ", ".join(map(str, spec.default)) if name == "objects" else spec.default
        return _value(spec, text)

    return read


def _value(spec: Field, text: str) -> Any:
    """The control's value, or None where the text is none."""
    if spec.is_switch:
        return {"true": True, "false": False}.get(text.lower())
    if spec.limits is not None:
        low, high = spec.limits
        try:
            number = float(text)
        except ValueError:
            return None
        return plain(number) if low <= number <= high else None
    return text if not spec.choices or text in spec.choices else None


def _strength_key() -> str:
    return next(field for field in FIELDS if field.name == "strength").infotext_key
