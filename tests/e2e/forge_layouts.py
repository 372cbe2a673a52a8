"""Names and shapes of the parts of a checkpoint, from the classes of the WebUI whose Python runs this.

Forge and Forge Neo keep their networks in ``backend``, Forge Classic and reForge in ``ldm_patched``. What is asked of
either is the same, and so are the names: a tiny checkpoint of one is a tiny checkpoint of the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import checkpoints
from kinds import Kind

SD1_LAYERS, OPEN_CLIP_LAYERS = 2, 3
CONTEXT, VOCABULARY = 77, 49408


class NothingChosen:
    """Options that are all off."""

    def __getattr__(self, name):
        return False


def use_code(webui: Path, kind: Kind) -> None:
    """Makes the WebUI's packages importable; they read the command line while they are imported."""
    sys.argv[1:] = ["--cpu" if kind.name == "neo" else "--always-cpu"]
    folders = {
        "forge": ("packages_3rdparty", "repositories/huggingface_guess"),
        "neo": ("modules_forge/packages",),
        "reforge": ("repositories/stable-diffusion-stability-ai", "repositories/generative-models"),
    }
    for folder in (webui, *(webui / name for name in folders.get(kind.name, ()))):
        sys.path.insert(0, str(folder))
    if kind.code == "ldm_patched":  # its modules ask for arguments and options that the WebUI would have read
        from ldm_patched.modules.args_parser import args

        args.always_cpu = True
        from modules import shared

        shared.opts = shared.opts or NothingChosen()


def unet(kind: Kind, shape: dict) -> dict:
    """A UNet."""
    if kind.code == "backend":
        from backend.nn.unet import IntegratedUNet2DConditionModel

        return IntegratedUNet2DConditionModel(**shape).state_dict()
    from ldm_patched.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel(image_size=32, **shape).state_dict()


def control_net(kind: Kind, shape: dict) -> dict:
    """A control net beside such a UNet."""
    shape = {name: value for name, value in shape.items() if name not in ("out_channels", "transformer_depth_output")}
    shape["hint_channels"] = 3
    if kind.code == "backend":
        from backend.nn.cnets.cldm import ControlNet

        more = {"hint_width": 3} if kind.name == "neo" else {}
        return ControlNet(**shape, **more).state_dict()
    from ldm_patched.controlnet.cldm import ControlNet
    from ldm_patched.modules import ops

    operations = getattr(ops, "manual_cast", ops)
    return ControlNet(image_size=32, **shape, operations=operations).state_dict()


def autoencoder(kind: Kind, shape: dict) -> dict:
    """The autoencoder, which is the same for all models of Stable Diffusion."""
    if kind.code == "backend":
        from backend.nn.vae import IntegratedAutoencoderKL

        return IntegratedAutoencoderKL(**shape).state_dict()
    from ldm_patched.ldm.models.autoencoder import AutoencoderKL

    return AutoencoderKL(ddconfig=dict(checkpoints.VAE_SHAPE), embed_dim=4).state_dict()


def clip(shape: dict) -> dict:
    """A text encoder of transformers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**shape)).state_dict()


def open_clip(width: int = checkpoints.WIDTH, layers: int = OPEN_CLIP_LAYERS) -> dict:
    """Open_clip's text encoder, as ldm and sgm keep it; not every WebUI brings open_clip."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (CONTEXT, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "token_embedding.weight": (VOCABULARY, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for number in range(layers):
        for name, shape in (("attn.in_proj", (3 * width, width)), ("attn.out_proj", (width, width))):
            shapes[f"transformer.resblocks.{number}.{name}{'_' if 'in_' in name else '.'}weight"] = shape
            shapes[f"transformer.resblocks.{number}.{name}{'_' if 'in_' in name else '.'}bias"] = shape[:1]
        for name, shape in (("mlp.c_fc", (4 * width, width)), ("mlp.c_proj", (width, 4 * width))):
            shapes[f"transformer.resblocks.{number}.{name}.weight"] = shape
            shapes[f"transformer.resblocks.{number}.{name}.bias"] = shape[:1]
        for name in ("ln_1", "ln_2"):
            shapes[f"transformer.resblocks.{number}.{name}.weight"] = (width,)
            shapes[f"transformer.resblocks.{number}.{name}.bias"] = (width,)
    return {name: torch.empty(shape) for name, shape in shapes.items()}
