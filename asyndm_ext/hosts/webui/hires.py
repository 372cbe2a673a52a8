"""What can be known of the hires pass before the first pass is drawn: whoever waits for a picture is told at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from asyndm_ext.hosts.webui import mask
from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.hosts.webui.finders import TextFinder
from asyndm_ext.hosts.webui.host import current
from asyndm_ext.hosts.webui.tokens import resolve_objects
from asyndm_ext.settings import Settings


def foresee(p: Any, settings: Settings, x: Tensor) -> None:
    """Before a first pass: look for whatever would stop the hires pass after it.

    Args:
        p: the host's job.
        settings: the job's.
        x: the first pass's starting latent ``(B,C,H,W)``.

    Raises:
        AsynDMError: the hires pass would stop with this message.
    """
    if not getattr(p, "enable_hr", False) or getattr(p, "is_hr_pass", False) or settings.hires == "first":
        return
    if settings.uses_words and p.hr_prompts:
        try:
            # Another checkpoint may have another tokenizer, but the same words.
            finder = TextFinder() if p.hr_checkpoint_info is not None else current().finder()
            resolve_objects(p, finder, settings.objects, hires=True)
        except NotApplied:
            pass  # the pass will go on without, and say so
    if settings.uses_mask and settings.hires == "hires":  # otherwise the first pass reads it
        mask.slow_fraction(p, settings, (x.shape[-2], x.shape[-1]))
