"""Test extension for Forge: another extension that uses the same places as AsynDM, when a request asks for it.

``wrapper`` puts a model_function_wrapper of its own on the patcher that only passes calls on; ``slices`` makes Forge
run the rows of a step one set after the other, as it does when memory is short. What control nets were given is noted
always: ``GET /asyndm-probe/control`` lists, per call, the spread of their latent.

It also brings a preprocessor for IP-Adapters that needs no network for pictures.
"""

from __future__ import annotations

import gradio as gr
import numpy as np
import torch
from modules import script_callbacks, scripts, shared

try:
    from modules_forge.shared import add_supported_preprocessor
    from modules_forge.supported_preprocessor import Preprocessor
except ImportError:  # A1111
    Preprocessor = None

handles: list = []
spreads: list[float] = []


class NeighbourScript(scripts.Script):
    """Takes its place before every pass, and leaves after the job."""

    def title(self):
        return "asyndm neighbour"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(value="", visible=False, elem_id=self.elem_id("mode"))]

    def before_process(self, p, *args):
        leave()
        spreads.clear()

    def process_before_every_sampling(self, p, mode="", *args, **kwargs):
        if not hasattr(shared.sd_model, "forge_objects"):
            return
        patcher = shared.sd_model.forge_objects.unet
        for control in patcher.list_controlnets():
            handles.append(control.control_model.register_forward_pre_hook(note_spread, with_kwargs=True))
        if mode == "wrapper":
            patcher = patcher.clone()
            patcher.set_model_unet_function_wrapper(pass_on)
            shared.sd_model.forge_objects.unet = patcher
        if mode == "slices":
            patcher.model.memory_required = lambda input_shape: float("inf")

    def postprocess(self, p, processed, *args):
        leave()


def leave() -> None:
    """Takes everything away again."""
    while handles:
        handles.pop().remove()
    if hasattr(shared.sd_model, "forge_objects"):
        vars(shared.sd_model.forge_objects.unet.model).pop("memory_required", None)


def pass_on(apply_model, args):
    """What such wrappers do at the end."""
    return apply_model(args["input"], args["timestep"], **args["c"])


def note_spread(module, args, kwargs):
    """A control net is about to run."""
    spreads.append(float(kwargs["x"].float().std()))


def add_preprocessor() -> None:
    """A picture as 16 numbers, and zeros for the negative prompt, in the place of what CLIP sees in it."""

    class Means(Preprocessor):
        def __init__(self):
            super().__init__()
            self.name = "asyndm IP-Adapter"
            self.tags = ["IP-Adapter"]
            self.model_filename_filters = ["IP-Adapter"]
            self.show_control_mode = False

        def __call__(self, input_image, resolution, **kwargs):
            rows = np.array_split(input_image[..., 0] / 255.0, 4)
            means = [part.mean() for row in rows for part in np.array_split(row, 4, axis=1)]
            picture = 4 * torch.tensor(means, dtype=torch.float32).view(1, 16) - 2
            embeds = torch.stack([picture, torch.zeros_like(picture)])
            return {"weight_type": "original", "noise": 0.0, "embeds": embeds, "unfold_batch": False}

    add_supported_preprocessor(Means())


if Preprocessor is not None:
    add_preprocessor()
script_callbacks.on_app_started(
    lambda demo, app: app.add_api_route("/asyndm-probe/control", lambda: spreads, methods=["GET"])
)
