"""The networks of 2025 and 2026 in Forge Neo, with their language models: sizes that its code takes for granted.

The writer of the checkpoints builds the same parts with it.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SIZES = json.loads((Path(__file__).resolve().parents[1] / "neo_sizes.json").read_text(encoding="utf-8"))
NETWORKS = SIZES["networks"]


def network_sizes(name: str) -> dict:
    """What a network is made with."""
    return {key: size for key, size in NETWORKS[name].items() if key not in ("marker", "image_model")}


def recognise_networks() -> None:
    """By a weight that the others do not have, in place of sizes."""
    from huggingface_guess import detection, model_list

    original = detection.detect_unet_config

    def detect_unet_config(state_dict, key_prefix):
        for name, sizes in NETWORKS.items():
            if key_prefix + sizes["marker"] in state_dict:
                return {"image_model": sizes["image_model"], **network_sizes(name)}
        return original(state_dict, key_prefix)

    detection.detect_unet_config = detect_unet_config
    for name, sizes in SIZES["recognised_by"].items():
        guess = getattr(model_list, name)
        guess.unet_config = {**guess.unet_config, **sizes}


def shrink_language_models() -> None:
    """Their sizes are fields of classes, and have to be those of the JSON files."""
    from backend.nn.llm import llama

    for name, more in SIZES["language_models"].items():
        sizes = SIZES["language_model"]
        small = type(name, (getattr(llama, name),), {"__annotations__": dict.fromkeys(sizes, int), **sizes, **more})
        setattr(llama, name, dataclass(small))
    llama.LLMAdapter = partial(llama.LLMAdapter, **SIZES["adapter"])
    vision = llama.qwen_vl.Qwen2VLVisionTransformer
    llama.qwen_vl.Qwen2VLVisionTransformer = lambda hidden_size, output_hidden_size: vision(
        output_hidden_size=output_hidden_size, **SIZES["vision"]
    )


def choose_language_models() -> None:
    """The loader chooses among Qwen3's by a size, of which all small ones have the same: the JSON file says which."""
    from backend.nn.llm import llama

    classes = {name: getattr(llama, name) for name in ("Qwen3_06B", "Qwen3_4B")}
    llama.Qwen3_06B = lambda config: classes[config["asyndm_class"]](config)


def read_earlier_layers() -> None:
    """FLUX.2 reads three of the many layers of its language model."""
    from backend.text_processing import klein_engine

    original = klein_engine.KleinTextProcessingEngine.__init__

    def initialize(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.intermediate_output = [0, 1, 2]

    klein_engine.KleinTextProcessingEngine.__init__ = initialize


def components() -> dict:
    """What is written into the JSON files of text encoders and autoencoders."""
    language = {"asyndm_class": "", **SIZES["language_model"]}
    return {
        name: sizes if name.endswith("vae") else {**language, "asyndm_class": name, **sizes}
        for name, sizes in SIZES["components"].items()
    }


def swap() -> None:
    """All of it, while the extension is loaded."""
    recognise_networks()
    shrink_language_models()
    choose_language_models()
    read_earlier_layers()
