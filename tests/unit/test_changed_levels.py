"""Another extension changes the noise level: every pixel gets what the host, with that extension alone, gives at that
pixel's own level."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import a1111
from support.kdiffusion import k_diffusion
from torch import Tensor

IMAGES, SIDE = 2, 4
TEXT = torch.randn(2 * IMAGES, 3, 5, generator=torch.Generator().manual_seed(5))
KINDS = ("eps", "v", "eps quantized", "v quantized", "timesteps", "timesteps v")
# Timesteps in the network are rounded to quarters, unless the host rounds them to whole ones.
TOLERANCE = {"eps quantized": 2e-5, "v quantized": 2e-5}


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    with a1111.host() as found:
        yield found


def wrap(kind: str) -> Any:
    external, quantize = k_diffusion()[1], "quantized" in kind
    if kind.startswith("timesteps"):
        return (a1111.TimestepsVDenoiser if "v" in kind else a1111.TimestepsDenoiser)(a1111.Checkpoint())
    denoiser = external.CompVisVDenoiser if kind.startswith("v") else external.CompVisDenoiser
    return denoiser(a1111.Checkpoint(), quantize=quantize)


def in_place(params: Any) -> None:
    params.sigma *= 0.93


def assigned(params: Any) -> None:
    params.sigma = params.sigma * 1.06


def of_the_prompt(params: Any) -> None:
    for row in range(IMAGES):
        params.sigma[row] *= 0.9


def of_every_row(params: Any) -> None:
    params.sigma = params.sigma * torch.linspace(0.9, 1.1, len(params.sigma))


EDITS: dict[str, Callable[[Any], None]] = {
    "nothing": lambda params: None,
    "in place": in_place,
    "assigned": assigned,
    "of the prompt's rows": of_the_prompt,
    "of every row another": of_every_row,
}


def latent(kind: str) -> Tensor:
    x = torch.randn(IMAGES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return x if kind.startswith("timesteps") else 3 * x


def level_map(kind: str) -> tuple[float, Tensor]:
    """The nominal level, and a map from there on upwards; whole timesteps, as such samplers take."""
    steps = torch.arange(IMAGES * SIDE * SIDE, dtype=torch.float64).view(IMAGES, 1, SIDE, SIDE)
    if kind.startswith("timesteps"):
        return 401.0, 401 + 10 * steps.remainder(7)
    return 1.5, 1.5 * 1.02 ** steps.remainder(7)


def extra(module: Any = None) -> dict[str, Any]:
    return {"cond": SimpleNamespace(batch=[[0]] * IMAGES), "text": TEXT}


def ours(module: Any, kind: str, edit: Callable, nominal: float, level: Tensor, **how: Any) -> tuple[Tensor, Any]:
    space = "timestep" if kind.startswith("timesteps") else "sigma"
    denoiser = a1111.Denoiser(wrap(kind), [edit], **how)
    model = module.PixelDenoiser(denoiser, extra(), space, IMAGES, None)
    with model.attached():
        return model(latent(kind), nominal, level), model


def hosts(kind: str, edit: Callable, level: float, **how: Any) -> Tensor:
    """The host's own answer with one level for all."""
    scalar = torch.full((IMAGES,), level, dtype=torch.float32)
    return a1111.Denoiser(wrap(kind), [edit], **how)(latent(kind), scalar, **extra())


def hosts_at(kind: str, edit: Callable, levels: Tensor, **how: Any) -> Tensor:
    """Pixel by pixel the host's own answer at its level."""
    found = torch.zeros(latent(kind).shape)
    for level in levels.unique().tolist():
        found = torch.where(levels == level, hosts(kind, edit, level, **how), found)
    return found


@pytest.mark.parametrize("how", [{}, {"rows_at_once": False}, {"uncond": False}], ids=["batch", "halves", "no uncond"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_map(module: Any, kind: str, edit: Callable, how: dict[str, bool]) -> None:
    nominal, level = level_map(kind)
    found, model = ours(module, kind, edit, nominal, level, **how)
    expected = hosts_at(kind, edit, level, **how)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE.get(kind, 4e-3))
    assert model.neighbours.said() is None
    changes = (expected - hosts_at(kind, EDITS["nothing"], level, **how)).abs().max() > 0.008
    assert changes == (edit is not EDITS["nothing"]), "the change can be seen"


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_level_for_all(module: Any, kind: str, edit: Callable) -> None:
    """Strength 0, or everything equally slow: the host's own computation."""
    nominal, level = level_map(kind)
    for wanted in (nominal, float(level.max())):
        found, _ = ours(module, kind, edit, nominal, torch.full_like(level, wanted))
        torch.testing.assert_close(found, hosts(kind, edit, wanted), rtol=0, atol=0 if wanted == nominal else 1e-5)


def test_quantized_is_not_unquantized(module: Any) -> None:
    nominal, level = level_map("eps")
    with_, _ = ours(module, "eps quantized", EDITS["nothing"], nominal, level)
    without, _ = ours(module, "eps", EDITS["nothing"], nominal, level)
    assert (with_ - without).abs().max() > 1e-3


def not_finite(params: Any) -> None:
    params.sigma = params.sigma * math.nan


def below_zero(params: Any) -> None:
    params.sigma *= -1


def of_another_shape(params: Any) -> None:
    params.sigma = torch.cat([params.sigma, params.sigma, params.sigma])


def one_for_all_rows(params: Any) -> None:
    params.sigma = 0.93 * params.sigma[:1]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (not_finite, "it is not finite"),
        (below_zero, "it is not above 0"),
        (of_another_shape, "it is not one level per picture"),
    ],
)
@pytest.mark.parametrize("kind", ["eps", "timesteps v"])
def test_what_cannot_be_carried_over_is_left_out_and_said(module: Any, kind: str, edit: Callable, reason: str) -> None:
    nominal, level = level_map(kind)
    found, model = ours(module, kind, edit, nominal, level)
    assert model.neighbours.said() == f"another extension's change of the noise level was left out: {reason}"
    torch.testing.assert_close(found, hosts_at(kind, EDITS["nothing"], level), rtol=0, atol=4e-3)


