"""Run in a WebUI's own Python, in its folder: AsynDM's hooks on the WebUI's own classes of networks.

Each class is made small, with random weights, and asked for a picture whose tokens have timesteps of their own. The
same is computed the naive way: the class's own code is given a modulation for every token, instead of one for all. And
the attention to the text is compared with explicit softmax of the queries and keys that the class attends with.

Prints a line of JSON for each network: relative differences, and how much a map changes the picture at all. And one of
those that are not supported: what is said of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path.cwd()), str(Path.cwd() / "modules_forge" / "packages"), str(REPOSITORY)]
sys.argv = [sys.argv[0], "--cpu", "--use-pytorch-cross-attention"]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

NOMINAL, LEVELS = 0.5, (0.15, 0.62, 0.875)
SIZE, TEXT = (10, 14), 7
OBJECTS = [[2], [3, 5]]


class PerToken(Tensor):
    """A modulation ``(N, ..., D)`` of every token in a place where the class expects ``(N, D)``, one for all tokens:
    giving it a dimension of tokens leaves it as it is, and its chunks are those of the last dimension."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        def plain(x: Any) -> Any:
            return x.as_subclass(Tensor) if isinstance(x, PerToken) else x

        name, first = getattr(func, "__name__", ""), plain(args[0])
        if name == "chunk":
            return [part.as_subclass(cls) for part in first.chunk(args[1], dim=-1)]
        if name == "unsqueeze" or (name == "__getitem__" and None in args[1]):
            return first
        if name == "__getitem__":
            return first[..., args[1][-1]]
        if name in ("add", "__radd__"):
            return (first + plain(args[1])).as_subclass(cls)
        return func(*map(plain, args), **{key: plain(value) for key, value in (kwargs or {}).items()})


def per_token(x: Tensor) -> Tensor:
    return x.as_subclass(PerToken)


@contextmanager
def answers(module: nn.Module, answer: Callable[..., Any]) -> Iterator[None]:
    """The module answers with this; it is given the module's own function first."""
    own = module.forward
    with mock.patch.object(module, "forward", lambda *args, **kwargs: answer(own, *args, **kwargs)):
        yield


@dataclass
class Network:
    """One of the host's, tiny.

    Attributes:
        net, call: the network, and how a host calls it with ``x, sigma, text``.
        source: the module of its class, whose attention is watched.
        naive: makes the class compute with the timesteps ``(N, L)`` of the picture's tokens, which so many others
            follow.
        keys: how many keys its attentions to the text have; text: how many queries are before the picture's.
        modulations: how many modulations of the picture's tokens it has.
        references: the batch of a reference picture, for a batch of two; 0 where the network takes none.
    """

    net: Any
    source: Any
    naive: Callable[[Any, Tensor, int], AbstractContextManager[None]]
    keys: int
    modulations: int
    text: int = TEXT
    patch: int = 2
    frames: bool = False
    references: int = 0

    def __call__(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        x = x.unsqueeze(2) if self.frames else x
        text = text.unsqueeze(1) if self.text == 0 else text  # as the host has it for a cross-attention
        out = self.net(x, sigma, text, transformer_options={})
        return out[:, :, 0] if self.frames else out


def padded(tokens: Tensor, length: int) -> Tensor:
    """Timesteps of the picture's tokens, and of what follows them."""
    rest = torch.full((len(tokens), length - tokens.shape[1]), NOMINAL)
    return torch.cat([tokens, rest], dim=1)


def with_text(tokens: Tensor, text: int, length: int) -> Tensor:
    return torch.cat([torch.full((len(tokens), text), NOMINAL), padded(tokens, length - text)], dim=1)


# -- Z-Image, Lumina 2


def nextdit(z_image: bool) -> Network:
    from backend.nn import lumina

    net = lumina.NextDiT(
        in_channels=4,
        dim=256,
        n_layers=2,
        n_heads=16,
        n_kv_heads=16 if z_image else 8,
        multiple_of=8,
        ffn_dim_multiplier=2.0,
        qk_norm=True,
        cap_feat_dim=12,
        axes_dims=[4, 6, 6],
        z_image_modulation=z_image,
        time_scale=1000.0 if z_image else 1.0,
        pad_tokens_multiple=32 if z_image else None,
    )
    tokens, text = SIZE[0] // 2 * SIZE[1] // 2, 32 if z_image else TEXT
    length = 64 if z_image else tokens
    return Network(net, lumina, naive_nextdit, keys=text + length, modulations=5, text=text)


@contextmanager
def naive_nextdit(net: Any, tokens: Tensor, others: int) -> Iterator[None]:
    from backend.nn import lumina

    def vectors(t: Tensor) -> Tensor:
        wave = lumina.timestep_embedding((1.0 - t.flatten()) * net.time_scale, net.t_embedder.frequency_embedding_size)
        return net.t_embedder.mlp(wave).unflatten(0, t.shape)

    length = 64 if net.pad_tokens_multiple else tokens.shape[1]
    text = 32 if net.pad_tokens_multiple else TEXT
    image, every = vectors(padded(tokens, length)), vectors(with_text(tokens, text, text + length))
    with ExitStack() as stack:
        for blocks, c in ((net.noise_refiner, image), (net.layers, every), ([net.final_layer], every)):
            for block in blocks:
                modulation = block.adaLN_modulation
                stack.enter_context(answers(modulation, lambda own, _, c=c: per_token(own(c))))
        yield


# -- FLUX.2


def flux2() -> Network:
    from backend.nn import flux

    net = flux.IntegratedFluxTransformer2DModel(
        in_channels=4,
        out_channels=4,
        vec_in_dim=None,
        context_in_dim=12,
        hidden_size=32,
        mlp_ratio=3.0,
        num_heads=2,
        depth=2,
        depth_single_blocks=2,
        axes_dim=[4, 4, 4, 4],
        theta=2000,
        patch_size=1,
        qkv_bias=False,
        guidance_embed=False,
        txt_ids_dims=[3],
        global_modulation=True,
        mlp_silu_act=True,
        ops_bias=False,
        default_ref_method="index",
        ref_index_scale=10.0,
    )
    tokens = SIZE[0] * SIZE[1]
    return Network(net, flux, naive_flux2, keys=TEXT + tokens, modulations=3, patch=1, references=1)


@contextmanager
def naive_flux2(net: Any, tokens: Tensor, others: int) -> Iterator[None]:
    from backend.nn import flux

    def vectors(t: Tensor) -> Tensor:
        return net.time_in(flux.timestep_embedding(t.flatten(), 256)).unflatten(0, t.shape)

    length = tokens.shape[1] + others
    image, every = vectors(padded(tokens, length)), vectors(with_text(tokens, TEXT, TEXT + length))
    with (
        answers(net.double_stream_modulation_img, lambda own, _: own(image)),
        answers(net.single_stream_modulation, lambda own, _: own(every)),
        answers(net.final_layer, lambda own, x, _: own(x, image)),
    ):
        yield


# -- Qwen-Image


def qwen_image() -> Network:
    from backend.nn import qwen

    net = qwen.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(4, 6, 6),
    )
    tokens = SIZE[0] // 2 * SIZE[1] // 2
    return Network(net, qwen, naive_qwen_image, keys=TEXT + tokens, modulations=4, frames=True, references=2)


