"""Another method inside the WebUIs' denoisers: every pixel gets what the method's formula says at its own level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import test_changed_levels as of_a1111
import test_changed_levels_forge as of_forge
import torch
from support import a1111, forge
from torch import Tensor, nn

from asyndm_ext.rivals.choice import Rival as Real
from asyndm_ext.rivals.guidance import Row, Unreadable

IMAGES, SCALE, WORSE = of_a1111.IMAGES, 3.0, 1.7
A1111_KINDS = ("eps", "v", "timesteps", "timesteps v")
FORGE_KINDS = [(kind, timesteps) for kind in of_forge.KINDS for timesteps in (False, True)]


@dataclass
class Bent:
    """A way to guide whose formula is no straight line, so that it tells the units of its answers; with a third row,
    whose features are larger."""

    network: nn.Module
    third: bool
    rows: Sequence[Row | None] = ()
    read_rows: list[Sequence[Row | None]] = field(default_factory=list)
    readable: bool = True

    @property
    def parts(self) -> tuple:
        return ("uncond", "cond", "perturbed") if self.third else ("uncond", "cond")

    @contextmanager
    def attached(self) -> Iterator[None]:
        handle = self.network.blocks[0].in_layers.register_forward_hook(self._enlarge)
        try:
            yield
        finally:
            handle.remove()

    def _enlarge(self, module: nn.Module, args: tuple, h: Tensor) -> Tensor | None:
        worse = [row is not None and row.part == "perturbed" for row in self.rows]
        return torch.where(torch.tensor(worse).view(-1, 1, 1, 1), WORSE * h, h) if any(worse) else None

    def begin(self, latent_size: tuple[int, int]) -> None: ...

    def read(self, rows: Sequence[Row | None]) -> None:
        self.rows = rows
        self.read_rows.append(rows)

    def combine(self, uncond: Tensor, cond: Tensor, perturbed: Tensor | None = None) -> Tensor:
        if not self.readable:
            raise Unreadable("nothing was seen")
        d = cond - uncond
        guided = uncond + SCALE * d * (1 + (40 * d).tanh())
        return guided if perturbed is None else guided + 2 * (cond - perturbed)


class Rival:
    """As :class:`asyndm_ext.rivals.choice.Rival`, with the method above."""

    name = "bent"

    def __init__(self, third: bool, readable: bool = True) -> None:
        self.third, self.readable, self.made = third, readable, list[Bent]()

    def guidance(self, network: nn.Module, scale: float, images: int) -> Bent:
        assert (scale, images) == (SCALE, IMAGES)
        self.made.append(Bent(network, self.third, readable=self.readable))
        return self.made[-1]


def expected_at(answers: Any, levels: Tensor, noise: bool, sigma_of: Any = None) -> Tensor:
    """The formula at each pixel's own level. ``answers(level, part)``: the host's, of one level and one kind of row.

    Args:
        noise: whether they are noise, and not denoised.
        sigma_of: of a level.
    """
    found = None
    for level in levels.unique().tolist():
        uncond, cond, worse = (answers(level, part) for part in ("uncond", "cond", "perturbed"))
        unit = 1.0 if noise else -(sigma_of(level) if sigma_of else level)
        rule = Bent(nn.Identity(), worse is not None)
        lift = None if worse is None else (worse - uncond) / unit
        prompt = (cond - uncond) / unit
        guided = uncond + rule.combine(torch.zeros_like(prompt), prompt, lift) * unit
        found = guided if found is None else torch.where(levels == level, guided, found)
    assert found is not None
    return found


def with_rows(text: Tensor, part: str) -> Tensor:
    """The same text for all rows, so that guidance gives that row's answer."""
    half = text[:IMAGES] if part != "uncond" else text[IMAGES:]
    return torch.cat([half, half])


def enlarged(network: nn.Module) -> Any:
    return network.blocks[0].in_layers.register_forward_hook(lambda module, args, h: WORSE * h)


@pytest.fixture(scope="module")
def a1111_module() -> Iterator[Any]:
    with a1111.host() as found:
        yield found


@pytest.fixture(scope="module")
def forge_module() -> Iterator[Any]:
    with forge.host() as found:
        yield found


def compared(module: Any, rival: Any) -> Any:
    return module.Compared(rival, SCALE, IMAGES)


@pytest.mark.parametrize("third", [False, True], ids=["two rows", "three rows"])
@pytest.mark.parametrize("at_once", [True, False], ids=["batch", "halves"])
@pytest.mark.parametrize("kind", A1111_KINDS)
def test_a1111(a1111_module: Any, kind: str, at_once: bool, third: bool) -> None:
    nominal, level = of_a1111.level_map(kind)
    denoiser = a1111.Denoiser(of_a1111.wrap(kind), [], rows_at_once=at_once)
    space = "timestep" if kind.startswith("timesteps") else "sigma"
    other = compared(a1111_module, Rival(third))
    model = a1111_module.PixelDenoiser(denoiser, of_a1111.extra(), space, IMAGES, None, compared=other)
    x = of_a1111.latent(kind)
    with model.attached():
        found = model(x, nominal, level)
        uniform = model(x, nominal, torch.full_like(level, nominal))

    def answers(level: float, part: str) -> Tensor | None:
        if part == "perturbed" and not third:
            return None
        wrap = of_a1111.wrap(kind)
        if part == "perturbed":
            enlarged(wrap.inner_model.model.diffusion_model)
        given = {**of_a1111.extra(), "text": with_rows(of_a1111.TEXT, part)}
        return a1111.Denoiser(wrap, [])(x, torch.full((IMAGES,), level), **given)

    tolerance = {"rtol": 0, "atol": 2e-2 if space == "sigma" else 6e-3}
    torch.testing.assert_close(found, expected_at(answers, level, space == "timestep"), **tolerance)
    flat = expected_at(answers, torch.full_like(level, nominal), space == "timestep")
    torch.testing.assert_close(uniform, flat, **tolerance)
    plain = of_a1111.hosts_at(kind, of_a1111.EDITS["nothing"], level)
    assert (found - plain).abs().max() > 10 * tolerance["atol"], "the method can be seen"
    assert len(other.scales) == 2 and (other.scales[0] > SCALE).all()
    assert not denoiser.wrap.inner_model.model.diffusion_model.blocks[0].in_layers._forward_hooks


