"""SEG and S-CFG on an MMDiT (SD3): what they read and change in joint attention is what their formulas say."""

from __future__ import annotations

import math

import pytest
import torch
from support.mmdit import MMDiT
from torch import Tensor, nn
from torch.nn import functional as F

from asyndm_ext.rivals.guidance import Row, Unreadable
from asyndm_ext.rivals.scfg import SCFG
from asyndm_ext.rivals.seg import SEG, QueryBlur, blurred
from asyndm_ext.rivals.semantic_joint import CLIP_TOKENS, JointMaps

SIZES = [(8, 12), (7, 10)]
TEXT = 80  # CLIP's 77, and three of T5's
ROWS = [Row(0, "cond"), Row(1, "cond"), Row(0, "uncond"), Row(1, "uncond")]


@pytest.fixture(params=[(3, False, False), (4, True, True)], ids=["SD3", "SD3.5 medium"])
def network(request: pytest.FixtureRequest) -> MMDiT:
    torch.manual_seed(0)
    depth, dual, normed = request.param
    return MMDiT(depth=depth, dual=dual, normed=normed).requires_grad_(False)


def inputs(size: tuple[int, int], rows: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, context = torch.randn(rows, 4, *size, generator=generator), torch.randn(rows, TEXT, 12, generator=generator)
    return x, torch.full((rows,), 400.0), torch.randn(rows, 10, generator=generator), 3 * context


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [1.0, math.inf])
def test_seg_blurs_the_picture_s_queries_in_the_middle(network: MMDiT, size: tuple[int, int], sigma: float) -> None:
    given, grid = inputs(size), (-(-size[0] // 2), -(-size[1] // 2))
    plain = network(*given)
    rule = SEG(network, 5.0, 3.0, sigma)
    with rule.attached():
        rule.begin(size)
        rule.read([None, Row(1, "perturbed"), None, None])
        found = network(*given)
        rule.read(())
        assert torch.equal(network(*given), plain), "no row, nothing touched"
    assert torch.equal(network(*given), plain), "nothing left"
    torch.testing.assert_close(found[[0, 2, 3]], plain[[0, 2, 3]])

    depth = len(network.joint_blocks)
    middle = {3: [1, 2], 4: [1, 2, 3]}[depth]
    width = network.joint_blocks[0].x_block.attn.qkv.in_features

    def blur(module: nn.Module, args: tuple, qkv: Tensor) -> Tensor:
        q, rest = qkv[..., :width], qkv[..., width:]
        return torch.cat([blurred(q, grid, sigma), rest], dim=-1)

    for number in middle:
        network.joint_blocks[number].x_block.attn.qkv.register_forward_hook(blur)
    torch.testing.assert_close(found[1], network(*given)[1])
    assert (found[1] - plain[1]).abs().max() > 1e-3


def explicit(network: MMDiT, given: tuple, grid: tuple[int, int], published: bool) -> list[Tensor]:
    """Of each row the sum over blocks of T @ C, every token at a mean of 1, ``(77,h,w)``; written down otherwise."""
    seen: list[Tensor] = []
    handles = []
    for block in network.joint_blocks:
        for module in (block.context_block.attn.ln_k, block.x_block.attn.ln_q, block.x_block.attn.ln_k):
            handles.append(module.register_forward_hook(lambda module, args, out: seen.append(out.double())))
    network(*given)
    for handle in handles:
        handle.remove()
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) ** 2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    found = []
    for row in range(len(given[0])):
        total = torch.zeros(CLIP_TOKENS, *grid, dtype=torch.float64)
        for text, q, k in zip(seen[0::3], seen[1::3], seen[2::3], strict=True):
            scale = q.shape[-1] ** -0.5
            own = torch.einsum("lhd,shd->hls", q[row], k[row]).mul(scale).softmax(-1).mean(0)
            words = torch.einsum("lhd,shd->hls", q[row], text[row, :CLIP_TOKENS]).mul(scale).softmax(-1).mean(0)
            powers = [torch.linalg.matrix_power(own, n) for n in (1, 2, 3, 4)]
            mix = (powers[0] + 3 * powers[1]) / 4 if published else sum(powers) / 4
            maps = F.pad((mix @ words).T.unflatten(-1, grid)[:, None], (1, 1, 1, 1), mode="reflect")
            maps = F.conv2d(maps, kernel[None, None])[:, 0]
            if row >= 2:  # without the prompt: token 0 against all others
                maps = torch.cat([maps[:1], maps[1:].sum(0, keepdim=True)])
                maps = torch.cat([maps, torch.zeros(CLIP_TOKENS - 2, *grid, dtype=torch.float64)])
            total += maps / maps.mean(dim=(-2, -1), keepdim=True).clamp_min(1e-30)
        found.append(total)
    return found


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_masks_are_those_of_the_formula(network: MMDiT, size: tuple[int, int], published: bool) -> None:
    given, grid = inputs(size), (-(-size[0] // 2), -(-size[1] // 2))
    maps = JointMaps(network, 2, published)
    with maps.attached():
        maps.begin(size)
        maps.read(ROWS)
        network(*given)
        found = maps.masks()
    expected = explicit(network, given, grid, published)
    for image in (0, 1):
        words = F.one_hot(expected[image].argmax(0), CLIP_TOKENS).movedim(-1, 0)
        assert (found.tokens[image] == words).float().mean() > 0.99
        ground = expected[2 + image][:2].argmax(0) == 0
        assert torch.equal(found.foreground[image, 0] == 0, ground)
    assert 0 < found.foreground.mean() < 1 and found.tokens.sum(dim=(-2, -1)).gt(0).sum() > 4
    assert not any(module._forward_hooks for module in network.modules())


def test_rows_in_calls_of_their_own_give_the_same_masks(network: MMDiT) -> None:
    given, size = inputs(SIZES[0]), SIZES[0]
    found = []
    for slices in ([slice(0, 4)], [slice(2, 4), slice(0, 1), slice(1, 2)]):
        maps = JointMaps(network, 2)
        with maps.attached():
            maps.begin(size)
            for part in slices:
                maps.read(ROWS[part])
                network(*(one[part] for one in given))
            found.append(maps.masks())
    assert torch.equal(found[0].tokens, found[1].tokens) and torch.equal(found[0].foreground, found[1].foreground)


def test_scfg_takes_them(network: MMDiT) -> None:
    size, given = SIZES[0], inputs(SIZES[0])
    rule = SCFG(network, 5.0, 2)
    with rule.attached():
        rule.begin(size)
        rule.read(ROWS)
        answer = network(*given)
        cond, uncond = answer.chunk(2)
        guided = rule.combine(uncond, cond)
    rate = (guided - uncond) / (5 * (cond - uncond))
    assert float(rate.min()) >= 0.8 and float(rate.max()) <= 3.0 + 1e-4 and float(rate.std()) > 0.01


def test_a_network_that_was_not_called_is_told(network: MMDiT) -> None:
    maps = JointMaps(network, 2)
    with maps.attached(), pytest.raises(Unreadable, match="could not read the attention"):
        maps.begin(SIZES[0])
        maps.masks()


def test_the_middle_of_real_depths() -> None:
    """diffusers' 7, 8 and 9 of SD3.5 medium's 24; as deep in SD3.5 large's 38."""
    for depth, expected in ((24, [7, 8, 9]), (38, [11, 12, 13])):
        network = MMDiT(width=8, heads=2, depth=depth)
        blur = QueryBlur(network, 1.0)
        assert blur._layers == [network.joint_blocks[n].x_block.attn.qkv for n in expected]
