"""Test extension: another extension that uses the same places as AsynDM, when a request asks for it.

In both WebUIs: ``level ...`` changes the noise level before each call of the network (in place, by another tensor,
for the rows with the prompt only, to what is none); ``back`` puts the first call's latent and level in the place of
the third call's. ``regions`` gives every chunk of the prompt to the cross-attentions by itself, ``foreign`` a text of
its own, ``foreign later`` only from the fourth step on.

In Forge: ``wrapper`` puts a model_function_wrapper of its own on the patcher that only passes calls on; ``slices``
makes Forge run the rows of a step one set after the other, as it does when memory is short; ``wrapped slices`` is a
wrapper that does; ``hides later`` one that leaves out what it does not know, from the fourth step on. What control nets
were given is noted always: ``GET /asyndm-probe/control`` lists, per call, the spread of their latent.

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
listening: list = []
replaced: list = []
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
        leave()
        if mode in LEVELS or mode == "back":
            listening.append(Back() if mode == "back" else LEVELS[mode])
            script_callbacks.on_cfg_denoiser(listening[0])
        if mode in ATTENTIONS:
            replace_attention(ATTENTIONS[mode], since=LATER if mode.endswith("later") else 0)
        if not hasattr(shared.sd_model, "forge_objects"):
            return
        patcher = shared.sd_model.forge_objects.unet
        for control in patcher.list_controlnets():
            handles.append(control.control_model.register_forward_pre_hook(note_spread, with_kwargs=True))
        if mode == "wrapper":
            patcher = patcher.clone()
            patcher.set_model_unet_function_wrapper(pass_on)
            shared.sd_model.forge_objects.unet = patcher
        if mode == "hides later":
            patcher = patcher.clone()
            patcher.set_model_unet_function_wrapper(hide_rows)
            shared.sd_model.forge_objects.unet = patcher
        if mode == "wrapped slices":
            patcher = patcher.clone()
            patcher.set_model_unet_function_wrapper(one_by_one)
            shared.sd_model.forge_objects.unet = patcher
        if mode == "slices":
            patcher.model.memory_required = lambda input_shape: float("inf")

    def postprocess(self, p, processed, *args):
        leave()


def leave() -> None:
    """Takes everything away again."""
    while handles:
        handles.pop().remove()
    while listening:
        script_callbacks.remove_callbacks_for_function(listening.pop())
    while replaced:
        del replaced.pop().forward
    if hasattr(shared.sd_model, "forge_objects"):
        vars(shared.sd_model.forge_objects.unet.model).pop("memory_required", None)


def pass_on(apply_model, args):
    """What such wrappers do at the end."""
    return apply_model(args["input"], args["timestep"], **args["c"])


def hide_rows(apply_model, args):
    """Calls the model with what it knows of alone, later on."""
    later = shared.state.sampling_step >= LATER
    known = {name: value for name, value in args["c"].items() if not (later and name.startswith("asyndm"))}
    return apply_model(args["input"], args["timestep"], **known)


def one_by_one(apply_model, args):
    """Cuts what it knows of; what others have put into the conditioning stays whole."""
    size = len(args["input"]) // len(args["cond_or_uncond"])
    answers = []
    for start in range(0, len(args["input"]), size):
        own = slice(start, start + size)
        known = {name: value[own] for name, value in args["c"].items() if name in ("c_crossattn", "y")}
        answers.append(apply_model(args["input"][own], args["timestep"][own], **{**args["c"], **known}))
    return torch.cat(answers)


def level_in_place(params):
    params.sigma *= 0.94


def level_by_another(params):
    params.sigma = params.sigma * 0.94


def level_of_the_prompt(params):
    params.sigma[: len(params.sigma) // 2] *= 0.94


def level_not_finite(params):
    if params.sampling_step == 2:
        params.sigma = params.sigma * float("nan")


LEVELS = {
    "level in place": level_in_place,
    "level by another": level_by_another,
    "level of the prompt": level_of_the_prompt,
    "level not finite": level_not_finite,
}


class Back:
    """Once it knows enough, it lets the network begin again."""

    def __init__(self):
        self.calls = 0

    def __call__(self, params):
        self.calls += 1
        if self.calls == 1:
            self.x, self.sigma = params.x.clone(), params.sigma.clone()
        if self.calls == 3:
            params.x, params.sigma = self.x, self.sigma


CHUNK = 77
LATER = 3


def attend(module, x, context):
    """Cross-attention with the layer's own projections."""
    split = (len(x), -1, module.heads, module.to_q.out_features // module.heads)
    q, k, v = (
        f(part).view(split).transpose(1, 2)
        for f, part in ((module.to_q, x), (module.to_k, context), (module.to_v, context))
    )
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return module.to_out(out.transpose(1, 2).reshape(len(x), x.shape[1], -1))


def by_region(module, x, context):
    """Columns of the picture, as many as the text has chunks: each attends to its own."""
    parts = context.clone().split(CHUNK, dim=1)
    answers = [attend(module, x, part) for part in parts]
    place = torch.arange(x.shape[1], device=x.device) * len(parts) // x.shape[1]
    return sum(answer * (place == number).view(1, -1, 1) for number, answer in enumerate(answers))


def to_another_text(module, x, context):
    return attend(module, x, torch.roll(context[:, :40], 1, dims=-1))


ATTENTIONS = {"regions": by_region, "foreign": to_another_text, "foreign later": to_another_text}


def replace_attention(function, since):
    """In the place of every cross-attention's forward, from that step of the job's on."""
    objects = getattr(shared.sd_model, "forge_objects", None)
    network = objects.unet.model if objects is not None else shared.sd_model.model.diffusion_model
    for name, module in network.named_modules():
        if name.endswith("attn2"):
            module.forward = forward_of(module, function, since)
            replaced.append(module)


def forward_of(module, function, since):
    own = module.forward

    def forward(x, context=None, *args, **kwargs):
        if shared.state.sampling_step < since:
            return own(x, context, *args, **kwargs)
        return function(module, x, context)

    return forward


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
