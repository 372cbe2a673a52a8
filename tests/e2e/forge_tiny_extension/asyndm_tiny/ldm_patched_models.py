"""Forge Classic and reForge.

They know a model by sizes of its UNet, read the text encoders' sizes from JSON files beside their code, and take the
autoencoder's for granted.
"""

import json
from pathlib import Path

from ldm_patched.modules import sd, sd1_clip, supported_models

SIZES = json.loads((Path(__file__).resolve().parents[1] / "forge_sizes.json").read_text(encoding="utf-8"))
# SDXL's reads the last layer but one, and has to have more than two: so do all.
TEXT_ENCODERS = {
    "sd1_clip_config.json": "clip_of_three_layers",
    "clip_config_bigg.json": "open_clip",
    "sd2_clip_config.json": "open_clip",
}


def shrink_classes() -> None:
    """The sizes by which a UNet is recognised, and those that are given to it."""
    for name, sizes in SIZES["unets"].items():
        guess = getattr(supported_models, name, None)
        if guess is None:  # Forge Classic has fewer of them
            continue
        guess.unet_config = {**guess.unet_config, **sizes["recognised_by"]}
        guess.unet_extra_config = {**guess.unet_extra_config, **sizes["given"]}


class TinyTextConfig(sd1_clip.CLIPTextConfig):
    """Reads a JSON file of the WebUI, with small numbers in it."""

    @classmethod
    def _dict_from_json_file(cls, json_file):
        shape = super()._dict_from_json_file(json_file)
        return {**shape, **SIZES["components"][TEXT_ENCODERS[Path(json_file).name]]}


class TinyAutoencoder(sd.AutoencoderKL):
    """With small numbers, whatever is asked for."""

    def __init__(self, ddconfig, **rest):
        super().__init__(ddconfig={**ddconfig, **SIZES["ldm_vae"]}, **rest)


shrink_classes()
sd1_clip.CLIPTextConfig = TinyTextConfig
sd.AutoencoderKL = TinyAutoencoder
