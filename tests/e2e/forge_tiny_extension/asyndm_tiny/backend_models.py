"""Forge and Forge Neo.

They know a model by sizes of its network (``huggingface_guess``) and build text encoders and autoencoders from the
JSON files that they ship: the sizes in the classes are swapped, and the folder in which the JSON files are looked up
for a copy of it.
"""

import importlib
import itertools
import json
import os
import tempfile
from pathlib import Path

import backend.loader
import torch
from backend import memory_management
from backend.text_processing.t5_engine import T5TextProcessingEngine
from backend.text_processing.textual_inversion import EmbeddingDatabase
from huggingface_guess import detection, model_list

SIZES = json.loads((Path(__file__).resolve().parents[1] / "forge_sizes.json").read_text(encoding="utf-8"))
DTYPE = "ASYNDM_E2E_FORGE_DTYPE"
SHIPPED = Path(backend.loader.__file__).parent / "huggingface"
IS_NEO = hasattr(backend.loader, "HF")
T5_TOKENIZER = SHIPPED / "black-forest-labs" / "FLUX.1-dev" / "tokenizer_2" / "tokenizer.json"


def shrink_classes() -> None:
    """The sizes by which a UNet is recognised, and those that are given to it."""
    lists = [model_list]
    if IS_NEO:  # its control nets are recognised by the same module under another name, which is another module then
        lists.append(importlib.import_module("modules_forge.packages.huggingface_guess.model_list"))
    for one, (name, sizes) in itertools.product(lists, SIZES["unets"].items()):
        guess = getattr(one, name, None)
        if guess is None:  # Forge Neo has fewer of them
            continue
        guess.unet_config = {**guess.unet_config, **sizes["recognised_by"]}
        guess.unet_extra_config = {**guess.unet_extra_config, **sizes["given"]}


def shrink_flux() -> None:
    """Flux's sizes, which are not read from the weights, and Chroma's own."""
    original = detection.detect_unet_config
    more = {"flux": SIZES["flux"], "chroma": {**SIZES["flux"], **SIZES["neo_chroma"]}}

    def detect_unet_config(state_dict, key_prefix):
        found = original(state_dict, key_prefix)
        return {**found, **more.get(found.get("image_model"), {})} if found else found

    detection.detect_unet_config = detect_unet_config
    if hasattr(backend.loader, "GuessChroma"):
        backend.loader.GuessChroma.unet_extra_config = SIZES["chroma"]


def shrink_written_numbers() -> None:
    """ersatzForge has the sizes of Flux's buffers as numbers in the code."""
    flux = importlib.import_module("backend.nn.flux")
    width, heads = SIZES["flux"]["hidden_size"], SIZES["flux"]["num_heads"]
    small = {3072: width, 15360: 5 * width, 24: heads, 128: width // heads}
    for one, name in itertools.product(vars(flux).values(), ("forward", "inner_forward")):
        code = getattr(getattr(one, name, None), "__code__", None)
        if code is not None and {3072, 15360}.intersection(code.co_consts):
            getattr(one, name).__code__ = code.replace(
                co_consts=tuple(small.get(value, value) for value in code.co_consts)
            )


def shrunk_folder(place: Path, repositories: dict, sizes: dict) -> Path:
    """A copy of the JSON files with small numbers; tokenizers are links."""
    for repository, components in repositories.items():
        if not (SHIPPED / repository).exists():
            continue
        target = place / "huggingface" / repository
        target.mkdir(parents=True)
        for child in (SHIPPED / repository).iterdir():
            if child.name not in components:
                (target / child.name).symlink_to(child)
                continue
            (target / child.name).mkdir()
            shape = json.loads((child / "config.json").read_text(encoding="utf-8"))
            shape.update(sizes[components[child.name]])
            (target / child.name / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    complete(place / "huggingface" / "Chroma" / "tokenizer")
    return place


def complete(tokenizer: Path) -> None:
    """A copy of the WebUI may lack a file of some MiB: it is the same as Flux's."""
    if tokenizer.exists() and not (tokenizer / "tokenizer.json").exists():
        files = list(tokenizer.iterdir())
        tokenizer.unlink()
        tokenizer.mkdir()
        for file in (*files, T5_TOKENIZER):
            (tokenizer / file.name).symlink_to(file.resolve())


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
    name = "inference_cast" if IS_NEO else "get_computation_dtype"
    setattr(memory_management, name, lambda *args, **kwargs: getattr(torch, os.environ[DTYPE]))


def swap() -> None:
    """All of it."""
    shrink_classes()
    shrink_flux()
    shrink_written_numbers()
    take_any_embedding()
    if not IS_NEO:
        from backend.diffusion_engine import sd35

        sd35.T5TextProcessingEngine = WideT5
    if DTYPE in os.environ:
        compute_in_half_precision()
    folder = Path(tempfile.mkdtemp(prefix="asyndm-tiny-"))
    shrunk_folder(folder, SIZES["repositories"], SIZES["components"])
    if IS_NEO:
        from asyndm_tiny import neo_models

        neo_models.swap()
        shrunk_folder(folder, neo_models.SIZES["repositories"], neo_models.components())
        backend.loader.HF = os.fspath(folder / "huggingface")
    else:
        backend.loader.dir_path = os.fspath(folder)


swap()  # once: a reload of the page runs the script again, but does not import this again
