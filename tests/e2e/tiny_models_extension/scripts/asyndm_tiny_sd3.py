"""Shrinks what the WebUI hard-codes of SD3: its two CLIP text encoders, its autoencoder, T5 and its tokenizer.

The sizes of the network itself are read from the checkpoint. Extensions are loaded before the first checkpoint is.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch
from modules.models.sd3 import other_impls, sd3_cond, sd3_impls

sizes = json.loads((Path(__file__).resolve().parents[1] / "sd3_sizes.json").read_text(encoding="utf-8"))


class TinyT5Tokenizer:
    """Stands in for transformers' class, whose files would have to be downloaded."""

    original = other_impls.T5TokenizerFast

    @classmethod
    def from_pretrained(cls, name):
        """A tokenizer with a small vocabulary, whatever was asked for."""
        return cls.original.from_pretrained(sizes["t5_tokenizer"])


class TinyT5(sd3_cond.T5XXLModel):
    """T5 with few channels; the others, which the network takes as well, are 0."""

    def forward(self, tokens):
        """As of the class that it stands in for: what T5 makes of each token, and nothing pooled."""
        z, pooled = super().forward(tokens)
        return torch.nn.functional.pad(z, (0, sizes["text_channels"] - z.shape[-1])), pooled


if not isinstance(sd3_impls.VAEEncoder, functools.partial):  # "Reload UI" comes here again
    sd3_cond.CLIPL_CONFIG.update(sizes["clip_l"])
    sd3_cond.CLIPG_CONFIG.update(sizes["clip_g"])
    sd3_cond.T5_CONFIG.update(sizes["t5"])
    sd3_cond.T5XXLModel = TinyT5
    sd3_impls.VAEEncoder = functools.partial(sd3_impls.VAEEncoder, **sizes["vae"])
    sd3_impls.VAEDecoder = functools.partial(sd3_impls.VAEDecoder, **sizes["vae"])
    other_impls.T5TokenizerFast = sd3_cond.T5TokenizerFast = TinyT5Tokenizer