def test_one_level_for_all_rows_is_one_for_each(module: Any) -> None:
    nominal, level = level_map("eps")
    found, model = ours(module, "eps", one_for_all_rows, nominal, level)
    torch.testing.assert_close(found, hosts_at("eps", in_place, level), rtol=0, atol=4e-3)
    assert model.neighbours.said() is None


def test_an_extension_that_goes_back_to_the_first_latent(module: Any) -> None:
    """It puts back the noise level that belongs to it, so the map of that call holds and not this one's."""
    first: dict[str, Tensor] = {}

    def back(params: Any) -> None:
        if not first:
            first.update(x=params.x.clone(), sigma=params.sigma.clone())
        else:
            params.x, params.sigma = first["x"], first["sigma"]

    nominal, level = level_map("eps")
    high = torch.full_like(level, 9.0)
    model = module.PixelDenoiser(a1111.Denoiser(wrap("eps"), [back]), extra(), "sigma", IMAGES, None)
    with model.attached():
        once = model(latent("eps"), 9.0, high)
        again = model(0.5 * latent("eps"), nominal, level)
    assert torch.equal(again, once)


@pytest.mark.parametrize("how", [{}, {"rows_at_once": False}], ids=["batch", "halves"])
def test_rows_in_another_order(module: Any, how: dict[str, bool]) -> None:
    """Regional Prompter's Latent mode brings the rows of a batch into another order, and back afterwards."""
    nominal, level = level_map("eps")
    level[1] = level[1].flip(-1) * 1.1
    found, _ = ours(module, "eps", in_place, nominal, level, exchanged=True, **how)
    torch.testing.assert_close(found, hosts_at("eps", in_place, level), rtol=0, atol=4e-3)


def test_the_rows_texts_follow_their_images(module: Any) -> None:
    """Two conditions for each image, in another order; and where two images are alike, the planned one."""
    objects = SimpleNamespace(
        count=1, at=lambda step: [(image, ((10 * image + number,),)) for image in (0, 1) for number in (0, 1)]
    )
    model = module.PixelDenoiser(
        a1111.Denoiser(wrap("eps"), []), {"cond": SimpleNamespace(batch=[[0, 0], [0, 0]])}, "sigma", 2, objects
    )
    x = latent("eps")
    model._read_texts()
    model._begins(x)
    images = model.neighbours.images_of(x[[0, 1, 0, 1, 0, 1]], model._rows[:6])
    assert images == [0, 1, 0, 1, 0, 1] != model._rows[:6]
    texts = [model._token_row(number, image) for number, image in enumerate(images)]
    assert [(row.image, row.columns[0][0]) for row in texts[:4]] == [(0, 0), (1, 10), (0, 1), (1, 11)]
    assert texts[4:] == [None, None]
    alike = torch.stack([x[0], x[0]])
    model._begins(alike)
    assert model.neighbours.images_of(alike[[0, 0, 1, 1]], [0, 0, 1, 1]) == [0, 0, 1, 1]


def test_attention_that_is_missing_in_a_step_is_that_of_the_step_before(module: Any) -> None:
    neighbours, maps = (
        import_module("asyndm_ext.hosts.webui.neighbours").Neighbours(),
        [torch.rand(1, 1, 4, 4) for _ in range(2)],
    )
    assert neighbours.maps(None, "attention") is None, "the first time the region says so"
    assert neighbours.said() is None
    found = [neighbours.maps(one, "attention") for one in (maps[0], None, maps[1], None)]
    assert [id(one) for one in found] == [id(maps[0]), id(maps[0]), id(maps[1]), id(maps[1])]
    assert neighbours.said() == "the attention could not be read in every step, so masks of the step before were kept"


def test_nobody_is_asked_where_nobody_listens(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a level back waits for the device: a change that nobody announced is found at the end."""
    neighbours = import_module("asyndm_ext.hosts.webui.neighbours").Neighbours()
    given = torch.full((2,), 1.4, device="meta")
    assert neighbours.change(given, 1.5, 2, look=False) == (given, [1.0, 1.0])  # a read would raise
    neighbours._unnoticed = torch.tensor(True)
    expected = "another extension's change of the noise level was left out: it was made where it cannot be seen"
    assert neighbours.said() == expected
    neighbours = import_module("asyndm_ext.hosts.webui.neighbours").Neighbours()
    neighbours._unnoticed = torch.tensor(False)
    assert neighbours.said() is None


def test_nothing_is_kept_alive(module: Any) -> None:
    gc.collect()
    gc.disable()
    try:
        nominal, level = level_map("eps")
        _, model = ours(module, "eps", in_place, nominal, level)
        gone = weakref.ref(model)
        del model
        assert gone() is None, "a circle of references"
    finally:
        gc.enable()
