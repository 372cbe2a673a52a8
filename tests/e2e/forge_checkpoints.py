"""The tiny checkpoints for Forge and its relatives: the files that ``checkpoints.py`` writes, from their own classes.

A weight's random values depend on its name and shape only, so the layouts are all that has to be found anew
(``forge_layouts.py``). The sizes are those of ``forge_tiny_extension``, which lets the WebUI load the result.

It has to run with that WebUI's own Python::

    path/to/forge/venv/bin/python tests/e2e/forge_checkpoints.py --webui path/to/forge --output folder
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import checkpoints  # noqa: E402
import forge_dit_checkpoints  # noqa: E402
import forge_layouts  # noqa: E402
import neo_checkpoints  # noqa: E402
from kinds import KINDS, Kind, kind_of  # noqa: E402

EXTENSION = HERE / "forge_tiny_extension"
SIZES = json.loads((EXTENSION / "forge_sizes.json").read_text(encoding="utf-8"))

COMMON = {
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
}
SD = {"num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth_middle": 1}
SD["transformer_depth"] = [1, 1, 1, 1, 1, 1, 0, 0]
SD["transformer_depth_output"] = [1] * 9 + [0] * 3
XL = {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth_middle": 2}
XL["transformer_depth_output"] = [0, 0, 0, 1, 1, 1, 2, 2, 2]
XL["num_classes"] = "sequential"
UNETS = {
    "tiny-sd1": ("SD15", {**SD, "use_linear_in_transformer": False}),
    "tiny-inpaint": ("SD15", {**SD, "use_linear_in_transformer": False, "in_channels": 9}),
    "tiny-edit": ("SD15", {**SD, "use_linear_in_transformer": False, "in_channels": 8}),
    "tiny-sd2": ("SD20", {**SD, "use_linear_in_transformer": True}),
    "tiny-sd2v": ("SD20", {**SD, "use_linear_in_transformer": True}),
    "tiny-sdxl": ("SDXL", {**XL, "use_linear_in_transformer": True}),
}

ALIASES = {"tiny-qwen-image-edit": "tiny-qwen-image"}
NAMES = sorted({name for kind in KINDS.values() if kind.is_forge for name in kind.models})


def unet_shape(name: str) -> dict:
    """What a UNet is made with."""
    kind, shape = UNETS[name]
    return {**COMMON, **shape, **SIZES["unets"][kind]["recognised_by"], **SIZES["unets"][kind]["given"]}


def control_weights(kind: Kind) -> dict:
    """A control net for the tiny SD1; its output layers, which training starts at zero, are large enough to be seen."""
    names = forge_layouts.control_net(kind, unet_shape("tiny-sd1"))
    weights = {name: checkpoints.random_like(name, tensor).half().contiguous() for name, tensor in names.items()}
    for name in weights:
        if name.startswith(("zero_convs", "middle_block_out")):
            weights[name] *= 0.3
    return weights


def ip_adapter_weights(kind: Kind) -> dict:
    """An IP-Adapter for the tiny SD1: four tokens out of 16 numbers, and keys and values of them for all attentions."""
    import torch

    text = SIZES["unets"]["SD15"]["recognised_by"]["context_dim"]
    channels = SIZES["unets"]["SD15"]["recognised_by"]["model_channels"]
    shapes = {"image_proj.proj.weight": (4 * text, 16), "image_proj.proj.bias": (4 * text,)}
    shapes.update({"image_proj.norm.weight": (text,), "image_proj.norm.bias": (text,)})
    # Blocks on the way down, on the way up, then the one in the middle.
    for number, factor in enumerate([1, 1, 2, 2, 4, 4, 4, 4, 4, 2, 2, 2, 1, 1, 1, 4]):
        for kind in ("k", "v"):
            shapes[f"ip_adapter.{2 * number + 1}.to_{kind}_ip.weight"] = (factor * channels, text)
    return {name: checkpoints.random_like(name, torch.empty(shape)).half() for name, shape in shapes.items()}


def layout(kind: Kind, name: str) -> dict:
    """All weights of a checkpoint, under the names of a full checkpoint file."""
    parts = {
        "model.diffusion_model.": forge_layouts.unet(kind, unet_shape(name)),
        "first_stage_model.": forge_layouts.autoencoder(kind, SIZES["components"]["vae"]),
    }
    clip = forge_layouts.clip(SIZES["components"]["clip" if kind.code == "backend" else "clip_of_three_layers"])
    if UNETS[name][0] == "SD15":
        parts["cond_stage_model.transformer."] = clip
    elif name == "tiny-sdxl":
        parts["conditioner.embedders.0.transformer."] = clip
        parts["conditioner.embedders.1.model."] = forge_layouts.open_clip()
    else:
        parts["cond_stage_model.model."] = forge_layouts.open_clip()
    return {prefix + key: tensor for prefix, part in parts.items() for key, tensor in part.items()}


def write_all(webui: Path, root: Path, names: list[str]) -> None:
    """Writes the extension and the checkpoints under ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        EXTENSION,
        root / "extensions" / "asyndm-forge-tiny-models",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    folder = root / checkpoints.CHECKPOINTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    kind = kind_of(webui)
    forge_layouts.use_code(webui, kind)
    import safetensors.torch
    import yaml

    for stem, weights in (("tiny-control", control_weights), ("tiny-ip-adapter", ip_adapter_weights)):
        file = root / "models" / "ControlNet" / f"{stem}.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(weights(kind), file, metadata={"format": "pt"})
    for name in names or kind.models:
        file = folder / f"{name}.safetensors"
        if file.exists():
            continue
        if name in ALIASES:  # the WebUI tells what such a model does by the file's name
            file.symlink_to(f"{ALIASES[name]}.safetensors")
            continue
        if name in UNETS:
            config = checkpoints.CONFIGS[name]()
            weights = checkpoints.make_weights(config, layout(kind, name))
            # Forge and Forge Neo read one thing in it, whether the model predicts v; the others build the model by it.
            file.with_suffix(".yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        elif name in neo_checkpoints.NAMES:
            weights = neo_checkpoints.make_weights(name)
        else:
            weights = forge_dit_checkpoints.make_weights(kind, name, SIZES)
        partial = file.with_suffix(".partial")
        safetensors.torch.save_file(weights, partial, metadata={"format": "pt"})
        partial.rename(file)
        checkpoints.report(file)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--webui", type=Path, required=True, help="an installed Forge or relative, started once")
    parser.add_argument("--output", type=Path, required=True, help="where to write")
    parser.add_argument("--only", nargs="+", choices=NAMES, help="which checkpoints (default: all that it loads)")
    arguments = parser.parse_args()
    write_all(arguments.webui.resolve(), arguments.output.resolve(), arguments.only)


if __name__ == "__main__":
    main()
