"""The slow pixels in the live preview: where the tint is, and that nothing of it outlives the pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asyndm_ext.picture.drawing import SLOW
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.ui.preview import TINT, over_preview

COLOUR = (40, 90, 200)


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), COLOUR)


def maps(images: int, height: int, width: int) -> torch.Tensor:
    """In image i only the pixel (i, i + 1) is slow."""
    strength = torch.zeros(images, 1, height, width, dtype=torch.float64)
    for image in range(images):
        strength[image, 0, image, image + 1] = 0.6
    return strength


def tinted(share: float) -> tuple[int, ...]:
    """A pixel that is so slow, of the deepest tint's."""
    opacity = round(255 * TINT * share) / 255
    return tuple(round(c + (s - c) * opacity) for c, s in zip(COLOUR, SLOW, strict=True))


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_a_slow_pixel_is_tinted_and_no_other(factor: int) -> None:
    shown = np.array(over_preview(picture(9 * factor, 6 * factor), maps(1, 6, 9), 0.6)).astype(int)
    expected = np.full((6 * factor, 9 * factor, 3), COLOUR)
    expected[:factor, factor : 2 * factor] = tinted(1.0)
    assert np.abs(shown - expected).max() <= 1


def test_the_tint_is_as_deep_as_the_pixel_is_slow() -> None:
    strength = torch.tensor([[[[0.0, 0.2, 0.4, 0.8]]]], dtype=torch.float64)
    shown = np.array(over_preview(picture(4, 1), strength, 0.8))[0].astype(int)
    for pixel, share in zip(shown, (0.0, 0.25, 0.5, 1.0), strict=True):
        assert np.abs(pixel - tinted(share)).max() <= 1


