"""Writes tiny, seeded checkpoints that a real WebUI loads through its own loader.

Seven models, each a ``NAME.safetensors`` with a ``NAME.yaml`` beside it (the WebUI prefers a config of the same name
over guessing one from the weights):

=============  ==========================================================================================
``tiny-sd1``   SD1's layout: UNet with 1x1-convolution projections, Hugging Face CLIP text encoder, eps
``tiny-inpaint`` the same with five more input channels, as the inpainting model
``tiny-edit``  the same with four more input channels, as instruct-pix2pix
``tiny-sd2``   SD2's layout: UNet with linear projections, open_clip text encoder, eps
``tiny-sd2v``  the same with v-prediction
``tiny-sdxl``  SDXL's layout: three levels, size and pooled-text conditioning, both text encoders, eps
``tiny-sd3``   SD3's layout: a diffusion transformer, rectified flow; without a yaml, see ``sd3_checkpoints.py``
=============  ==========================================================================================

Everything is the original's class and key layout with small numbers in it: UNets of 32..128 channels, text encoders
of width 64 with the real 49408-word vocabulary (so prompts tokenise as they do with real models).

The weights are random, but not plainly so, because plain random weights make a poor test: the prompt moves the
picture by a grey level or two, cross-attention is the same everywhere, and the noise is never removed.

* Layers that training starts at zero get small values: otherwise neither attention nor time reaches the output.
* The query and key projections of cross-attention are large, so that the softmax over the prompt is peaked and
  differs from place to place; the time embedding is strong and smooth, so that the step matters as it should.
* eps models carry one path from input to output that returns (most of) the input: at unit variance the input *is*
  the noise at high noise levels. Sampling then ends near zero, as it does with a trained model, and what is left is
  what the rest of the network has added: that depends on prompt, place and time.

It has to run with the WebUI's own Python, since the layouts are taken from the code that the WebUI will run::

    path/to/webui/venv/bin/python tests/e2e/checkpoints.py --webui path/to/webui

writes into that WebUI's folders (``models/Stable-diffusion``, ``extensions``, and the tokenizers into its working
directory), ``--output`` writes the same tree elsewhere. Files that are there already are kept unless ``--force``.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import math
import os
import re
import shutil
import sys
import types
import zlib
from pathlib import Path

SEED = 20260101
HERE = Path(__file__).resolve().parent
TEXT_EXTENSION = HERE / "tiny_models_extension"
TEXT_ARCHITECTURE = "asyndm-tiny-text"
# Folders as transformers wants them: relative to the WebUI's working directory.
TINY_CLIP = "asyndm-tiny/clip-text"
STANDARD_CLIP = "openai/clip-vit-large-patch14"
WIDTH = 64
CHECKPOINTS_FOLDER = "models/Stable-diffusion"

# Without blocks to spare: most of the time of a small picture would go into decoding it.
VAE_SHAPE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 0,
    "attn_resolutions": [],
    "dropout": 0.0,
}
UNET_SHAPE = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": 2,
    "use_spatial_transformer": True,
    "use_checkpoint": False,
    "legacy": False,
}


LATENT_DIFFUSION = "ldm.models.diffusion.ddpm.LatentDiffusion"


def first_stage(target: str) -> dict:
    """Config of the small autoencoder, which is the same for all models."""
    parameters = {
        "embed_dim": 4,
        "monitor": "val/rec_loss",
        "ddconfig": dict(VAE_SHAPE),
        "lossconfig": {"target": "torch.nn.Identity"},
    }
    return {"target": target, "params": parameters}


def latent_diffusion(unet: dict, text: dict, target: str = LATENT_DIFFUSION, **extra: object) -> dict:
    """Config of an SD1 or SD2 model: the original's, with small networks."""
    unet_shape = {
        **UNET_SHAPE,
        "image_size": 32,
        "attention_resolutions": [4, 2, 1],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": 1,
        "context_dim": WIDTH,
        **unet,
    }
    parameters = {
        "linear_start": 0.00085,
        "linear_end": 0.0120,
        "num_timesteps_cond": 1,
        "timesteps": 1000,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": 64,
        "channels": 4,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "scale_factor": 0.18215,
        "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet_shape},
        "first_stage_config": first_stage("ldm.models.autoencoder.AutoencoderKL"),
        "cond_stage_config": text,
        **extra,
    }
    return {"model": {"target": target, "params": parameters}}


