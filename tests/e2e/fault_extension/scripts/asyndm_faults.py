"""Test extension: makes one call of a job fail, at the place, in the step and in the way that a request names.

``"alwayson_scripts": {"asyndm faults": {"args": [{"place": "capture", "fault": "oom", "at": 3}]}}``

Places: ``model`` (the network), ``solver`` (the end of a solver's step), ``capture`` (a layer's attention is read),
``region`` (the masks of a step), ``callback`` (the host is told of a step), ``decode`` (the autoencoder).
Faults: ``raise``, ``oom``, ``nan`` (of places that answer with tensors), ``interrupt`` and ``skip`` (the buttons).
``at`` counts the solver's steps from 1; the autoencoder comes after all of them.

``GET /asyndm-faults/fired`` tells whether it came to that in the last job. ``GET /asyndm-faults/process`` tells the
memory of the process and how many tensors are alive in it.
"""

from __future__ import annotations

import gc
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import gradio as gr
import torch
from modules import processing, script_callbacks, scripts, sd_samplers_common, shared

try:
    from asyndm_ext.model import cross_probabilities, token_attention
    from asyndm_ext.region.regions import ObjectRegion
    from asyndm_ext.run import Run
except ImportError:  # the WebUI without the extension under test
    cross_probabilities = token_attention = ObjectRegion = Run = None


def network() -> torch.nn.Module:
    """Of the loaded model; Forge keeps it behind a patcher."""
    if hasattr(shared.sd_model, "forge_objects"):
        return shared.sd_model.forge_objects.unet.model.diffusion_model
    return shared.sd_model.model.diffusion_model


class Faults:
    """The fault of a job, and what had to be replaced for it."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.step = 1
        self.fired = False
        self.replaced = ExitStack()

    def prepare(self) -> None:
        """Before sampling: the network is that of the job's model."""
        self.replaced.close()
        if Run is not None:
            self.replace(Run, "move", self.counting)
        if self.settings["place"] == "model":
            handle = network().register_forward_hook(lambda module, args, output: self.strike(output))
            self.replaced.callback(handle.remove)
            return
        for owner, name in self.places()[self.settings["place"]]:
            self.replace(owner, name, self.failing)

    def places(self) -> dict:
        """Where the functions are kept that a job goes through."""
        return {
            "solver": [(Run, "move")],
            "capture": [(cross_probabilities, "token_probabilities"), (token_attention, "joint_probabilities")],
            "region": [(ObjectRegion, "strength")],
            "callback": [(sd_samplers_common.Sampler, "callback_state")],
            "decode": [(processing, "decode_latent_batch")],
        }

    def replace(self, owner, name, wrapper) -> None:
        """Until the job is over."""
        self.replaced.enter_context(mock.patch.object(owner, name, wrapper(getattr(owner, name))))

    def counting(self, function):
        def advance(*args, **keywords):
            answer = function(*args, **keywords)
            self.step += 1
            return answer

        return advance

    def failing(self, function):
        told = self.settings["place"] == "callback"  # by itself in which step; some solvers have ended theirs before

        def call(*args, **keywords):
            step = args[1]["i"] + 1 if told else self.step
            return self.strike(function(*args, **keywords), step)

        return call

    def strike(self, answer, step=None):
        """The place's answer, or what becomes of it.

        Args:
            step: in which it was asked, if that is not this one.
        """
        if self.fired or (step or self.step) != self.settings["at"]:
            return answer
        self.fired, fault = True, self.settings["fault"]
        if fault == "oom":
            raise torch.cuda.OutOfMemoryError("asyndm fault: CUDA out of memory")
        if fault == "raise":
            raise RuntimeError("asyndm fault: raised")
        shared.state.interrupted = shared.state.interrupted or fault == "interrupt"
        shared.state.skipped = shared.state.skipped or fault == "skip"
        return torch.full_like(answer, float("nan")) if fault == "nan" else answer


class Current:
    """The job that fails now, and whether the last one has."""

    job: Faults | None = None
    fired: bool = False

    @classmethod
    def end(cls) -> None:
        """Takes everything back."""
        if cls.job is not None:
            cls.job.replaced.close()
            cls.fired = cls.job.fired
        cls.job = None


class FaultsScript(scripts.Script):
    """Lets the jobs fail that ask for it."""

    def title(self):
        return "asyndm faults"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(value="", visible=False, elem_id=self.elem_id("settings"))]

    def before_process(self, p, settings=None, *rest):
        Current.end()
        Current.fired = False
        if isinstance(settings, dict):
            Current.job = Faults(settings)

    def process_before_every_sampling(self, p, *args, **kwargs):
        if Current.job is not None:
            Current.job.prepare()

    def postprocess(self, p, processed, *args):
        Current.end()


def fired() -> bool:
    """Whether the last job failed where it was to; takes the fault back first (a job that failed has not)."""
    Current.end()
    return Current.fired


def process() -> dict:
    """Memory of the process in KiB, and what the garbage collector leaves of tensors."""
    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return {
        "resident": resident,
        "tensors": len(found),
        "bytes": sum(one.numel() * one.element_size() for one in found),
        "objects": len(gc.get_objects()),
    }


def on_app_started(demo, app):
    """Adds the routes."""
    app.add_api_route("/asyndm-faults/fired", fired, methods=["GET"])
    app.add_api_route("/asyndm-faults/process", process, methods=["GET"])


script_callbacks.on_app_started(on_app_started)