@given(
    images=st.integers(1, 7),
    columns=st.integers(1, 4),
    size=st.tuples(st.integers(7, 12), st.integers(8, 12)),
    factor=st.sampled_from([1, 2, 8]),
)
def test_in_a_grid_each_image_has_its_own(images: int, columns: int, size: tuple[int, int], factor: int) -> None:
    height, width = size
    rows = -(-images // columns)
    preview = picture(columns * width * factor, rows * height * factor)
    shown = np.array(over_preview(preview, maps(images, height, width), 0.6, (columns, rows)))
    changed = np.any(shown != np.array(COLOUR), axis=-1)[::factor, ::factor]
    places = [(i // columns * height + i, i % columns * width + i + 1) for i in range(images)]
    assert sorted(map(tuple, np.argwhere(changed))) == sorted(places)


def test_a_grid_may_be_too_small_for_all() -> None:
    shown = np.array(over_preview(picture(16, 6), maps(3, 6, 8), 0.6, (2, 1)))
    assert np.any(shown != np.array(COLOUR), axis=-1).sum() == 2


def test_a_picture_of_other_proportions_is_left_alone() -> None:
    other = picture(64, 64)
    assert over_preview(other, maps(1, 6, 9), 0.6) is other


def test_sides_that_were_rounded_are_no_other_proportions() -> None:
    shown = over_preview(picture(99, 131), maps(1, 100, 75), 0.6)
    assert shown.size == (99, 131) and np.any(np.array(shown) != np.array(COLOUR))


# -- in the host


class State:
    """As much of the host's state as the previews need."""

    def __init__(self) -> None:
        self.current_image: Any = None
        self.assigned = 0

    def assign_current_image(self, image: Any) -> None:
        self.current_image = image
        self.assigned += 1


def image_grid(pictures: list[Image.Image]) -> Image.Image:
    """The host's, for two columns."""
    columns = min(2, len(pictures))
    return Image.new("RGB", (columns * pictures[0].width, -(-len(pictures) // columns) * pictures[0].height))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host whose previews are on, in one picture each, and the module that draws over them."""
    shared, images, modules = ModuleType("modules.shared"), ModuleType("modules.images"), ModuleType("modules")
    shared.opts = SimpleNamespace(  # type: ignore[attr-defined]
        asyndm_live_preview=True, live_previews_enable=True, show_progress_grid=True
    )
    shared.state, shared.parallel_processing_allowed = State(), True  # type: ignore[attr-defined]
    images.image_grid = image_grid  # type: ignore[attr-defined]
    modules.shared, modules.images = shared, images  # type: ignore[attr-defined]
    for module in (modules, shared, images):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    names = [f"asyndm_ext.hosts.webui.{name}" for name in ("options", "preview")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    from asyndm_ext.hosts.webui import preview

    yield SimpleNamespace(shared=shared, opts=shared.opts, state=shared.state, overlay=preview.overlay)
    package = sys.modules["asyndm_ext.hosts.webui"]
    for name in names:
        sys.modules.pop(name, None)
        vars(package).pop(name.rpartition(".")[2], None)


def record(strength: torch.Tensor) -> StepRecord:
    return StepRecord(0, 1.0, torch.ones_like(strength), strength)


def is_tinted(image: Image.Image) -> bool:
    return bool(np.any(np.array(image) != np.array(COLOUR)))


SLOWEST = Settings(enabled=True, strength=0.6)


def test_the_preview_is_tinted_from_the_first_step_on_and_plain_afterwards(host: Any) -> None:
    plain, state = picture(9, 6), host.state
    with host.overlay(SLOWEST) as watching:
        state.assign_current_image(plain)
        assert state.current_image is plain, "nobody knows yet where the slow pixels are"
        for watch in watching:
            watch(record(maps(1, 6, 9)))
        state.assign_current_image(plain)
        assert is_tinted(state.current_image) and not is_tinted(plain)
    assert vars(state) == {"current_image": plain, "assigned": 2}
    assert type(state) is State


def test_every_image_of_a_batch_in_the_host_s_grid(host: Any) -> None:
    with host.overlay(SLOWEST) as (watch,):
        watch(record(maps(3, 6, 9)))
        host.state.assign_current_image(picture(18, 12))
        assert np.any(np.array(host.state.current_image) != np.array(COLOUR), axis=-1).sum() == 3


@pytest.mark.parametrize("why", ["show_progress_grid", "parallel_processing_allowed"])
def test_the_first_image_alone_where_the_host_shows_no_other(host: Any, why: str) -> None:
    setattr(host.opts if why == "show_progress_grid" else host.shared, why, False)
    with host.overlay(SLOWEST) as (watch,):
        watch(record(maps(4, 6, 9)))
        host.state.assign_current_image(picture(18, 12))
        changed = np.any(np.array(host.state.current_image) != np.array(COLOUR), axis=-1)
    assert sorted(map(tuple, np.argwhere(changed))) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def fails() -> None:
    raise RuntimeError("in the middle")


@pytest.mark.parametrize("ends", [lambda: None, fails])
def test_nothing_is_left(host: Any, ends: Callable[[], None]) -> None:
    before = dict(vars(host.state))
    try:
        with host.overlay(SLOWEST) as (watch,):
            watch(record(maps(1, 6, 9)))
            ends()
    except RuntimeError as error:
        assert str(error) == "in the middle"
    assert vars(host.state) == before


def test_another_extension_s_function_is_called_and_put_back(host: Any) -> None:
    seen: list[Any] = []
    host.state.assign_current_image = seen.append
    with host.overlay(SLOWEST) as (watch,):
        watch(record(maps(1, 6, 9)))
        host.state.assign_current_image(picture(9, 6))
    assert is_tinted(seen[0])
    assert vars(host.state)["assign_current_image"] == seen.append


def test_a_thread_that_comes_too_late_gets_the_host_s_preview(host: Any) -> None:
    """The host looks the function up, decodes, and calls it when the pass may be over."""
    late = picture(9, 6)
    with host.overlay(SLOWEST) as (watch,):
        watch(record(maps(1, 6, 9)))
        assign = host.state.assign_current_image
    assign(late)
    assert host.state.current_image is late


def test_a_preview_that_somebody_else_has_set_stays(host: Any) -> None:
    other = picture(3, 3)
    with host.overlay(SLOWEST) as (watch,):
        watch(record(maps(1, 6, 9)))
        host.state.assign_current_image(picture(9, 6))
        host.state.current_image = other
    assert host.state.current_image is other


@pytest.mark.parametrize(
    ("option", "strength"), [("asyndm_live_preview", 0.6), ("live_previews_enable", 0.6), (None, 0.0)]
)
def test_off_is_absent(host: Any, option: str | None, strength: float) -> None:
    if option is not None:
        setattr(host.opts, option, False)
    with host.overlay(Settings(enabled=True, strength=strength)) as watching:
        assert watching == [] and "assign_current_image" not in vars(host.state)


def test_without_the_settings_page_it_is_off(host: Any) -> None:
    del host.opts.asyndm_live_preview
    with host.overlay(SLOWEST) as watching:
        assert watching == []