def sd1_config(in_channels: int = 4, **extra: object) -> dict:
    """SD1: a fixed number of heads, Hugging Face's CLIP text model read from ``TINY_CLIP``."""
    text = {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder", "params": {"version": TINY_CLIP}}
    return latent_diffusion({"num_heads": 4, "in_channels": in_channels}, text, **extra)


def inpainting_config() -> dict:
    """SD1's inpainting model: mask and masked latent come in as further channels."""
    target = "ldm.models.diffusion.ddpm.LatentInpaintDiffusion"
    return sd1_config(9, target=target, conditioning_key="hybrid", finetune_keys=None)


def edit_config() -> dict:
    """Instruct-pix2pix: the picture's latent comes in as further channels, guidance has three parts."""
    target = "modules.models.diffusion.ddpm_edit.LatentDiffusion"
    keys = {"first_stage_key": "edited", "cond_stage_key": "edit"}
    return sd1_config(8, target=target, conditioning_key="hybrid", **keys)


def sd2_config(**extra: object) -> dict:
    """SD2: heads of a fixed size, linear projections, open_clip's text model without its last layer."""
    text = {
        "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
        "params": {"arch": TEXT_ARCHITECTURE, "version": "", "freeze": True, "layer": "penultimate"},
    }
    return latent_diffusion({"num_head_channels": 16, "use_linear_in_transformer": True}, text, **extra)


def sdxl_config() -> dict:
    """SDXL: attention at a half and a quarter of the latent's side, conditioning on text and sizes."""
    diffusion = "sgm.modules.diffusionmodules"
    unet_shape = {
        **UNET_SHAPE,
        "adm_in_channels": WIDTH + 6 * 256,
        "num_classes": "sequential",
        "attention_resolutions": [4, 2],
        "channel_mult": [1, 2, 4],
        "num_head_channels": 16,
        "use_linear_in_transformer": True,
        "transformer_depth": [1, 1, 2],
        "context_dim": 2 * WIDTH,
        "spatial_transformer_attn_type": "softmax-xformers",
    }
    clip = {"version": TINY_CLIP, "layer": "hidden", "layer_idx": 1}
    open_clip = {
        "arch": TEXT_ARCHITECTURE,
        "version": "",
        "freeze": True,
        "layer": "penultimate",
        "always_return_pooled": True,
        "legacy": False,
    }
    embedders = [
        {
            "is_trainable": False,
            "input_key": key,
            "target": f"sgm.modules.encoders.modules.{name}",
            "params": parameters,
        }
        for key, name, parameters in (
            ("txt", "FrozenCLIPEmbedder", clip),
            ("txt", "FrozenOpenCLIPEmbedder2", open_clip),
            ("original_size_as_tuple", "ConcatTimestepEmbedderND", {"outdim": 256}),
            ("crop_coords_top_left", "ConcatTimestepEmbedderND", {"outdim": 256}),
            ("target_size_as_tuple", "ConcatTimestepEmbedderND", {"outdim": 256}),
        )
    ]
    denoiser = {
        "num_idx": 1000,
        "weighting_config": {"target": f"{diffusion}.denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": f"{diffusion}.denoiser_scaling.EpsScaling"},
        "discretization_config": {"target": f"{diffusion}.discretizer.LegacyDDPMDiscretization"},
    }
    parameters = {
        "scale_factor": 0.13025,
        "disable_first_stage_autocast": True,
        "denoiser_config": {"target": f"{diffusion}.denoiser.DiscreteDenoiser", "params": denoiser},
        "network_config": {"target": f"{diffusion}.openaimodel.UNetModel", "params": unet_shape},
        "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": embedders}},
        "first_stage_config": first_stage("sgm.models.autoencoder.AutoencoderKLInferenceWrapper"),
    }
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": parameters}}


CONFIGS = {
    "tiny-sd1": sd1_config,
    "tiny-inpaint": inpainting_config,
    "tiny-edit": edit_config,
    "tiny-sd2": sd2_config,
    "tiny-sd2v": lambda: sd2_config(parameterization="v"),
    "tiny-sdxl": sdxl_config,
}
SD3 = "tiny-sd3"
NAMES = [*CONFIGS, SD3]


# ---------------------------------------------------------------------------------------------------- networks


def use_webui_code(webui: Path) -> None:
    """Makes the WebUI's copies of ldm and sgm importable, without importing the WebUI itself."""
    repositories = webui / "repositories"
    for name in ("stable-diffusion-stability-ai", "generative-models"):
        folder = repositories / name
        if not folder.is_dir():
            raise SystemExit(f"{folder} is missing: start that WebUI once, so that it sets itself up")
        sys.path.insert(0, str(folder))
    # sgm imports both, for training only; neither is part of a WebUI.
    for name, attribute in (("taming.modules.losses.lpips", "LPIPS"), ("sgm.data", "StableDataModuleFromConfig")):
        module = types.ModuleType(name)
        setattr(module, attribute, None)
        sys.modules[name] = module
    sys.modules["xformers"] = None  # type: ignore[assignment]  # importing it fails, whatever is installed


