"""Tiny Z-Image, Lumina 2, FLUX.2 Klein, Anima and Qwen-Image for Forge Neo, from its own classes.

Sizes are those of ``forge_tiny_extension``, which lets Neo load the result.
"""

from __future__ import annotations

import json
import math
import re
import sys
import zlib
from pathlib import Path

EXTENSION = Path(__file__).resolve().parent / "forge_tiny_extension"
SEED = 20261126

# First match wins: (pattern of the name, factor on the variance-preserving standard deviation). Attention is peaked,
# so that it differs from place to place, and the step matters.
GAINS = [
    (r"embed_tokens\.weight|llm_adapter\.embed\.weight", 1.0),
    (r"(t_embedder|time_in|timestep_embedder)\..*weight", 2.0),
    (r"adaLN_modulation\.\d\.weight|adaln_modulation\w*\.\d\.weight|_mod\.1\.weight|modulation_?\w*\.lin\.weight", 0.7),
    (r"(decoder\.conv_out|decoder\.head\.2)\.weight", 0.6),
]
SHARP = re.compile(r"(q_norm|k_norm|query_norm|key_norm|norm_q|norm_k|norm_added_k)\.(weight|scale)")
SLOW_CLOCKS = {
    "tiny-lumina2": r"t_embedder\.mlp\.0\.weight",
    "tiny-anima": r"(t_embedder\.1\.linear_1|adaln_\w*\.1)\.weight",
}
"""What looks at a clock that goes from 0 to 1 only, and has to see little."""
WAVES = ("t_embedder.mlp.0.weight", "time_in.in_layer.weight", "timestep_embedder.linear_1.weight")
NAMES = tuple(json.loads((EXTENSION / "neo_sizes.json").read_text(encoding="utf-8"))["networks"])


def _tiny():
    sys.path.insert(0, str(EXTENSION))
    from asyndm_tiny import neo_models

    if not hasattr(neo_models, "shrunk"):
        neo_models.shrink_language_models()
        neo_models.shrunk = True
    return neo_models


def network(name: str, sizes: dict):
    """The transformer."""
    if name in ("tiny-zimage", "tiny-lumina2"):
        from backend.nn.lumina import NextDiT

        return NextDiT(**sizes)
    if name == "tiny-klein":
        from backend.nn.flux import IntegratedFluxTransformer2DModel

        return IntegratedFluxTransformer2DModel(**sizes)
    if name == "tiny-anima":
        from backend.nn.anima import Anima

        return Anima(**sizes)
    from backend.nn.qwen import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel(**sizes)


TEXT = {
    "tiny-zimage": ("Qwen3_4B", "qwen3_4b.transformer."),
    "tiny-lumina2": ("Gemma2_2B", "gemma2_2b.transformer."),
    "tiny-klein": ("Qwen3_4B", "qwen3_4b.transformer."),
    "tiny-anima": ("Qwen3_06B", "qwen3_06b.transformer."),
    "tiny-qwen-image": ("Qwen25_7BVLI", "qwen25_7b."),
}
"""The language model's class, and its place in a checkpoint."""


def autoencoder(name: str, sizes: dict):
    """Flux's, FLUX.2's, or that of video models."""
    if name in ("tiny-anima", "tiny-qwen-image"):
        from backend.nn.wan_vae import WanVAE

        return WanVAE(z_dim=16, temporal_downsample=[False, True, True], **sizes["wan_vae"])
    from backend.nn import vae

    if name == "tiny-klein":
        return vae.AutoencoderKLFlux2(latent_channels=32, **sizes["flux2_vae"])
    channels = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    return vae.IntegratedAutoencoderKL(**channels, **sizes["vae"])


def layout(name: str) -> dict:
    """Names and shapes of a whole checkpoint."""
    import torch
    from backend.operations import using_forge_operations

    tiny = _tiny()
    from backend.nn.llm import llama

    kind, place = TEXT[name]
    with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32, manual_cast_enabled=True):
        modules = {
            "model.diffusion_model.": network(name, tiny.network_sizes(name)),
            f"text_encoders.{place}": getattr(llama, kind)({}),
            "vae.": autoencoder(name, tiny.SIZES["components"]),
        }
    weights = {
        prefix + key: tensor for prefix, module in modules.items() for key, tensor in module.state_dict().items()
    }
    adapter = f"text_encoders.{place}llm_adapter."  # published with Anima's network
    return {key.replace(adapter, "model.diffusion_model.llm_adapter."): tensor for key, tensor in weights.items()}


def random_like(name: str, tensor):
    """Random values for one weight; seeded by its name, so that no weight depends on the others."""
    import torch

    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(SEED ^ zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return torch.ones(tensor.shape)
    if tensor.ndim < 2 or name.endswith(("pad_token", "gamma")):
        is_scale = name.endswith(("weight", "scale", "gamma"))
        return (1.5 if SHARP.search(name) else 1) + 0.1 * noise if is_scale else 0.05 * noise
    gain = next((factor for pattern, factor in GAINS if re.search(pattern, name)), 1.0)
    is_table = name.endswith(("embed_tokens.weight", "llm_adapter.embed.weight"))
    return noise * gain / math.sqrt(1 if is_table else math.prod(tensor.shape[1:]))


def make_weights(name: str) -> dict:
    """The whole state dict of one model, in half precision."""
    import torch

    weights = {}
    for key, tensor in layout(name).items():
        if key.endswith(("inv_freq", "num_batches_tracked")):
            continue
        weights[key] = random_like(key, tensor)
        if name in SLOW_CLOCKS and re.search(SLOW_CLOCKS[name], key):
            weights[key] *= 4
            if key.endswith("t_embedder.1.linear_1.weight"):
                # The waves that a clock from 0 to 1 moves at all.
                count = weights[key].shape[1] // 2
                weights[key][:, : count // 4] *= 6
                weights[key][:, count : count + count // 4] *= 6
        elif key.endswith(WAVES):
            # Without the fast waves of the time embedding, near steps look alike to the network, and far ones do not.
            count = weights[key].shape[1] // 2
            weights[key][:, : count * 7 // 16] = 0
            weights[key][:, count : count + count * 7 // 16] = 0
    spread = "vae.encoder.conv_out."
    if f"{spread}weight" in weights:
        half = len(weights[f"{spread}weight"]) // 2
        weights[f"{spread}weight"][half:] *= 0.1
        weights[f"{spread}bias"][half:] = -8
    return {key: weight.to(torch.float16).contiguous() for key, weight in weights.items()}
