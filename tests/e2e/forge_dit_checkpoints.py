"""Tiny diffusion transformers for Forge: SD3, SD3.5 medium, Flux and Chroma.

``tiny-sd3`` has the weights of A1111's (``sd3_checkpoints.py``) wherever the two have the same layout, and a T5 text
encoder beside them. Layouts come from Forge's own classes, sizes from ``forge_tiny_extension``.
"""

from __future__ import annotations

import math
import re
import zlib

import sd3_checkpoints
from kinds import Kind

SEED = 20260103

# First match wins: (pattern of the name, factor on the variance-preserving standard deviation). Attention is peaked,
# so that it differs from place to place, and the step matters.
GAINS = [
    (r"(img_attn|txt_attn)\.qkv\.weight|linear1\.weight", 1.5),
    (r"time_in\..*weight", 2.0),
    (r"(vector_in|guidance_in)\..*weight", 0.5),
    (r"(_mod|modulation)\.lin\.weight|adaLN_modulation\.1\.weight", 0.7),
    (r"shared\.weight", 1.0),
    (r"token_embedding\.weight", 1.0),
    (r"position_embedding\.weight", 0.3),
    (r"decoder\.conv_out\.weight", 0.6),
]


def mmdit(sizes: dict, depth: int, grid: int, **extra: object):
    """SD3's network: blocks, which are 64 channels each, and tokens a side of the position embeddings."""
    from backend.nn.mmditx import MMDiTX

    context = {"in_features": sd3_checkpoints.TEXT_CHANNELS, "out_features": 64 * depth}
    return MMDiTX(
        input_size=None,
        pos_embed_max_size=grid,
        patch_size=2,
        in_channels=16,
        depth=depth,
        num_patches=grid**2,
        adm_in_channels=2 * sizes["sd3_clip"]["hidden_size"],
        context_embedder_config={"target": "torch.nn.Linear", "params": context},
        **extra,
    )


FLUX = {"in_channels": 16, "mlp_ratio": 4.0, "theta": 10000, "qkv_bias": True}
NEO_FLUX = {**FLUX, "out_channels": 16, "patch_size": 2, "txt_ids_dims": []}
# Published files have the names of the authors' own classes, which Forge Neo renames when it loads them.
NEO_NAMES = (re.compile(r"((query|key)_norm|distilled_guidance_layer\.norms\.\d+)\.weight$"), r"\1.scale")


def flux(kind: Kind, sizes: dict):
    """Flux.1 dev's network."""
    from backend.nn.flux import IntegratedFluxTransformer2DModel

    shape = NEO_FLUX if kind.name == "neo" else FLUX
    return IntegratedFluxTransformer2DModel(**shape, **sizes["flux"], guidance_embed=True)


def chroma(kind: Kind, sizes: dict):
    """Chroma's network: Flux's, with all modulations made at one place."""
    from backend.nn.chroma import IntegratedChromaTransformer2DModel

    shape = {**NEO_FLUX, **sizes["flux"], **sizes["neo_chroma"]}
    if kind.name != "neo":
        shape = {**FLUX, **sizes["flux"], **sizes["chroma"]}
    return IntegratedChromaTransformer2DModel(**shape)


def clip(shape: dict, projection: bool):
    """A CLIP text encoder."""
    from backend.nn.clip import IntegratedCLIP
    from transformers import CLIPTextConfig, CLIPTextModel

    return IntegratedCLIP(CLIPTextModel, CLIPTextConfig(**shape), add_text_projection=projection)


def t5(shape: dict):
    """A T5 text encoder with the whole vocabulary."""
    from backend.nn.t5 import IntegratedT5

    kind = {"model_type": "t5", "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True}
    rest = {"layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32, "vocab_size": 32128}
    return IntegratedT5({**kind, **rest, **shape})


def autoencoder(shape: dict):
    """An autoencoder of 16 channels."""
    from backend.nn.vae import IntegratedAutoencoderKL

    return IntegratedAutoencoderKL(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, **shape)


def layout(kind: Kind, name: str, sizes: dict) -> dict:
    """Names and shapes of a whole checkpoint."""
    parts, text = sizes["components"], "text_encoders."
    if name in ("tiny-sd3", "tiny-sd35"):
        # SD3.5 medium: the image attends to itself once more (Forge tells by the size of the position embeddings), and
        # queries and keys are normalised.
        is_medium = name == "tiny-sd35"
        shape = (2, 384, {"qk_norm": "rms"}) if is_medium else (sd3_checkpoints.DEPTH, sd3_checkpoints.GRID, {})
        modules = {
            "model.diffusion_model.": mmdit(parts, *shape[:2], **shape[2]),
            "first_stage_model.": autoencoder(parts["sd3_vae"]),
            f"{text}clip_l.": clip(parts["sd3_clip"], True),
            f"{text}clip_g.": clip(parts["sd3_clip"], True),
        }
    elif name == "tiny-flux":
        modules = {
            "model.diffusion_model.": flux(kind, sizes),
            "vae.": autoencoder(parts["vae"]),
            f"{text}clip_l.": clip(parts["clip"], False),
        }
    else:
        modules = {"model.diffusion_model.": chroma(kind, sizes), "vae.": autoencoder(parts["vae"])}
    modules[f"{text}t5xxl."] = t5(parts["t5"])
    weights = {
        prefix + key: weight for prefix, module in modules.items() for key, weight in module.state_dict().items()
    }
    return {re.sub(*NEO_NAMES, key) if kind.name == "neo" else key: weight for key, weight in weights.items()}


def random_like(name: str, tensor):
    """Random values for one weight; seeded by its name, so that no weight depends on the others."""
    import torch

    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(SEED ^ zlib.crc32(name.encode())))
    if tensor.ndim < 2:
        is_scale = name.endswith(("weight", "scale"))
        return 1 + 0.1 * noise if is_scale else 0.05 * noise
    gain = next((factor for pattern, factor in GAINS if re.search(pattern, name)), 1.0)
    is_table = "embedding" in name or "shared.weight" in name
    return noise * gain / math.sqrt(1 if is_table else math.prod(tensor.shape[1:]))


def make_weights(kind: Kind, name: str, sizes: dict) -> dict:
    """The whole state dict of one model, in half precision."""
    import torch

    names = layout(kind, name, sizes)
    if name in ("tiny-sd3", "tiny-sd35"):
        # Its emphasis divides by what these would make 0.
        return sd3_checkpoints.make_weights(names)
    weights = {key: random_like(key, tensor) for key, tensor in names.items()}
    if name == "tiny-flux":
        # Without the fast waves of the time embedding, near steps look alike to the network, and far ones do not.
        waves = weights["model.diffusion_model.time_in.in_layer.weight"]
        count = waves.shape[1] // 2
        waves[:, : count * 7 // 16] = 0
        waves[:, count : count + count * 7 // 16] = 0
    weights["vae.encoder.conv_out.weight"][16:] *= 0.1
    weights["vae.encoder.conv_out.bias"][16:] = -8
    return {key: weight.to(torch.float16).contiguous() for key, weight in weights.items()}
