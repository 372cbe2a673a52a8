"""Pictures of what a job did, shown beside its results: after all of them, with the infotext of the image they explain.

Not in the host's list of extra images, which A1111 does not have, and whose pictures have no infotext: the page's
buttons look one up for whatever is selected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL.Image import Image

from asyndm_ext.hosts.webui import belonging
from asyndm_ext.run import StepRecord
from asyndm_ext.settings import Settings
from asyndm_ext.ui.pictures import Recorder


def begin(p: Any) -> None:
    """Before a pass: what an earlier batch did is not what this one does. A hires pass may leave the first as it is."""
    if not getattr(p, "is_hr_pass", False):
        p.asyndm_recorder = None


def recorders(p: Any, settings: Settings) -> list[Callable[[StepRecord], None]]:
    """What has to watch the steps of the pass that starts now."""
    if settings.show == "none":
        return []
    p.asyndm_recorder, p.asyndm_shows = Recorder(settings), settings
    return [p.asyndm_recorder.watch]


def draw(p: Any, image: Image) -> None:
    """Draw the pictures of the batch's current image, which has the latent's shape: nothing is pasted into it yet."""
    recorder = getattr(p, "asyndm_recorder", None)
    if recorder is None:
        return
    number = p.iteration * p.batch_size + p.batch_index
    drawn = [(number, kind, picture) for kind, picture in recorder.pictures(image, p.batch_index)]
    p.asyndm_pictures = [*getattr(p, "asyndm_pictures", ()), *drawn]
    if belonging.is_a_script_s(p):
        p.comment("AsynDM: a script of the Script menu uses all pictures of its jobs, so none are shown.")


def attach(p: Any, processed: Any) -> None:
    """Put the pictures of a finished job behind its results, and save them where that is asked for."""
    drawn = p.__dict__.pop("asyndm_pictures", ())
    for number, kind, picture in drawn:
        entry = processed.index_of_first_image + number
        text = processed.infotexts[entry] if entry < len(processed.infotexts) else processed.info
        _finish(p, picture, number, kind, text)
        if not belonging.is_a_script_s(p) and not getattr(p, "_ad_inner", False):
            processed.images.append(picture)
            processed.infotexts.append(text)
    for name in ("asyndm_recorder", "asyndm_shows"):  # a batch folder's next job has the same p, which others forward
        p.__dict__.pop(name, None)


def _finish(p: Any, picture: Image, number: int, kind: str, text: str) -> None:
    from modules import images
    from modules.shared import opts

    if opts.enable_pnginfo:
        picture.info["parameters"] = text
    if p.asyndm_shows.save_shown:
        images.save_image(
            picture,
            p.outpath_samples,
            "",
            p.all_seeds[number],
            p.all_prompts[number],
            opts.samples_format,
            info=text,
            p=p,
            suffix=f"-asyndm-{kind}",
        )