def build(config: dict):
    """Instantiates a ``{"target": ..., "params": ...}`` config."""
    module, name = config["target"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**config.get("params", {}))


def skeleton(config: dict) -> dict[str, object]:
    """All weights that a model of this config has, under the names of a full checkpoint file."""
    parameters = config["model"]["params"]
    parts = {"first_stage_model": parameters["first_stage_config"]}
    if "network_config" in parameters:
        parts["model.diffusion_model"] = parameters["network_config"]
        parts["conditioner"] = parameters["conditioner_config"]
    else:
        parts["model.diffusion_model"] = parameters["unet_config"]
        parts["cond_stage_model"] = parameters["cond_stage_config"]
    weights = {}
    for prefix, part in parts.items():
        weights.update({f"{prefix}.{name}": tensor for name, tensor in build(part).state_dict().items()})
    return weights


# --------------------------------------------------------------------------------------------------- weights

# First match wins: (pattern of the name, factor on the variance-preserving standard deviation).
GAINS = [
    (r"diffusion_model\..*attn2\.to_[qk]\.weight", 1.6),
    (r"diffusion_model\..*attn2\.to_(v|out\.0)\.weight", 1.5),
    (r"diffusion_model\.time_embed\.\d\.weight", 2.0),
    (r"diffusion_model\..*emb_layers\.1\.weight", 3.0),
    (r"diffusion_model\.label_emb\..*weight", 0.5),
    (r"diffusion_model\..*(out_layers\.3|proj_out)\.weight", 0.7),
    (r"diffusion_model\.out\.2\.weight", 0.3),
    (r"token_embedding\.weight", 1.0),
    (r"positional_embedding|position_embedding\.weight", 0.3),
    (r"first_stage_model\.decoder\.conv_out\.weight", 0.6),
]


def random_like(name: str, tensor):
    """Random values for one weight; seeded by its name, so that no weight depends on the others."""
    import torch

    if not tensor.is_floating_point():
        return tensor.clone()
    generator = torch.Generator().manual_seed(SEED ^ zlib.crc32(name.encode()))
    noise = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim < 2:
        is_scale = name.endswith("weight")
        if re.search(r"cond_stage_model|conditioner", name):
            # The WebUI divides by the mean of the text encoder's output when it applies emphasis: keep it off zero.
            return 1 + 0.2 * noise if is_scale else 0.2 + 0.1 * noise
        return 1 + 0.1 * noise if is_scale else 0.05 * noise
    gain = next((factor for pattern, factor in GAINS if re.search(pattern, name)), 1.0)
    is_table = "embedding" in name
    fan_in = 1 if is_table else math.prod(tensor.shape[1:])
    return noise * gain / math.sqrt(fan_in)


def add_noise_path(weights: dict, strength: float = 0.95) -> None:
    """Lets the UNet return ``strength`` times its input, normalised, beside what it computes.

    Carried by four pairs of channels (x and -x): the first convolution makes them, the outermost skip connection
    brings them to the last block. There are as many groups as channels, so the last norm makes each of unit
    variance, and silu(x) - silu(-x) = x undoes the activation.
    """
    prefix = "model.diffusion_model."
    last = max(int(name.split(".")[3]) for name in weights if name.startswith(f"{prefix}output_blocks."))
    first = weights[f"{prefix}input_blocks.0.0.weight"]
    skip = weights[f"{prefix}output_blocks.{last}.0.skip_connection.weight"]
    out = weights[f"{prefix}out.2.weight"]
    backbone = skip.shape[1] - first.shape[0]
    for channel in range(8):
        latent, sign = channel // 2, 1.0 - 2.0 * (channel % 2)
        first[channel] = 0
        first[channel, latent, 1, 1] = sign
        skip[channel] = 0
        skip[channel, backbone + channel, 0, 0] = 1
        out[:, channel] = 0
        out[latent, channel, 1, 1] = sign * strength
        for name in ("input_blocks.0.0.bias", f"output_blocks.{last}.0.skip_connection.bias", "out.0.bias"):
            weights[prefix + name][channel] = 0
        weights[f"{prefix}out.0.weight"][channel] = 1
        for layer in ("0.out_layers.3", "1.proj_out"):  # both add to these channels; SDXL has no attention here
            for kind in ("weight", "bias"):
                tensor = weights.get(f"{prefix}output_blocks.{last}.{layer}.{kind}")
                if tensor is not None:
                    tensor[channel] = 0


