"""The little world's model with random weights in a smaller network."""

from __future__ import annotations

from pathlib import Path

import torch

from asyndm_ext.world.model import WorldConfig, WorldModel


def save_small(folder: Path, seed: int = 0) -> Path:
    """Write its weights into a folder; returns it."""
    torch.manual_seed(seed)
    WorldModel(WorldConfig(unet_channels=(16, 32), unet_groups=8, decoder_widths=(16, 16, 8))).save(folder)
    return folder