@contextmanager
def naive_qwen_image(net: Any, tokens: Tensor, others: int) -> Iterator[None]:
    t = padded(tokens, tokens.shape[1] + others)
    vectors = net.time_text_embed(t.flatten(), torch.zeros(1)).unflatten(0, t.shape)
    with ExitStack() as stack:
        for block in net.transformer_blocks:
            stack.enter_context(answers(block.img_mod, lambda own, _: per_token(own(vectors))))
        stack.enter_context(answers(net.norm_out.linear, lambda own, _: per_token(own(net.norm_out.silu(vectors)))))
        yield


# -- Anima


def anima() -> Network:
    from backend.nn import anima as source

    net = source.Anima(
        in_channels=4,
        out_channels=4,
        patch_spatial=2,
        patch_temporal=1,
        model_channels=48,
        crossattn_emb_channels=12,
        adaln_lora_dim=8,
        num_blocks=2,
        num_heads=2,
        rope_h_extrapolation_ratio=4.0,
        rope_w_extrapolation_ratio=4.0,
    )
    return Network(net, source, naive_anima, keys=TEXT, modulations=7, text=0, frames=True, references=1)


@contextmanager
def naive_anima(net: Any, tokens: Tensor, others: int) -> Iterator[None]:
    from backend.nn import anima as source

    h, w = SIZE[0] // 2, SIZE[1] // 2
    wave, added = net.t_embedder[1](net.t_embedder[0](padded(tokens, tokens.shape[1] + others)))
    wave, added = (x.unflatten(1, (-1, h, w)) for x in (wave, added))
    rearrange = source.rearrange

    def kept(x: Any, pattern: str, **axes: int) -> Any:
        return x if pattern == "b t d -> b t 1 1 d" else rearrange(x, pattern, **axes)

    with (
        answers(net.t_embedder[1], lambda own, _: (wave, per_token(added))),
        mock.patch.object(source, "rearrange", kept),
    ):
        yield


NETWORKS: dict[str, Callable[[], Network]] = {
    "Z-Image": lambda: nextdit(z_image=True),
    "Lumina 2": lambda: nextdit(z_image=False),
    "FLUX.2 Klein": flux2,
    "Qwen-Image": qwen_image,
    "Anima": anima,
}


