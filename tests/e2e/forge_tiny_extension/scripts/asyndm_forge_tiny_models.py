"""Lets Forge load the tiny checkpoints: the sizes that it takes for granted, made small.

Forge knows a model by sizes of its UNet (``huggingface_guess``) and builds text encoders and autoencoders from the
JSON files that it ships. Extensions are loaded before the first checkpoint is, so this swaps both without touching
Forge's files: the sizes in the classes, and the folder in which the JSON files are looked up for a copy of it. What
is swapped is read from ``forge_sizes.json``, which the writer of the checkpoints uses as well.
"""

import json
import os
import tempfile
from pathlib import Path

import backend.loader
import torch
from backend import memory_management
from backend.diffusion_engine import sd35
from backend.text_processing.t5_engine import T5TextProcessingEngine
from backend.text_processing.textual_inversion import EmbeddingDatabase
from huggingface_guess import detection, model_list

SIZES = json.loads((Path(__file__).resolve().parents[1] / "forge_sizes.json").read_text(encoding="utf-8"))
DTYPE = "ASYNDM_E2E_FORGE_DTYPE"
SHIPPED = Path(backend.loader.__file__).parent / "huggingface"


def shrink_classes() -> None:
    """The sizes by which Forge recognises a UNet, and those that it gives it."""
    for name, sizes in SIZES["unets"].items():
        guess = getattr(model_list, name)
        guess.unet_config = {**guess.unet_config, **sizes["recognised_by"]}
        guess.unet_extra_config = {**guess.unet_extra_config, **sizes["given"]}


def shrink_flux() -> None:
    """Flux's sizes, which Forge does not read from the weights, and Chroma's own."""
    original = detection.detect_unet_config

    def detect_unet_config(state_dict, key_prefix):
        found = original(state_dict, key_prefix)
        return {**found, **SIZES["flux"]} if found and found.get("image_model") == "flux" else found

    detection.detect_unet_config = detect_unet_config
    if hasattr(backend.loader, "GuessChroma"):
        backend.loader.GuessChroma.unet_extra_config = SIZES["chroma"]


def shrunk_folder(place: Path) -> Path:
    """A copy of the JSON files with small numbers; tokenizers are links."""
    for repository, components in SIZES["repositories"].items():
        target = place / "huggingface" / repository
        target.mkdir(parents=True)
        for child in (SHIPPED / repository).iterdir():
            if child.name not in components:
                (target / child.name).symlink_to(child)
                continue
            (target / child.name).mkdir()
            shape = json.loads((child / "config.json").read_text(encoding="utf-8"))
            shape.update(SIZES["components"][components[child.name]])
            (target / child.name / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    return place


def take_any_embedding() -> None:
    """Textual inversions of small vectors; Forge takes those of the real models' sizes."""
    original = EmbeddingDatabase.__init__

    def initialize(self, tokenizer, expected_shape=-1):
        original(self, tokenizer)

    EmbeddingDatabase.__init__ = initialize


class WideT5(T5TextProcessingEngine):
    """T5 with few channels; SD3 takes it beside CLIP, whose other channels are 0."""

    def __call__(self, texts):
        z = super().__call__(texts)
        return torch.nn.functional.pad(z, (0, SIZES["sd3_text_channels"] - z.shape[-1]))


def compute_in_half_precision() -> None:
    """On the CPU too, where Forge computes in float32 whatever the weights are stored in."""
    memory_management.get_computation_dtype = lambda *args, **kwargs: getattr(torch, os.environ[DTYPE])


if Path(backend.loader.dir_path) == SHIPPED.parent:  # a reload of the page runs this again
    shrink_classes()
    shrink_flux()
    take_any_embedding()
    sd35.T5TextProcessingEngine = WideT5
    if DTYPE in os.environ:
        compute_in_half_precision()
    backend.loader.dir_path = os.fspath(shrunk_folder(Path(tempfile.mkdtemp(prefix="asyndm-tiny-"))))
