"""Half precision, autocast, channels last, and weights that are brought in block by block: the same masks, the picture
within what the precision gives, no NaN, and our own maths in float32 or better."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from unittest import mock

import pytest
import torch

pytest.importorskip("diffusers")

from support.chroma import Chroma
from support.flux import Flux
from support.ldm_unet import LdmUNet
from support.mmdit import MMDiT
from support.tiny import fresh_model, job
from torch import Tensor, nn

from asyndm_ext.embedded.sampling import Result, run_variant
from asyndm_ext.model import cross_probabilities
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.cross_probabilities import token_probabilities
from asyndm_ext.model.network import attention_capture, time_conditioning
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.region.regions import ObjectRegion
from asyndm_ext.world.model import WorldModel

STEPS = 5
SOLVERS = ("Euler", "DPM++ 2M", "DDIM")


@contextmanager
def block_by_block(model: WorldModel) -> Iterator[None]:
    """As --lowvram does it: a block's weights come when the block is called, and those of the block before it go.

    The other place is another dtype here, so that whoever uses weights out of turn fails: float64 does not go with
    float32.
    """
    unet = model.unet
    parts: list[nn.Module] = [unet.time_embedding, unet.conv_in, *unet.down_blocks, unet.mid_block, *unet.up_blocks]
    present: list[nn.Module] = []

    def bring(module: nn.Module, args: tuple) -> None:
        if present and present[0] is not module:
            present.pop().double()
        if not present:
            present.append(module.float())

    handles = [part.register_forward_pre_hook(bring) for part in parts]
    for part in parts:
        part.double()
    try:
        # diffusers asks the weights for the dtype of the time embedding's input.
        with mock.patch.object(type(unet), "dtype", torch.float32), mock.patch.object(unet, "parameters", _floats):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _floats() -> Iterator[Tensor]:
    yield torch.zeros(1)


@dataclass(frozen=True)
class Way:
    """How the model is run, how far its picture may be from float32's (mean, in units of the picture's deviation), and
    the share of pixels whose mask may be another (cells at the threshold)."""

    name: str
    prepare: Callable[[WorldModel], WorldModel] = lambda model: model
    around: Callable[[WorldModel], AbstractContextManager] = lambda model: nullcontext()
    picture: float = 1e-5
    masks: float = 0.0


WAYS = (
    Way("float16", lambda model: model.half(), picture=0.05, masks=0.02),
    Way("bfloat16", lambda model: model.bfloat16(), picture=0.3, masks=0.1),
    Way("autocast", around=lambda model: torch.autocast("cpu", torch.bfloat16), picture=0.3, masks=0.1),
    Way("channels last", lambda model: model.to(memory_format=torch.channels_last)),
    Way("block by block", around=block_by_block),
)


def run(way: Way, solver: str) -> Result:
    model = way.prepare(fresh_model())
    with way.around(model):
        return run_variant(model, job(solver=solver, steps=STEPS), "asyndm")


@cache
def reference(solver: str) -> Result:
    return run(Way("float32"), solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_pictures_and_masks(way: Way, solver: str) -> None:
    expected, found = reference(solver), run(way, solver)
    assert torch.isfinite(found.latent).all() and torch.isfinite(found.predictions).all()
    assert found.latent.dtype == torch.float32, "the solver's sums are in float32 whatever the model's weights"
    assert found.strength.dtype == found.timestep.dtype == torch.float64
    differs = (found.strength != expected.strength).double().mean()
    assert differs <= way.masks
    assert len(found.timestep[2].unique()) > 1, "the levels differ from pixel to pixel"
    distance = (found.latent - expected.latent).abs().mean() / expected.latent.std()
    assert distance <= way.picture


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_what_we_compute_ourselves_is_float32(way: Way) -> None:
    """The attention that masks are made of, as the region gets it."""
    seen: list[Tensor] = []

    def observe(region: ObjectRegion, maps: Tensor, progress: float) -> None:
        seen.append(maps)
        original(region, maps, progress)

    original = ObjectRegion.observe
    with mock.patch.object(ObjectRegion, "observe", observe):
        run(way, "Euler")
    assert len(seen) == STEPS
    for maps in seen:
        assert maps.dtype == torch.float32
        steps = maps.flatten().bfloat16().float()
        assert (maps.flatten() != steps).double().mean() > 0.9, "these numbers were rounded to half on their way"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_touch_probabilities(dtype: torch.dtype) -> None:
    """A host samples under autocast, which makes a matrix product half whatever the dtype of its factors."""
    draw = torch.Generator().manual_seed(0)
    q, k = (3 * torch.randn(rows, 16, generator=draw) for rows in (24, 9))
    tokens = torch.zeros(1, 9, 2)
    tokens[0, [1, 2, 6], [0, 1, 1]] = 1
    alone = token_probabilities(q[None], k[None], 2, 8**-0.5, tokens)
    with torch.autocast("cpu", dtype):
        assert (q @ k.T).dtype == dtype
        assert torch.equal(token_probabilities(q[None], k[None], 2, 8**-0.5, tokens), alone)


def test_queries_need_not_lie_in_a_row() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(rows, 16, generator=draw) for rows in (24, 9))
    tokens = torch.zeros(1, 9, 1)
    tokens[0, 1] = 1
    expected = token_probabilities(q[None], k[None], 2, 8**-0.5, tokens)
    scattered = torch.randn(16, 24).t().copy_(q)
    assert not scattered.is_contiguous()
    assert torch.allclose(token_probabilities(scattered[None], k[None], 2, 8**-0.5, tokens), expected, atol=1e-7)


TRANSFORMERS = {"sd3": MMDiT, "sd35": lambda: MMDiT(dual=True, normed=True), "flux": Flux, "chroma": Chroma}
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SIZE = (12, 16)


def conditioned(net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The network's answer with a map of timesteps, and the attention to two objects."""
    t = torch.full((1, 1, *SIZE), 600.0)
    t[..., 4:8, 2:10] = 700.0
    time = time_conditioning(net)
    capture = attention_capture(net, 2, 1)
    with time.attached(), capture.attached():
        capture.begin(SIZE)
        capture.read([None, TokenRow(0, [[2], [3, 4]])])
        time.use(TimestepTable.from_map(t, 0.25), [0, 0])
        answer = net(*inputs)
    maps = capture.maps()
    assert maps is not None
    return answer, maps


