"""Another extension that calls a cross-attention several times, with parts of the text and of the batch (as Regional
Prompter's Attention mode does): what each call really got is what is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asyndm_ext.model.attention import CrossAttentionCapture, TokenRow
from asyndm_ext.model.text_part import Place, column_keys, columns_of

CHUNK, TEXT, SIDE, HEADS, WIDTH = 5, 12, 4, 2, 8
LAYERS = 2


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class CrossAttention(nn.Module):
    """As latent diffusion has it."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.scale = HEADS, (WIDTH // HEADS) ** -0.5
        self.to_q, self.to_k, self.to_v = (nn.Linear(n, WIDTH, bias=False) for n in (WIDTH, TEXT, TEXT))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        return probabilities(q, k).mean(dim=1) @ v


class Network(nn.Module):
    """A few layers of it on a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"attn2": CrossAttention()}) for _ in range(LAYERS)])

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer["attn2"](x, context=context)
        return x


def probabilities(q: Tensor, k: Tensor) -> Tensor:
    """``(N, heads, L, T)``."""
    q, k = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k))
    return (q @ k.transpose(2, 3) * (WIDTH // HEADS) ** -0.5).softmax(dim=-1)


@pytest.fixture
def net() -> Network:
    torch.manual_seed(4)
    made = Network().requires_grad_(False)
    for weight in made.parameters():
        weight.data *= 3  # random weights attend to everything alike, which no test could tell apart
    return made


def text(rows: int, chunks: int) -> Tensor:
    """Every chunk begins with the same column, every row is another text."""
    made = normal(rows, chunks * CHUNK, TEXT, seed=7)
    made[:, ::CHUNK] = normal(TEXT, seed=8)
    return made


Call = Callable[[CrossAttention, Tensor, Tensor], Tensor]


def regional(module: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """Every region's chunk by itself, of a copy; the sum of the answers."""
    contexts = context.clone()
    parts = contexts.split(CHUNK, dim=1)
    return torch.stack([CrossAttention.forward(module, x, part) for part in parts]).sum(dim=0)


