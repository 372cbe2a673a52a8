"""How a job ends that cannot be done as asked: nothing is drawn, the message is told, and the console gets one line.

To stop a job from within, an exception has to leave the host's sampler, and the host writes its traceback into the
console: forty lines about what is no accident. So it depends on who waits for the job:

- The API gets an exception that its own handlers know: they answer with its status and message, without a traceback.
- The page's own jobs end without an exception and without a picture. The message stands below the empty gallery, where
  the host has its remarks about a job.
- A cell of the X/Y/Z plot gets a picture of the message: a failed one is drawn black, and the page is told nothing.
- Scripts and extensions that have jobs of their own get the exception: they count on pictures.
"""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import HTTPException
from modules import scripts, shared
from PIL.Image import Image
from torch import Tensor

from asyndm_ext.hosts.webui.xyz import is_plot
from asyndm_ext.ui import infotext
from asyndm_ext.ui.pictures import labelled, written

STATUS = 500


class Stopped(HTTPException):
    """A job stops; the text is the message alone."""

    def __init__(self, message: str) -> None:
        super().__init__(STATUS, message)

    def __str__(self) -> str:
        return str(self.detail)


def stop(p: Any, message: str, x: Tensor) -> Tensor:
    """End the job, from within its sampling function.

    Args:
        p: the host's job.
        message: what happened and what to do, with our name in it.
        x: what the sampler was given.

    Returns:
        A latent to go on with; its pictures are dropped, see :func:`drop`.

    Raises:
        Stopped: whoever made the job has to hear of it.
    """
    in_plot = _is_a_cell(p)
    if not in_plot and not _is_the_page_s(p):
        if getattr(p, "is_api", False):  # of others the host writes the message itself
            print(message)
        raise Stopped(message)
    print(message)
    p.asyndm_refused = message
    p.asyndm_has_run = True  # there is nothing else to say about this job
    p.enable_hr = False  # no second pass; asked for after the first
    p.do_not_save_grid = True
    if not in_plot:
        shared.state.stopping_generation = True  # no other batches; the page begins with it switched off again
    infotext.refused(p, message)
    return x.new_zeros(x.shape)


def drop(p: Any, pictures: list[Any]) -> None:
    """Take a refused job's pictures out of a batch, before any is shown or saved."""
    if getattr(p, "asyndm_refused", None):
        pictures.clear()


def explain(p: Any, processed: Any) -> None:
    """Give a cell of the plot its picture if it was refused, and a label if it had to go without AsynDM: the grid shows
    no infotexts."""
    message = p.__dict__.pop("asyndm_refused", None)
    reason = infotext.why_not_applied(p)
    if not (message or reason) or not _is_a_cell(p):
        return
    if message and not processed.images:
        processed.images.append(_picture(p, message))
    elif reason:
        processed.images[:] = [labelled(picture, f"AsynDM: {reason}") for picture in processed.images]


def _picture(p: Any, message: str) -> Image:
    return written(message, getattr(p, "hr_upscale_to_x", 0) or p.width, getattr(p, "hr_upscale_to_y", 0) or p.height)


def _is_a_cell(p: Any) -> bool:
    """Whether the job is a cell of the X/Y/Z plot. The arguments begin with the number of the script of the menu."""
    number = _number_of_script(p)
    chosen = getattr(p.scripts, "selectable_scripts", [])[number - 1 : number] if number else []
    return bool(chosen) and is_plot(chosen[0])


def _is_the_page_s(p: Any) -> bool:
    """Whether the page made the job, and shows what becomes of it."""
    if getattr(p, "is_api", False) or getattr(p, "_ad_inner", False) or _number_of_script(p):
        return False
    return p.scripts in (scripts.scripts_txt2img, scripts.scripts_img2img)


def _number_of_script(p: Any) -> int:
    arguments = getattr(p, "script_args", None)
    return (arguments[0] or 0) if arguments else 0
