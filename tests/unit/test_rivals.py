"""Each rival against its own formula, written out plainly, on models whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from support.solvers import SHAPE, TABLE, Changing, Gaussian, randn, webui_timesteps
from torch import Tensor, nn

from asyndm_ext.clock.schedule import BaseSchedule, PixelSchedule
from asyndm_ext.region.regions import FixedRegion
from asyndm_ext.rivals import OPTIONS, cfgpp, read_option
from asyndm_ext.rivals.choice import Rival
from asyndm_ext.rivals.guidance import Row, equivalent_scale, projected_scale
from asyndm_ext.rivals.scfg import SCFG, semantic_rate
from asyndm_ext.rivals.seg import SEG, blurred, grid_of, kernel
from asyndm_ext.rivals.semantic import Masks, SemanticMaps, mixed, smoothed, winners
from asyndm_ext.rivals.zigzag import sample_zigzag
from asyndm_ext.run import FromHost, Run
from asyndm_ext.solvers import SOLVERS

SIGMAS = torch.tensor([14.6, 7.0, 3.0, 1.2, 0.4, 0.0], dtype=torch.float64)
STILL = FixedRegion.everything((SHAPE[0], 1, *SHAPE[2:]), 0.0)
OBJECTS = (torch.arange(20) % 3 == 0).view(1, 1, 4, 5).double().expand(SHAPE[0], -1, -1, -1)


class Guided:
    """Plain guidance between two exact denoisers; tells the answer without the prompt."""

    def __init__(self, space: str, guidance: float = 5.0) -> None:
        self.parts = Gaussian(space), Gaussian(space, randn(*SHAPE, seed=8), 0.5 * torch.ones(SHAPE).double())
        self.guidance = guidance
        self.last_uncond: Tensor | None = None
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        self.seen.append(level.clone())
        uncond, cond = (part(x, nominal, level) for part in self.parts)
        self.last_uncond = uncond
        return uncond + self.guidance * (cond - uncond)

    def attention(self) -> None:
        return None

    def noise(self, x: Tensor, level: Tensor, guidance: float) -> Tensor:
        """eps at a map of levels."""
        uncond, cond = (part(x, 0.0, level) for part in self.parts)
        answer = uncond + guidance * (cond - uncond)
        return (x - answer) / level if self.parts[0].space == "sigma" else answer


def base_of(space: str) -> BaseSchedule:
    if space == "sigma":
        return BaseSchedule.from_sigmas(SIGMAS)
    return BaseSchedule.from_timesteps(webui_timesteps(6).flip(0))


def run_of(space: str, region=STILL, guidance: float = 5.0):
    model, base = Guided(space, guidance), base_of(space)
    x = randn(*SHAPE, seed=5) * (base.nominal(0) if space == "sigma" else 1.0)
    levels: list[Tensor] = []
    run = Run(
        model,
        PixelSchedule(base, (SHAPE[0], 1, *SHAPE[2:]), "quadratic"),
        region,
        x,
        FromHost(randn_like=torch.zeros_like, table=TABLE, watch=lambda record: levels.append(record.level)),
    )
    return run, x, model, levels


def step(space: str, x: Tensor, e: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """DDIM without fresh noise."""
    if space == "sigma":
        return x + (there - here) * e
    a, b = TABLE.alpha_at(here), TABLE.alpha_at(there)
    return b.sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - b).sqrt() * e


# --- Z-Sampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["sigma", "timestep"])
@pytest.mark.parametrize("region", [STILL, Changing([OBJECTS, 0.4 * OBJECTS])], ids=["all alike", "a clock per pixel"])
@pytest.mark.parametrize("inversion", [0.0, 1.5])
@pytest.mark.parametrize("published", [False, True])
def test_zigzag_is_its_formula(space, region, inversion, published):
    run, x, model, levels = run_of(space, region)
    scales: list[Tensor] = []
    found = sample_zigzag(
        run, x, space=space, guidance=5.0, inversion=inversion, rounds=1, published=published, log=scales.append
    )
    path = [*levels, run.schedule.level]
    assert len(model.seen) == 3 * (len(path) - 2) + 1 and len(scales) == len(path) - 1
    if published and region is not STILL:
        return  # the level after the next one is a guess there
    for i, (t, s) in enumerate(pairwise(path)):
        forth = model.noise(x, t, 5.0)
        new = step(space, x, forth, t, s)
        if i < len(path) - 2:
            back = model.noise(new, t, inversion)
            again = step(space, new, back, path[i + 2], s) if published else step(space, new, back, s, t)
            new = step(space, again, model.noise(again, t, 5.0), t, s)
        x = new
    assert torch.allclose(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", ["sigma", "timestep"])
def test_zigzag_without_turns_is_plain_and_its_scale_is_the_guidance(space):
    run, x, *_ = run_of(space)
    plain = SOLVERS["Euler" if space == "sigma" else "DDIM"].sample(run, x)
    for settings in ({"rounds": 0}, {"turns": 0}):
        run, x, *_ = run_of(space)
        scales: list[Tensor] = []
        found = sample_zigzag(run, x, space=space, guidance=5.0, log=scales.append, **settings)
        assert torch.allclose(found, plain, rtol=1e-9, atol=1e-9)
        assert torch.allclose(torch.stack(scales), torch.tensor(5.0).double(), rtol=1e-6)


def test_zigzag_back_with_as_much_guidance_undoes_the_step_of_a_constant_answer():
    """Where the answer does not change, back and forth is where it was; with less guidance back, the rest is gained."""

    class Constant(Guided):
        def __call__(self, x, nominal, level):
            self.last_uncond = x - level * 1.0
            return x - level * (1.0 + self.guidance * 0.5)

    for inversion, scale in ((5.0, 5.0), (0.0, 10.0), (2.0, 8.0)):
        run, x, *_ = run_of("sigma")
        run._model = Constant("sigma")
        scales: list[Tensor] = []
        sample_zigzag(run, x, space="sigma", guidance=5.0, inversion=inversion, log=scales.append)
        # w + (w - w') for every step but the last: that is what plain guidance would need.
        assert torch.stack(scales)[:-1].flatten().tolist() == pytest.approx([scale] * 8, rel=1e-9)
        assert scales[-1].tolist() == pytest.approx([5.0] * 2)


def test_zigzag_of_a_flow_looks_at_the_lower_level_on_the_way_back():
    run, x, model, _ = run_of("sigma")
    run.host = replace(run.host, flow=True)
    sample_zigzag(run, x, space="sigma", guidance=5.0)
    told = [float(level.flatten()[0]) for level in model.seen]
    assert told[:6] == [14.6, 7.0, 14.6, 7.0, 3.0, 7.0]


# --- CFG++ ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plain", "space"), [("Euler", "sigma"), ("DDIM", "timestep"), ("Euler a", "sigma")])
@pytest.mark.parametrize("eta", [None, 0.0, 1.0])
def test_cfgpp_is_plain_guidance_at_its_equivalent_scales(plain, space, eta):
    """The same picture, step by step, from plain guidance at the scale that is logged."""
    lam, options = 0.4, {} if eta is None or plain == "Euler" else {"eta": eta}
    solver = Rival("cfg++").solver(plain)
    assert solver.guidance * 5 == pytest.approx(lam) and solver.uncond
    run, x, _, levels = run_of(space, guidance=lam)
    found = solver.sample(run, x, **options)
    scales = cfgpp.equivalent_scales([*levels, run.schedule.level], solver, lam, eta, TABLE)
    assert len(scales) == run.count

    run, x, model, _ = run_of(space)
    guided = model.__call__

    class Following(Guided):
        calls = 0

        def __call__(self, x, nominal, level):
            model.guidance = float(scales[self.calls][0])
            self.calls += 1
            return guided(x, nominal, level)

    run._model = Following(space)
    assert torch.allclose(SOLVERS[plain].sample(run, x, **options), found, rtol=1e-6, atol=1e-6)
    assert float(scales[-1][0]) == pytest.approx(lam) or space == "timestep"


def test_cfgpp_without_guidance_is_the_answer_without_the_prompt():
    run, x, *_ = run_of("sigma", guidance=0.0)
    found = Rival("cfg++").solver("Euler").sample(run, x)
    run, x, *_ = run_of("sigma", guidance=0.0)
    assert torch.allclose(found, SOLVERS["Euler"].sample(run, x))


def test_cfgpp_under_a_map_weighs_the_pixels_by_how_far_they_move():
    sigma, down = torch.tensor([[4.0, 4.0]]), torch.tensor([[2.0, 4.0]])
    assert cfgpp.equivalent_step_scale(0.4, sigma, down).tolist() == pytest.approx([0.8])


def test_samplers_that_a_rival_does_not_have():
    with pytest.raises(ValueError, match="no step for the sampler 'Heun'"):
        Rival("cfg++").solver("Heun")
    with pytest.raises(ValueError, match="none for 'DPM\\+\\+ 2M'"):
        Rival("zigzag").solver("DPM++ 2M")
    with pytest.raises(ValueError, match="unknown method 'sag'"):
        Rival("sag")
    with pytest.raises(ValueError, match="has no option seg_blur"):
        Rival("zigzag", {"seg_blur": 1.0})
    assert {name for pair in cfgpp.SIBLINGS.items() for name in pair} <= set(SOLVERS)
    assert cfgpp.equivalent_scales([SIGMAS], SOLVERS["DPM++ 2M CFG++"], 0.4, None, TABLE) == []


def test_options_as_they_are_written():
    assert (read_option("seg_blur", "inf"), read_option("zigzag_rounds", "2")) == (math.inf, 2)
    assert read_option("scfg_published", "true") is True
    for name, text in (("seg_blur", "-1"), ("seg_blur", "nan"), ("zigzag_published", "1"), ("sag", "1")):
        with pytest.raises(ValueError):
            read_option(name, text)
    assert list(OPTIONS) == ["zigzag", "seg", "s-cfg", "cfg++"]


# --- SEG ------------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Of a network's block; the answer is what the queries find."""

    heads = 2

    def __init__(self, width: int, text: int) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(width, width, bias=False), nn.Linear(text, width, bias=False)
        self.to_v = nn.Linear(text, width, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            one.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, width: int = 8, text: int = 6) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(width, width), Attention(width, text)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(x)
        return x + self.attn2(x, context)


