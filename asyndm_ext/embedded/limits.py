"""What a job of the embedded model can be. Here for the command line's help, which imports no torch."""

from __future__ import annotations

SCHEDULERS = ("uniform", "karras", "exponential", "SGM uniform", "beta")
MAX_STEPS = 150
SIDE_STEP, MAX_SIDE = 16, 512
"""Pixels."""
SEEDS = 2**32
GUIDANCE = 6.0
"""CFG scale of the embedded model; docs/EVALUATE.md says how often it is right with others."""
MAX_GUIDANCE = 30.0
"""As far as the WebUI's slider goes; animals are torn and colours glare long before."""