@contextmanager
def explicit(network: Network, log: list[Tensor]) -> Iterator[None]:
    """The class attends by softmax spelt out in float64; the probabilities ``(N, heads, L, S)`` of the attentions to
    the text are logged."""

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, **how: Any) -> Tensor:
        assert mask is None
        if not how.get("skip_reshape"):
            q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        weights = (q.double() @ k.double().transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        if k.shape[2] == network.keys:
            log.append(weights)
        return (weights @ v.double()).to(v.dtype).transpose(1, 2).flatten(2)

    with mock.patch.object(network.source, "attention_function", attend):
        yield


@contextmanager
def shown(network: Network, reference: bool) -> Iterator[None]:
    """With a reference picture beside the one that is drawn."""
    from backend.args import dynamic_args

    latent = torch.randn(network.references, 4, *SIZE)
    pictures = [latent.unsqueeze(2) if network.frames else latent] if reference else []
    with mock.patch.object(dynamic_args, "ref_latents", pictures):
        yield


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def check(make: Callable[[], Network]) -> dict[str, float]:
    from asyndm_ext.model.attention import TokenRow
    from asyndm_ext.model.network import attention_capture, time_conditioning
    from asyndm_ext.model.timesteps import TimestepTable

    torch.manual_seed(0)
    network = make()
    for name, weight in network.net.named_parameters():
        draw = torch.randn_like(weight)
        weight.data = 1.5 + 0.5 * draw if "norm" in name else draw * (1.5 * weight.shape[-1] ** -0.5)
    net = network.net.eval().requires_grad_(False)
    x, text = torch.randn(2, 4, *SIZE), torch.randn(2, TEXT, 12)
    levels = torch.tensor(LEVELS, dtype=torch.float64)[torch.randint(0, 3, (2, 1, *SIZE))]
    nominal = torch.full((2,), NOMINAL)
    step = network.patch
    tokens = levels[:, 0, ::step, ::step].flatten(1).float()
    plain = network(x, nominal, text)

    def conditioned(reference: bool) -> tuple[float, float]:
        """How far the hooks are from the naive way, and how far that is from a picture without a map."""
        hooks = time_conditioning(net)
        with shown(network, reference):
            without = network(x, nominal, text)
            with hooks.attached():
                hooks.use(TimestepTable.from_map(1000 * levels, 0.25).to(x.device), [0, 1])
                found = network(x, nominal, text)
                assert hooks.calls == network.modulations
            with network.naive(net, tokens, tokens.shape[1] if reference else 0):
                expected = network(x, nominal, text)
        return difference(found, expected), difference(expected, without)

    grid = SIZE[0] // step, SIZE[1] // step
    capture, log = attention_capture(net, len(OBJECTS), 1), []
    with explicit(network, log):
        network(x, nominal, text)
    picture = slice(network.text, network.text + grid[0] * grid[1])
    exact = torch.stack(
        [torch.stack([layer[1, :, picture, own].mean(dim=(0, -1)) for layer in log]).mean(dim=0) for own in OBJECTS]
    ).view(1, len(OBJECTS), *grid)

    def captured(torchs: bool) -> Tensor:
        with capture.attached(), ExitStack() as stack:
            if not torchs:
                stack.enter_context(explicit(network, []))
            capture.begin(SIZE)
            capture.read([None, TokenRow(0, OBJECTS)])
            assert difference(network(x, nominal, text), plain) < 1e-5
            return capture.maps()

    by_sum = captured(torchs=True)
    assert not capture._second, "torch's attention did not tell its sum"
    conditioning, effect = conditioned(reference=False)
    return {
        "conditioning": conditioning,
        "a map does": effect,
        "conditioning, with a reference": conditioned(reference=True)[0] if network.references else 0.0,
        "attention": difference(by_sum, exact),
        "attention, not torch's": difference(captured(torchs=False), exact),
        "attention varies": float((exact.amax((-2, -1)) / exact.amin((-2, -1))).min()),
        "afterwards": difference(network(x, nominal, text), plain),
    }


def wan() -> nn.Module:
    from backend.nn import wan as source

    return source.WanModel(dim=48, ffn_dim=48, freq_dim=16, text_dim=12, in_dim=4, out_dim=4, num_heads=2, num_layers=2)


def krea2() -> nn.Module:
    from backend.nn import krea as source

    sizes = {"features": 64, "tdim": 16, "txtdim": 12, "heads": 4, "kvheads": 2, "layers": 2, "channels": 4}
    return source.SingleStreamDiT(**sizes, txtlayers=2, txtheads=2, txtkvheads=2)


def ernie() -> nn.Module:
    from backend.nn import ernie as source

    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 64}
    return source.ErnieImageModel(**sizes, in_channels=4, out_channels=4, text_in_dim=12, rope_axes_dim=(8, 12, 12))


UNSUPPORTED: dict[str, Callable[[], nn.Module]] = {"Wan": wan, "Krea 2": krea2, "Ernie": ernie}


def said_of(net: nn.Module) -> str:
    """Why there are no hooks for it; empty where there are."""
    from asyndm_ext.model.network import time_conditioning
    from asyndm_ext.model.unet_time import UnsupportedModel

    try:
        time_conditioning(net)
    except UnsupportedModel as reason:
        return str(reason)
    return ""


if __name__ == "__main__":
    with torch.inference_mode(False), torch.no_grad():
        for name, make in NETWORKS.items():
            print(json.dumps({name: check(make)}), flush=True)
        print(json.dumps({"not supported": {name: said_of(make()) for name, make in UNSUPPORTED.items()}}), flush=True)