class Network(nn.Module):
    """Two blocks at a quarter of the latent, the middle at an eighth."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, 8, 1)
        self.input_blocks = nn.ModuleList([Block(), Block()])
        self.middle_block = nn.ModuleList([Block()])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = F.avg_pool2d(self.into(x), 4, ceil_mode=True)
        h = self._through(self.input_blocks[1], self._through(self.input_blocks[0], h, context), context)
        small = self._through(self.middle_block[0], F.avg_pool2d(h, 2, ceil_mode=True), context)
        h = h + F.interpolate(small, size=h.shape[-2:])
        return F.interpolate(h[:, :3], size=x.shape[-2:])

    def _through(self, block: nn.Module, h: Tensor, context: Tensor) -> Tensor:
        return block(h.flatten(2).transpose(1, 2), context).transpose(1, 2).unflatten(-1, h.shape[-2:])


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = Network().double()
    for parameter in made.parameters():
        parameter.data *= 3
    return made.requires_grad_(False)


def rows_of(images: int, parts=("uncond", "cond")) -> list[Row]:
    return [Row(image, part) for part in parts for image in range(images)]


def test_blur_is_a_gaussian_over_the_grid():
    q = randn(1, 6 * 9, 4, seed=3)
    found = blurred(q, (6, 9), 0.8).double()
    weights = torch.exp(-(torch.arange(-3, 4) ** 2) / (2 * 0.8**2)).double()[1:6]  # 7 cells, but 5 fit into 6
    wide = torch.exp(-(torch.arange(-3, 4) ** 2) / (2 * 0.8**2)).double()
    picture = q[0].view(6, 9, 4)
    for y, x in ((2, 4), (3, 3)):
        around = picture[y - 2 : y + 3, x - 3 : x + 4]
        expected = torch.einsum("i,j,ijc->c", weights / weights.sum(), wide / wide.sum(), around)
        assert torch.allclose(found[0].view(6, 9, 4)[y, x], expected, atol=1e-5)
    constant = torch.ones(1, 54, 4)
    assert torch.allclose(blurred(constant, (6, 9), 2.0), constant, atol=1e-6)
    assert torch.equal(blurred(q, (6, 9), 0.0), q)
    assert torch.allclose(blurred(q, (6, 9), math.inf), q.mean(dim=1, keepdim=True).expand_as(q))


@pytest.mark.parametrize(("sigma", "side", "wide"), [(1.0, 32, 7), (1.0, 6, 5), (0.3, 8, 3), (10.0, 8, 7), (1.0, 1, 1)])
def test_the_blurs_kernel_is_odd_and_fits(sigma, side, wide):
    assert len(kernel(sigma, side)) == wide and float(kernel(sigma, side).sum()) == pytest.approx(1.0)


def test_a_grid_is_told_by_its_latent():
    assert grid_of(8 * 12, (64, 96)) == (8, 12) and grid_of(9 * 17, (65, 130)) == (9, 17)
    with pytest.raises(ValueError, match="fits no halving"):
        grid_of(50, (64, 64))


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_seg_is_its_formula(network, size):
    """A third row whose middle queries are blurred; the other two keep their bits."""
    x, context = randn(2, 3, *size, seed=1), randn(6, 5, 6, seed=2)
    context[4:] = context[2:4]
    rule = SEG(network, 5.0, 3.0, math.inf)
    plain = network(x.repeat(2, 1, 1, 1), context[:4])
    with rule.attached():
        rule.begin(size)
        rule.read(rows_of(2, rule.parts))
        rows = network(x.repeat(3, 1, 1, 1), context)
        assert rule._blur.calls == 1
        rule.read(())
        assert torch.equal(network(x.repeat(2, 1, 1, 1), context[:4]), plain)
    assert torch.allclose(rows[:4], plain, rtol=1e-12, atol=1e-12)

    layer = network.middle_block[0].attn1
    keep = layer.to_q
    mean = nn.Linear(8, 8)
    mean.forward = lambda h: keep(h).mean(dim=1, keepdim=True).expand(-1, h.shape[1], -1)  # type: ignore[method-assign]
    layer.to_q = mean
    worse = network(x, context[2:4])
    layer.to_q = keep
    assert torch.allclose(rows[4:], worse, rtol=1e-12, atol=1e-12) and not torch.allclose(rows[4:], plain[2:])

    e_u, e_c, e_s = rows.chunk(3)
    expected = e_c + 4.0 * (e_c - e_u) + 3.0 * (e_c - e_s)
    assert torch.allclose(rule.combine(e_u, e_c, e_s), expected)
    neutral = SEG(network, 5.0, 0.0, 1.0).combine(e_u, e_c, e_s)
    assert torch.allclose(neutral, e_u + 5.0 * (e_c - e_u))
    assert not any(layer.to_q._forward_hooks for layer in [network.middle_block[0].attn1])
    with pytest.raises(ValueError, match="no self-attention in its middle"):
        SEG(nn.Linear(2, 2), 5.0, 3.0, 1.0)


# --- S-CFG ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("published", [False, True])
def test_cells_are_mixed_by_the_powers_of_the_self_attention(published):
    own, words = randn(9, 9, seed=1).softmax(dim=1), randn(9, 4, seed=2).softmax(dim=1)
    s2, s3 = own @ own, own @ own @ own
    expected = (own + 3 * s2) / 4 if published else (own + s2 + s3 + s3 @ own) / 4
    assert torch.allclose(mixed(own, words, published), expected @ words)


def test_the_authors_gaussian_is_wider_than_its_name():
    spike = torch.zeros(1, 1, 5, 5)
    spike[..., 2, 2] = 1
    found = smoothed(spike)[0, 0]
    e = math.exp(-1)
    assert float(found[2, 1] / found[2, 2]) == pytest.approx(e) and float(found.sum()) == pytest.approx(1.0)
    assert float(found[1, 1] / found[2, 2]) == pytest.approx(e * e)


def attention_of(layer: Attention, x: Tensor, context: Tensor) -> Tensor:
    q, k = (one.unflatten(-1, (2, -1)).transpose(1, 2) for one in (layer.to_q(x), layer.to_k(context)))
    return (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (36, 56)])
def test_semantic_masks_are_those_of_the_formula(network, size, published):
    """All layers of both grids, added up by hand."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    blocks = [*network.input_blocks, *network.middle_block]
    hooks = [b.register_forward_pre_hook(lambda block, args: seen.append((block, *args))) for b in blocks]
    x, context = randn(2, 3, *size, seed=1), randn(4, 5, 6, seed=2)
    maps = SemanticMaps(network, 2, published)
    with maps.attached():
        maps.begin(size)
        maps.read(rows_of(2))
        network(x.repeat(2, 1, 1, 1), context)
        found = maps.masks()
    for hook in hooks:
        hook.remove()
    finest = (-(-size[0] // 4), -(-size[1] // 4))
    tokens, ground = torch.zeros(2, 5, *finest).double(), torch.zeros(2, 2, *finest).double()
    for block, h, text in seen:
        own = attention_of(block.attn1, h, h)
        words = attention_of(block.attn2, h + block.attn1(h), text)
        grid = finest if h.shape[1] == finest[0] * finest[1] else (-(-finest[0] // 2), -(-finest[1] // 2))
        for row in range(4):
            spread = mixed(own[row], words[row], published).T.view(1, 5, *grid)
            if grid != finest:
                spread = F.interpolate(spread, size=finest, mode="bilinear")
            spread = smoothed(spread)[0]
            if row < 2:
                two = torch.stack([spread[0], spread[1:].sum(dim=0)])
                ground[row] += two / two.mean(dim=(1, 2), keepdim=True)
            else:
                tokens[row - 2] += spread / spread.mean(dim=(1, 2), keepdim=True)
    assert torch.equal(found.tokens.argmax(dim=1), tokens.argmax(dim=1))
    assert torch.equal(found.foreground[:, 0].bool(), ground.argmax(dim=1) != 0)
    assert torch.equal(found.tokens.sum(dim=1), torch.ones(2, *finest))
    assert 0 < float(found.foreground.mean()) < 1 and len(found.tokens.sum(dim=(0, 2, 3)).nonzero()) > 1


def test_rows_in_calls_of_their_own_give_the_same_masks(network):
    x, context = randn(2, 3, 32, 32, seed=1), randn(4, 5, 6, seed=2)
    maps = SemanticMaps(network, 2)
    with maps.attached():
        maps.begin((32, 32))
        maps.read(rows_of(2))
        network(x.repeat(2, 1, 1, 1), context)
        together = maps.masks()
        maps.begin((32, 32))
        for number in (3, 0, 2, 1):
            maps.read([rows_of(2)[number]])
            network(x[number % 2][None], context[number][None])
        apart = maps.masks()
        maps.begin((32, 32))
        with pytest.raises(RuntimeError, match="could not read the attention"):
            maps.masks()
    assert torch.equal(together.tokens, apart.tokens) and torch.equal(together.foreground, apart.foreground)
    assert not any(m._forward_hooks for m in network.modules())


def masks_of(tokens: Tensor, foreground: Tensor) -> Masks:
    return Masks(winners(F.one_hot(tokens[None], 4).movedim(-1, 1).float()), foreground[None, None].float())


def test_the_rate_is_that_of_the_formula():
    """Three words' parts, one of them empty; limits at 0.8 and 3, and at 15 / w."""
    tokens = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]])
    foreground = tokens > 0
    d = randn(1, 3, 12, 16, seed=4)
    d[..., :8, :8] *= 0.5
    d[..., 8:, :] *= 0.1
    n = d.norm(dim=1)[0]
    large = tokens.repeat_interleave(4, 0).repeat_interleave(4, 1)
    front = n[large > 0].mean()
    for w, most in ((5.0, 3.0), (7.5, 2.0)):
        rate = torch.zeros_like(n)
        for token in (0, 1, 2):
            rate[large == token] = (front / n[large == token].mean()).clamp(0.8, most)
        assert len(rate.unique()) == 3 and float(rate.max()) == most and float(rate.min()) == pytest.approx(0.8)
        found = semantic_rate(d, masks_of(tokens, foreground), w)
        assert torch.allclose(found[0, 0].double(), smoothed(rate[None, None])[0, 0], rtol=1e-5)


def test_scfg_with_even_rates_is_plain_guidance(network):
    x, context = randn(2, 3, 32, 32, seed=1), randn(4, 5, 6, seed=2)
    rule = SCFG(network, 5.0, 2)
    with rule.attached():
        rule.begin((32, 32))
        rule.read(rows_of(2))
        e_u, e_c = network(x.repeat(2, 1, 1, 1), context).chunk(2)
        rate = semantic_rate(e_c - e_u, rule._maps.masks(), 5.0)
        assert torch.allclose(rule.combine(e_u, e_c), e_u + 5 * rate * (e_c - e_u)) and float(rate.std()) > 0.01
        even = e_u + torch.ones(2, 3, 1, 1).double()  # the prompt moves every pixel as much
        assert torch.allclose(rule.combine(e_u, even), e_u + 5 * (even - e_u))
    limited = semantic_rate(e_c - e_u, rule._maps.masks(), 5.0, least=1.0, most=1.0)
    assert torch.allclose(limited, torch.ones_like(limited))


def test_all_background_is_guided_least():
    d, tokens = randn(1, 3, 12, 16, seed=4), torch.zeros(3, 4, dtype=torch.long)
    found = semantic_rate(d, masks_of(tokens, torch.zeros(3, 4)), 5.0)
    assert torch.allclose(found, torch.tensor(0.8))


# --- equivalent scales ----------------------------------------------------------------------------------------------


def test_equivalent_scales():
    e_u, d = randn(2, 3, 4, 4, seed=1), randn(2, 3, 4, 4, seed=2)
    d[1] = 0
    found = equivalent_scale(e_u, e_u + d, e_u + 6 * d)
    assert float(found[0]) == pytest.approx(6.0) and math.isnan(float(found[1]))
    across = randn(2, 3, 4, 4, seed=3)
    across -= (across * d).sum() / (d**2).sum() * d
    assert float(projected_scale(2.5 * d + across, d)[0]) == pytest.approx(2.5)


def test_what_they_cost():
    assert Rival("zigzag").calls(50) == 148 and Rival("seg").calls(50) == 75
    assert Rival("s-cfg").calls(50) == Rival("cfg++").calls(50) == 50