def of_halves(module: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """The rows with the prompt and those without one after the other, the negative prompt whole."""
    (px, nx), (pc, nc) = x.chunk(2), context.clone().chunk(2)
    return torch.cat([regional(module, px, pc), CrossAttention.forward(module, nx, nc)])


def with_something_behind(module: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """A control net's columns come last, and go to every region."""
    contexts = context.clone()
    body, behind = contexts[:, :-2], contexts[:, -2:]
    parts = [torch.cat([part, behind], dim=1) for part in body.split(CHUNK, dim=1)]
    return torch.stack([CrossAttention.forward(module, x, part) for part in parts]).sum(dim=0)


@contextmanager
def replaced(net: Network, call: Call) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
    """Other forwards in the place of the layers', as extensions put them there; what their projections really got."""
    log: list[tuple[int, Tensor, Tensor]] = []
    modules = [layer["attn2"] for layer in net.layers]
    for number, module in enumerate(modules):
        module.forward = lambda x, context, module=module: call(module, x, context)
        module.to_k.register_forward_hook(
            lambda m, args, k, number=number, module=module: log.append((number, module.seen, k))
        )
        module.to_q.register_forward_hook(lambda m, args, q, module=module: vars(module).update(seen=q))
    try:
        yield log
    finally:
        for module in modules:
            del module.forward


def captured(net: Network, context: Tensor, rows: Sequence[TokenRow | None], objects: int) -> Tensor | None:
    images = 1 + max(row.image for row in rows if row is not None)
    capture = CrossAttentionCapture(net, objects, images)
    with capture.attached():
        capture.begin((4 * SIDE, 4 * SIDE))
        capture.read(rows)
        net(normal(len(rows), SIDE * SIDE, WIDTH, seed=1), torch.tensor(3.0), context=context)
        return capture.maps()


def mean_of(found: list[Tensor]) -> Tensor:
    return torch.stack(found).mean(dim=0).view(SIDE, SIDE)


def test_the_call_that_has_an_objects_chunk_is_read(net: Network) -> None:
    """Two objects in two chunks: column 7 of the text is column 2 of what the second call gets."""
    rows = [TokenRow(0, [[3], [7]]), None]
    with replaced(net, regional) as log:
        maps = captured(net, text(2, 2), rows, 2)
    assert len(log) == 2 * LAYERS and maps is not None
    first, second = (
        mean_of([probabilities(q, k)[0].mean(dim=0)[:, column] for _, q, k in log[call::2]])
        for call, column in ((0, 3), (1, 2))
    )
    torch.testing.assert_close(maps[0], torch.stack([first, second]))
    assert (first - second).abs().max() > 0.05


def test_an_object_in_several_chunks_is_the_mean_over_their_calls(net: Network) -> None:
    with replaced(net, regional) as log:
        maps = captured(net, text(1, 3), [TokenRow(0, [[1, 12]])], 1)
    assert maps is not None
    found = [probabilities(q, k)[0].mean(dim=0) for _, q, k in log]
    expected = mean_of([found[0][:, 1], found[2][:, 2], found[3][:, 1], found[5][:, 2]])
    torch.testing.assert_close(maps[0, 0], expected)


def test_halves_of_the_batch_are_told_apart(net: Network) -> None:
    """Two images, rows with the prompt first."""
    rows = [TokenRow(0, [[3]]), TokenRow(1, [[7]]), None, None]
    with replaced(net, of_halves) as log:
        maps = captured(net, text(4, 2), rows, 1)
    assert maps is not None and len(log) == 3 * LAYERS
    expected = [
        mean_of([probabilities(q, k)[image].mean(dim=0)[:, column] for _, q, k in log[call::3]])
        for image, call, column in ((0, 0, 3), (1, 1, 2))
    ]
    torch.testing.assert_close(maps[:, 0], torch.stack(expected))


def test_the_half_without_the_prompt_is_not_taken_for_the_other(net: Network) -> None:
    """The negative prompt's rows come first here."""
    rows = [None, None, TokenRow(0, [[3]]), TokenRow(1, [[4]])]
    with replaced(net, of_halves) as log:
        maps = captured(net, text(4, 2), rows, 1)
    assert maps is not None
    expected = [mean_of([probabilities(q, k)[i].mean(dim=0)[:, 3 + i] for _, q, k in log[2::3]]) for i in (0, 1)]
    torch.testing.assert_close(maps[:, 0], torch.stack(expected))


def test_a_part_with_more_behind_it_is_recognised(net: Network) -> None:
    context = torch.cat([text(1, 2), normal(1, 2, TEXT, seed=9)], dim=1)
    with replaced(net, with_something_behind) as log:
        maps = captured(net, context, [TokenRow(0, [[8]])], 1)
    assert maps is not None
    expected = mean_of([probabilities(q, k)[0].mean(dim=0)[:, 3] for _, q, k in log[1::2]])
    torch.testing.assert_close(maps[0, 0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_part_in_another_precision(net: Network, dtype: torch.dtype) -> None:
    def call(module: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
        module.to_k.to(dtype), module.to_v.to(dtype)
        return regional(module, x, context.to(dtype).contiguous()).float()

    def attend(module: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
        return probabilities(module.to_q(x), module.to_k(context).float()).mean(dim=1) @ module.to_v(context).float()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CrossAttention, "forward", attend)
        with replaced(net, call) as log:
            maps = captured(net, text(1, 2), [TokenRow(0, [[7]])], 1)
    assert maps is not None
    expected = mean_of([probabilities(q, k.float())[0].mean(dim=0)[:, 2] for _, q, k in log[1::2]])
    torch.testing.assert_close(maps[0, 0], expected)


def foreign(module: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """A text of its own, which is no part of the prompt's."""
    return CrossAttention.forward(module, x, normal(len(x), 3, TEXT, seed=20))


def shortened(module: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """The first chunk only."""
    return CrossAttention.forward(module, x, context[:, :CHUNK].clone())


@pytest.mark.parametrize("call", [foreign, shortened])
def test_where_the_objects_columns_are_nowhere_nothing_is_read(net: Network, call: Call) -> None:
    with replaced(net, call):
        assert captured(net, text(2, 2), [TokenRow(0, [[CHUNK + 2]]), None], 1) is None


def test_columns_beyond_the_text_are_no_index_error(net: Network) -> None:
    assert captured(net, text(1, 1), [TokenRow(0, [[CHUNK + 2]])], 1) is None


def test_a_text_without_any_of_the_objects_has_been_read(net: Network) -> None:
    """Prompt editing brings them later."""
    maps = captured(net, text(1, 1), [TokenRow(0, [[], []])], 2)
    assert maps is not None and float(maps.abs().max()) == 0


# -- the parts themselves


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("^ab", [0, 1, 2]),
        ("^cd", [3, 4, 5]),
        ("cd", [4, 5]),
        ("^cdz", [3, 4, 5, 9]),
        ("^abz", [0, 1, 2, 9]),
        ("^xd", [0, None, 5]),
        ("q", [None]),
        ("", []),
    ],
)
def test_columns_of_a_part(part: str, expected: list[int | None]) -> None:
    whole = [letter.encode() for letter in "^ab^cd^efz"]
    assert columns_of([letter.encode() for letter in part], whole) == expected


def test_keys_tell_columns_apart() -> None:
    columns = normal(4, TEXT, seed=3).bfloat16()
    columns[2] = columns[0]
    keys = column_keys(columns)
    assert keys[0] == keys[2] and len(set(keys)) == 3


def test_rows_cut_out_of_a_batch() -> None:
    x = normal(6, 3, 4, seed=1)
    place = Place.of(x)
    assert [place.first_of(part) for part in (*x.chunk(3), x, x[5:], x[1:3])] == [0, 2, 4, 0, 5, 1]
    others: list[Any] = [x.clone()[:2], x[:, 1:], x[:, :, :2], x[::2], x.double()[:1], x.unsqueeze(0)]
    assert [place.first_of(other) for other in others] == [None] * len(others)