@pytest.mark.parametrize("how", [*HALF, "autocast"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str, how: str) -> None:
    torch.manual_seed(0)
    net = TRANSFORMERS[name]().eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(1)
    x, y, text = (torch.randn(2, *shape, generator=draw) for shape in ((4, *SIZE), (10,), (7, 12)))
    t = torch.full((2,), 600.0 if name.startswith("sd") else 0.6)
    expected, expected_maps = conditioned(net, (x, t, y, text))
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found, maps = conditioned(net, (x, t, y, text))
    else:
        dtype = HALF[how]
        found, maps = conditioned(net.to(dtype), (x.to(dtype), t, y.to(dtype), text.to(dtype)))
    assert torch.isfinite(found).all() and maps.dtype == torch.float32
    assert (found.float() - expected).abs().mean() / expected.std() < 0.05
    assert ((maps - expected_maps).abs() / expected_maps).mean() < 0.05
    assert (maps != maps.bfloat16().float()).double().mean() > 0.9, "the probabilities were rounded to half"


@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
def test_the_layout_of_a1111_s_unets(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = LdmUNet().eval().requires_grad_(False)
    x, t = torch.randn(2, 4, *SIZE), torch.full((2,), 600.0)
    levels = torch.full((1, 1, *SIZE), 600.0)
    levels[..., 4:8, 2:10] = 700.0

    def run(net: nn.Module, x: Tensor) -> Tensor:
        time = time_conditioning(net)
        with time.attached():
            time.use(TimestepTable.from_map(levels, 0.25), [0, 0])
            return net(x, t)

    expected = run(net, x)
    for other in (net.to(memory_format=torch.channels_last), net.to(dtype)):
        found = run(other, x.to(next(other.parameters()).dtype))
        assert torch.isfinite(found).all()
        assert (found.float() - expected).abs().mean() / expected.std() < 0.05


def test_devices_without_autocast_are_left_alone() -> None:
    """Older versions of torch refuse to turn it off there."""
    with mock.patch.object(torch, "autocast", side_effect=RuntimeError):
        with cross_probabilities.without_autocast(torch.device("mps")):
            pass
        with pytest.raises(RuntimeError):
            cross_probabilities.without_autocast(torch.device("cpu"))
