"""``tiny-sd3``: SD3's layout for A1111, with the sizes of ``tiny_models_extension/sd3_sizes.json``.

The WebUI recognises SD3 by its weights and needs no config beside the file. Layouts come from the classes that it
will run; of what those import, only a table of embeddings is of interest here.
"""

from __future__ import annotations

import json
import math
import re
import sys
import types
import zlib
from pathlib import Path

SEED = 20260102
SIZES = json.loads((Path(__file__).parent / "tiny_models_extension" / "sd3_sizes.json").read_text(encoding="utf-8"))
DEPTH = 3  # the WebUI makes it 64 channels and one head per block
GRID = 64  # of position embeddings, tokens a side: pictures up to 1024 pixels
TEXT_CHANNELS = SIZES["text_channels"]  # hard-coded in the WebUI

# First match wins: (pattern of the name, factor on the variance-preserving standard deviation). Attention is peaked,
# so that it differs from place to place, and the step matters.
GAINS = [
    (r"joint_blocks\..*attn\.qkv\.weight", 1.5),
    (r"diffusion_model\.t_embedder\..*weight", 2.0),
    (r"diffusion_model\.y_embedder\..*weight", 0.5),
    (r"adaLN_modulation\.1\.weight", 0.7),
    (r"pos_embed", 0.3),
    (r"token_embedding\.weight", 1.0),
    (r"position_embedding\.weight", 0.3),
    (r"first_stage_model\.decoder\.conv_out\.weight", 0.6),
]


def write_t5_tokenizer(folder: Path) -> None:
    """A tokenizer in transformers' format that knows some syllables and all letters."""
    import tokenizers

    pieces = ["<pad>", "</s>", "<unk>", "▁", *(chr(letter) for letter in range(33, 127))]
    pieces += [f"▁{word}" for word in ("a", "and", "the", "cat", "dog", "red", "blue", "eating", "with", "of")]
    scores = [(piece, 0.0 if piece[0] == "<" else -12.0 + 2 * len(piece)) for piece in pieces]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(scores, 2))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 512}
    config.update(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def skeleton(webui: Path) -> dict:
    """All weights of the model under the names of a full checkpoint file, from the WebUI's own classes."""
    import torch

    sys.path.insert(0, str(webui))
    hijack = types.ModuleType("modules.sd_hijack")
    hijack.TextualInversionEmbeddings = lambda count, width, textual_inversion_key=None, **kwargs: torch.nn.Embedding(
        count, width, **kwargs
    )
    import modules

    sys.modules["modules.sd_hijack"] = modules.sd_hijack = hijack
    from modules.models.sd3 import other_impls, sd3_impls
    from modules.models.sd3.mmdit import MMDiT

    widths = SIZES["clip_l"]["hidden_size"] + SIZES["clip_g"]["hidden_size"]
    context = {"in_features": TEXT_CHANNELS, "out_features": 64 * DEPTH}
    with torch.no_grad():
        parts = {
            "model.diffusion_model": MMDiT(
                input_size=None,
                pos_embed_max_size=GRID,
                patch_size=2,
                in_channels=16,
                depth=DEPTH,
                num_patches=GRID**2,
                adm_in_channels=widths,
                context_embedder_config={"target": "torch.nn.Linear", "params": context},
            ),
            "first_stage_model.encoder": sd3_impls.VAEEncoder(**SIZES["vae"]),
            "first_stage_model.decoder": sd3_impls.VAEDecoder(**SIZES["vae"]),
            "text_encoders.clip_l.transformer": other_impls.CLIPTextModel(
                {"hidden_act": "quick_gelu", **SIZES["clip_l"]}, torch.float32, "cpu"
            ),
            "text_encoders.clip_g.transformer": other_impls.CLIPTextModel(
                {"hidden_act": "gelu", **SIZES["clip_g"]}, torch.float32, "cpu"
            ),
            "text_encoders.t5xxl.transformer": other_impls.T5(SIZES["t5"], torch.float32, "cpu"),
        }
    return {f"{prefix}.{name}": weight for prefix, part in parts.items() for name, weight in part.state_dict().items()}


def random_like(name: str, tensor):
    """Random values for one weight; seeded by its name, so that no weight depends on the others."""
    import torch

    generator = torch.Generator().manual_seed(SEED ^ zlib.crc32(name.encode()))
    noise = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim < 2:
        is_scale = name.endswith("weight")
        if name.startswith("text_encoders"):
            # The WebUI divides by the mean of the text encoder's output when it applies emphasis: keep it off zero.
            return 1 + 0.2 * noise if is_scale else 0.2 + 0.1 * noise
        return 1 + 0.1 * noise if is_scale else 0.05 * noise
    gain = next((factor for pattern, factor in GAINS if re.search(pattern, name)), 1.0)
    fan_in = 1 if "embedding" in name or "pos_embed" in name else math.prod(tensor.shape[1:])
    return noise * gain / math.sqrt(fan_in)


def make_weights(layout: dict) -> dict:
    """The whole state dict in half precision, as much of it as is random."""
    import torch

    weights = {name: random_like(name, tensor) for name, tensor in layout.items()}
    # Without the fast waves of the time embedding, near steps look alike to the network, and far ones do not.
    waves = weights["model.diffusion_model.t_embedder.mlp.0.weight"]
    count = waves.shape[1] // 2  # cosines, then sines, from the fastest to the slowest
    fast = count * 7 // 16
    waves[:, :fast] = 0
    waves[:, count : count + fast] = 0
    # Most of the text's channels are always 0: the projection must not lose the few that are not.
    weights["model.diffusion_model.context_embedder.weight"] *= math.sqrt(
        TEXT_CHANNELS / sum(SIZES[name]["hidden_size"] for name in ("clip_l", "clip_g"))
    )
    # Latents with next to no noise of their own.
    weights["first_stage_model.encoder.conv_out.weight"][16:] *= 0.1
    weights["first_stage_model.encoder.conv_out.bias"][16:] = -8
    return {name: weight.to(torch.float16).contiguous() for name, weight in weights.items()}


def write(webui: Path, root: Path, file: Path) -> None:
    """Writes the checkpoint ``file`` and the tokenizer under ``root``."""
    import safetensors.torch

    write_t5_tokenizer(root / SIZES["t5_tokenizer"])
    partial = file.with_suffix(".partial")
    safetensors.torch.save_file(make_weights(skeleton(webui)), partial, metadata={"format": "pt"})
    partial.rename(file)
