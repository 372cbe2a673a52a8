"""What passes for a block's modulation: each token's own rows, whichever way a block writes its formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from asyndm_ext.model import token_rows
from asyndm_ext.model.token_rows import Chunks, RowTable, TokenRows

IMAGES, TOKENS, WIDTH, ROWS = 2, 5, 4, 7
SCALES = (1, 4)
GROUPS = (range(2), range(2, 5))  # shift, scale; gate, shift, scale; and a gate alone


@pytest.fixture(autouse=True, params=[0, token_rows.AT_ONCE], ids=["large", "small"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a large picture are gathered when they are used, those of a small one together."""
    monkeypatch.setattr(token_rows, "AT_ONCE", request.param)


class Given:
    def __init__(self, expanded: bool = False) -> None:
        draw = torch.Generator().manual_seed(3)
        self.rows = torch.randn(ROWS, 6 * WIDTH, generator=draw)
        self.index = torch.randint(ROWS, (IMAGES * TOKENS,), generator=draw)
        self.x = torch.randn(IMAGES, TOKENS, WIDTH, generator=draw)
        self.told: list[int] = []
        ones = torch.zeros(6, WIDTH)
        ones[list(SCALES)] = 1
        table = RowTable(
            self.rows, Chunks(6, GROUPS, ones.flatten(), SCALES), self._of, IMAGES, lambda: self.told.append(1)
        )
        self.stand_in: Any = TokenRows(table, range(6), expanded)

    def _of(self, tokens: int) -> Tensor:
        assert tokens == TOKENS
        return self.index

    def own(self, number: int) -> Tensor:
        """A chunk of each token ``(N,L,D)``."""
        return self.rows[self.index].view(IMAGES, TOKENS, 6, WIDTH)[:, :, number]


def by_methods(x: Tensor, c: Any) -> Tensor:
    shift, scale, gate, *_ = (one.unsqueeze(1) for one in c.chunk(6, dim=1))
    return gate * (x * (1 + scale) + shift)


def by_functions(x: Tensor, c: Any) -> Tensor:
    shift, scale, gate, *_ = (torch.unsqueeze(one, 1) for one in torch.chunk(c, 6, dim=-1))
    return torch.mul(gate, torch.add(torch.mul(x, torch.add(scale, 1)), shift))


def by_an_index(x: Tensor, c: Any) -> Tensor:
    shift, scale, gate, *_ = c[:, None, :].chunk(6, dim=-1)
    return (x * (scale + 1) + shift) * gate


def in_place(x: Tensor, c: Any) -> Tensor:
    shift, scale, gate, *_ = (one.unsqueeze(1) for one in c.chunk(6, dim=1))
    scale.add_(1)
    return torch.addcmul(shift, x, scale) * gate


def in_two(x: Tensor, c: Any) -> Tensor:
    first, _ = c.chunk(2, dim=1)
    shift, scale, gate = first.chunk(3, dim=1)
    return gate.unsqueeze(1) * (shift.unsqueeze(1) + x * (scale + 1).unsqueeze(1))


@pytest.mark.parametrize("block", [by_methods, by_functions, by_an_index, in_place, in_two])
def test_a_block_modulates_every_token_by_its_own(block: Callable[[Tensor, Any], Tensor]) -> None:
    given = Given()
    expected = given.own(2) * (given.x * (1 + given.own(1)) + given.own(0))
    assert torch.allclose(block(given.x, given.stand_in), expected, rtol=1e-6, atol=1e-6)
    assert given.told == [1], "one modulation was applied"


def test_what_is_large_is_gathered_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as large as the tokens."""
    gathered, widths = RowTable.gathered, []
    monkeypatch.setattr(
        RowTable, "gathered", lambda self, rows, count: (widths.append(rows.shape[-1]), gathered(self, rows, count))[1]
    )
    given = Given()
    shift, scale, gate, *_ = (one.unsqueeze(1) for one in given.stand_in.chunk(6, dim=1))
    _ = gate * (given.x * (1 + scale) + shift)
    assert widths == ([6 * WIDTH] if token_rows.AT_ONCE else [2 * WIDTH, 3 * WIDTH])


def test_the_second_half_of_a_block_has_chunks_of_its_own() -> None:
    given = Given(expanded=True)
    *_, shift, scale, gate = given.stand_in.chunk(6, dim=2)
    expected = given.own(5) * (given.x * (1 + given.own(4)) + given.own(3))
    assert torch.allclose(gate * (given.x * (1 + scale) + shift), expected, rtol=1e-6, atol=1e-6)


def test_a_chunk_that_is_used_twice_and_a_scale_as_it_is() -> None:
    given = Given()
    shift, scale, gate, *_ = (one.unsqueeze(1) for one in given.stand_in.chunk(6, dim=1))
    for _ in range(2):
        assert torch.equal(given.x + shift, given.x + given.own(0))
        assert torch.equal(given.x * scale, given.x * given.own(1))
        assert torch.equal(gate * given.x, given.own(2) * given.x)
    assert torch.allclose(given.x * scale.tanh(), given.x * given.own(1).tanh())


def test_it_looks_like_what_it_stands_for() -> None:
    given = Given()
    shift = given.stand_in.chunk(6, dim=1)[0]
    assert shift.shape == (IMAGES, WIDTH) and shift.unsqueeze(1).shape == (IMAGES, 1, WIDTH)
    assert (shift.ndim, shift.unsqueeze(1).ndim, len(shift)) == (2, 3, IMAGES)
    assert given.stand_in.shape == (IMAGES, 6 * WIDTH) and shift.dtype == torch.float32
    assert shift.to(torch.float64).dtype == torch.float64 and shift.to(torch.float32) is shift


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.chunk(2, dim=0),
        lambda c: torch.chunk(c, 2),
        lambda c: c.chunk(4, dim=1),
        lambda c: torch.split(c, 2, dim=1),
        lambda c: c[0],
        lambda c: c + torch.zeros(IMAGES, 6 * WIDTH),
    ],
)
def test_what_is_not_known_is_an_error(use: Callable[[Any], Any]) -> None:
    with pytest.raises(RuntimeError, match="uses its modulation in a way that AsynDM does not know"):
        use(Given().stand_in)