@pytest.mark.parametrize("third", [False, True], ids=["two rows", "three rows"])
@pytest.mark.parametrize(("kind", "timesteps"), FORGE_KINDS)
def test_forge(forge_module: Any, kind: str, timesteps: bool, third: bool) -> None:
    nominal, level = of_forge.level_map(timesteps)
    checkpoint, given, x = forge.Checkpoint(kind), of_forge.arguments(), of_forge.latent(timesteps)
    space, other = "timestep" if timesteps else "sigma", compared(forge_module, Rival(third))
    model = forge_module.PixelDenoiser(
        forge.Denoiser(checkpoint, [], timesteps), given, space, IMAGES, None, compared=other
    )
    with model.attached():
        found = model(x, nominal, level)

    def answers(level: float, part: str) -> Tensor | None:
        if part == "perturbed" and not third:
            return None
        own = forge.Checkpoint(kind)
        if part == "perturbed":
            enlarged(own.forge_objects.unet.model.diffusion_model)
        text = given["uncond" if part == "uncond" else "cond"]
        return forge.Denoiser(own, [], timesteps)(x, torch.full((IMAGES,), level), text, text)

    torch.testing.assert_close(found, expected_at(answers, level, timesteps), rtol=0, atol=2e-2)
    plain = of_forge.hosts_at(kind, timesteps, of_forge.EDITS["nothing"], level)
    assert (found - plain).abs().max() > 0.2, "the method can be seen"
    assert (other.scales[0] > SCALE).all()
    assert "sampler_post_cfg_function" not in checkpoint.forge_objects.unet.model_options


def test_without_the_negative_prompt_there_is_nothing_to_guide(a1111_module: Any) -> None:
    """The WebUI leaves it out in some steps (NGMS)."""
    nominal, level = of_a1111.level_map("eps")
    denoiser = a1111.Denoiser(of_a1111.wrap("eps"), [], uncond=False)
    other = compared(a1111_module, Rival(third=True))
    model = a1111_module.PixelDenoiser(denoiser, of_a1111.extra(), "sigma", IMAGES, None, compared=other)
    with model.attached():
        found = model(of_a1111.latent("eps"), nominal, level)
    plain = of_a1111.hosts_at("eps", of_a1111.EDITS["nothing"], level, uncond=False)
    torch.testing.assert_close(found, plain, rtol=0, atol=4e-3)
    assert other.scales == []


def test_what_cannot_be_read_goes_on_without_us(a1111_module: Any) -> None:
    nominal, level = of_a1111.level_map("eps")
    rival = Rival(third=False, readable=False)
    denoiser = a1111.Denoiser(of_a1111.wrap("eps"), [])
    model = a1111_module.PixelDenoiser(
        denoiser, of_a1111.extra(), "sigma", IMAGES, None, compared=compared(a1111_module, rival)
    )
    host_class = type(denoiser)
    with pytest.raises(a1111_module.NotApplied, match="compare: nothing was seen"), model.attached():
        model(of_a1111.latent("eps"), nominal, level)
    assert type(denoiser) is host_class and list(rival.made[0].rows) == []
    assert not rival.made[0].network.blocks[0].in_layers._forward_hooks


def test_several_prompts_are_refused(a1111_module: Any) -> None:
    denoiser = a1111.Denoiser(of_a1111.wrap("eps"), [])
    rival = Rival(third=False)
    model = a1111_module.PixelDenoiser(
        denoiser, of_a1111.extra(), "sigma", IMAGES, None, compared=compared(a1111_module, rival)
    )
    two = [[(0, 1.0), (1, 0.5)]] * IMAGES
    with model.attached(), pytest.raises(a1111_module.NotApplied, match="AND"):
        denoiser.combine_denoised(torch.zeros(4, 4, 2, 2), two, torch.zeros(2, 1), SCALE)
    with model.attached(), pytest.raises(a1111_module.NotApplied, match="pix2pix"):
        denoiser.combine_denoised_for_edit_model(torch.zeros(6, 4, 2, 2), SCALE)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_zigzag_s_calls_are_one_step_for_the_host(a1111_module: Any, rounds: int) -> None:
    other = compared(a1111_module, Real("zigzag", {"zigzag_rounds": rounds}))
    host, told = SimpleNamespace(step=5), []
    for _ in range(3 * (1 + 2 * rounds) + 1):
        other.begins(host)
        told.append(host.step - 5)
        host.step += 1  # as the host does after each call
    each = 1 + 2 * rounds
    assert told == [call // each for call in range(3 * each + 1)]


def test_another_method_does_not_touch_the_step(a1111_module: Any) -> None:
    host = SimpleNamespace(step=4)
    compared(a1111_module, Rival(third=True)).begins(host)
    assert host.step == 4


@pytest.mark.parametrize("name", ["seg", "s-cfg"])
def test_a_network_that_is_none_for_the_method(a1111_module: Any, name: str) -> None:
    enter = partial(compared(a1111_module, Real(name)).attached, nn.Linear(1, 1))
    with pytest.raises(a1111_module.NotApplied, match="compare: Linear has no"), enter():
        pass
