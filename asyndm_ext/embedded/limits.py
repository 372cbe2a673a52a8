"""What a job of the embedded model can be. Here for the command line's help, which imports no torch."""

from __future__ import annotations

SCHEDULERS = ("uniform", "karras", "exponential")
MAX_STEPS = 150
SIDE_STEP, MAX_SIDE = 32, 512
"""Pixels."""
SEEDS = 2**32
GUIDANCE = 2.5
"""CFG scale at which the embedded model is most often right; above it, objects come in excess."""
MAX_GUIDANCE = 30.0
"""As far as the WebUI's slider goes; shapes are torn and colours glare long before."""