def smooth_time(weights: dict) -> None:
    """Takes the fast waves out of the time embedding: near steps then look alike to the UNet, and far ones do not."""
    weight = weights["model.diffusion_model.time_embed.0.weight"]
    count = weight.shape[1] // 2  # cosines, then sines, from the fastest (period 2 pi) to the slowest
    fast = count * 7 // 16
    weight[:, :fast] = 0
    weight[:, count : count + fast] = 0


def tame_encoder(weights: dict) -> None:
    """Makes the autoencoder's latents vary like real ones, with next to no noise of their own."""
    weight, bias = weights["first_stage_model.quant_conv.weight"], weights["first_stage_model.quant_conv.bias"]
    weight[:4] *= 5
    weight[4:] *= 0.1
    bias[4:] = -8


def make_weights(config: dict, layout: dict) -> dict:
    """The whole state dict of one model, in half precision; ``layout`` has its names and shapes."""
    import torch

    weights = {name: random_like(name, tensor) for name, tensor in layout.items()}
    if config["model"]["params"].get("parameterization") != "v":
        add_noise_path(weights)
    smooth_time(weights)
    tame_encoder(weights)
    return {
        name: (tensor.to(torch.float16) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in weights.items()
    }


# ------------------------------------------------------------------------------------------------- tokenizers


def write_tokenizer(folder: Path, text_model: dict) -> None:
    """A tokenizer folder in transformers' format, built from the list of merges that open_clip ships.

    CLIP's vocabulary is: 256 bytes, the same as ends of words, one entry per merge, start and end of text.
    """
    import open_clip.tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    source = Path(open_clip.tokenizer.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    with gzip.open(source, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(line.split()) for line in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    files = {
        "vocab.json": {word: index for index, word in enumerate(words)},
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "add_prefix_space": False,
            "do_lower_case": True,
            "model_max_length": 77,
        },
        "special_tokens_map.json": {
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
        "config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": len(words),
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "bos_token_id": len(words) - 2,
            "eos_token_id": len(words) - 1,
            "pad_token_id": 1,
            **text_model,
        },
    }
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_tokenizers(root: Path) -> None:
    """The folder that a WebUI without network needs, with the real model's sizes, and the tiny text model's own."""
    standard = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    tiny = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4, "num_hidden_layers": 2}
    for name, shape in (
        (STANDARD_CLIP, {**standard, "projection_dim": 768}),
        (TINY_CLIP, {**tiny, "projection_dim": WIDTH}),
    ):
        if not (root / name / "config.json").exists():
            write_tokenizer(root / name, shape)


# ------------------------------------------------------------------------------------------------------- main


def write_all(webui: Path, root: Path, names: list[str], force: bool = False) -> None:
    """Writes tokenizers, the extension that registers the text encoder, and the checkpoints under ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    write_tokenizers(root)
    shutil.copytree(
        TEXT_EXTENSION,
        root / "extensions" / "asyndm-tiny-models",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    folder = root / CHECKPOINTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if force or not (folder / f"{name}.safetensors").exists()]
    if not missing:
        return
    # Text encoders are found by a path relative to the working directory, and nothing is to be asked for online.
    os.chdir(root)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    use_webui_code(webui)
    import open_clip
    import safetensors.torch
    import transformers
    import yaml

    open_clip.add_model_config(TEXT_EXTENSION / "model_configs")
    # The encoders load pretrained weights, which are neither there nor wanted: only the layout is.
    model_class = transformers.CLIPTextModel
    model_class.from_pretrained = lambda path: model_class(transformers.CLIPTextConfig.from_pretrained(path))
    if SD3 in missing:
        import sd3_checkpoints  # beside this script; as a module of the tests, only CONFIGS is of interest

        missing.remove(SD3)
        sd3_checkpoints.write(webui, root, folder / f"{SD3}.safetensors")
        report(folder / f"{SD3}.safetensors")
    for name in missing:
        config = CONFIGS[name]()
        partial = folder / f"{name}.partial"
        safetensors.torch.save_file(make_weights(config, skeleton(config)), partial, metadata={"format": "pt"})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        partial.rename(folder / f"{name}.safetensors")
        report(folder / f"{name}.safetensors")


def report(file: Path) -> None:
    """Says what was written."""
    print(f"{file.stem}: {file.stat().st_size / 2**20:.1f} MiB", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--webui", type=Path, required=True, help="an installed WebUI, started once")
    parser.add_argument("--output", type=Path, help="where to write (default: into that WebUI)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="which checkpoints")
    parser.add_argument("--force", action="store_true", help="write checkpoints that are there already")
    arguments = parser.parse_args()
    webui = arguments.webui.resolve()
    write_all(webui, (arguments.output or webui).resolve(), arguments.only, arguments.force)


if __name__ == "__main__":
    main()
