"""Tells open_clip about the small text encoder of the tiny SD2 and SDXL checkpoints.

The WebUI builds those models' text encoder by an architecture name that open_clip has to know. Extensions are
loaded before the first checkpoint is, so registering it here needs no change in the WebUI or in its packages.
"""

from pathlib import Path

import open_clip

open_clip.add_model_config(Path(__file__).resolve().parents[1] / "model_configs")
