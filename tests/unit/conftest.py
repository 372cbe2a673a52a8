"""Makes ``support`` importable and keeps hypothesis calm on slow machines."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

hypothesis.settings.register_profile("unit", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("unit")
torch.manual_seed(0)
