"""A WebUI extension for tests only: breaks a job on request and tells what state the host is in.

A request switches it on with a dict as the first argument of the always-on script "asyndm probe"::

    "alwayson_scripts": {"asyndm probe": {"args": [{"raise_at": 3}]}}

========================  ===================================================================================
``raise_at: k``           the k-th call of the UNet in this job (from 1) raises RuntimeError
``nan_at: k``             the k-th call gets NaN as its input, so it returns NaN
``interrupt_at: k``       "Interrupt" is pressed during the k-th call
``skip_at: k``            "Skip" is pressed during the k-th call
``hold_at: k``            the k-th call waits for ``POST /asyndm-probe/go``
``record_sigmas: true``   keeps what on_cfg_denoiser callbacks are given as sigma, step by step
``snapshot: true``        keeps the host's state as it is during the first call
``{}``                    nothing of these: only records the calls
========================  ===================================================================================

``GET /asyndm-probe/state`` describes the host now: hooks and overridden methods of the loaded model, where the
functions that extensions like to replace come from, samplers and callbacks. Nothing in it changes by itself, so a
test compares the answers before and after. The probe's own hook is left out.

``GET /asyndm-probe/last`` tells what the last probed job did: each call of the UNet with its timesteps and shape.

``POST /asyndm-probe/reload`` presses "Reload UI" (with the page only).
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
from collections import Counter

import gradio as gr
import torch
from modules import script_callbacks, scripts, sd_samplers, shared

HELD_SECONDS = 120
FAULTS = ("raise_at", "nan_at", "interrupt_at", "skip_at")
# Modules whose functions and methods are fingerprinted, as far as they are imported.
WATCHED = (
    "backend.attention",
    "backend.modules.k_model",
    "backend.modules.k_prediction",
    "backend.nn.flux",
    "backend.nn.mmditx",
    "backend.nn.unet",
    "backend.patcher.base",
    "backend.patcher.unet",
    "backend.sampling.sampling_function",
    "k_diffusion.external",
    "k_diffusion.sampling",
    "k_diffusion.utils",
    "ldm.modules.attention",
    "ldm.modules.diffusionmodules.openaimodel",
    "ldm.models.diffusion.ddpm",
    "sgm.modules.attention",
    "sgm.modules.diffusionmodules.openaimodel",
    "sgm.modules.diffusionmodules.wrappers",
    "modules.models.sd3.mmdit",
    "modules.models.sd3.sd3_impls",
    "modules.processing",
    "modules.prompt_parser",
    "modules.rng",
    "modules.scripts",
    "modules.sd_hijack_clip",
    "modules.sd_samplers",
    "modules.sd_samplers_cfg_denoiser",
    "modules.sd_samplers_common",
    "modules.sd_samplers_kdiffusion",
    "modules.sd_samplers_lcm",
    "modules.sd_samplers_timesteps",
    "modules.sd_samplers_timesteps_impl",
    "modules.sd_schedulers",
    "torch.nn.modules.conv",
    "torch.nn.modules.linear",
    "torch.nn.modules.module",
    "torch.nn.modules.normalization",
)


def loaded_model() -> torch.nn.Module:
    """The module with the UNet in it; Forge keeps it behind a patcher."""
    if hasattr(shared.sd_model, "forge_objects"):
        return shared.sd_model.forge_objects.unet.model
    return shared.sd_model.model


def seed_torch() -> None:
    """The autoencoder of img2img takes its noise from torch's own generator (in Forge so do the kept pixels of an
    inpainting), wherever the job before has left it: without this no two of the host's pictures are quite alike."""
    torch.manual_seed(0)


def patcher_state() -> dict:
    """Options of Forge's patcher, through which its extensions change the model's calls; empty elsewhere."""
    if not hasattr(shared.sd_model, "forge_objects"):
        return {}
    patcher = shared.sd_model.forge_objects.unet
    options = {**patcher.model_options, **patcher.model_options.get("transformer_options", {})}
    options.pop("sampling_sigmas", None)  # Forge Neo keeps the last job's
    return {name: origin(value) if callable(value) else len(value) for name, value in sorted(options.items())}


def tensor_summary(value):
    """Values of a small tensor, the range of a large one; JSON either way."""
    if not isinstance(value, torch.Tensor):
        return {"value": repr(value)}
    value = value.detach().float().cpu()
    summary = {"shape": list(value.shape)}
    if value.numel() <= 64:
        summary["values"] = value.flatten().tolist()
    else:
        summary.update(min=value.min().item(), max=value.max().item(), mean=value.mean().item())
    return summary


class Job:
    """Faults and records of one job; itself the pre-hook on the UNet."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.calls: list[dict] = []
        self.sigmas: list[dict] = []
        self.fired: list[str] = []
        self.during = None
        self.finished = False
        self.network = None
        self.handle = None
        self.held = False
        self.go = threading.Event()

    def attach(self):
        """Hooks the UNet that is loaded now; it may change within a job."""
        network = loaded_model().diffusion_model
        if network is not self.network:
            self.detach()
            self.network = network
            self.handle = network.register_forward_pre_hook(self, with_kwargs=True)

    def detach(self):
        """Takes the hook off again."""
        if self.handle is not None:
            self.handle.remove()
        self.handle = self.network = None

    def __call__(self, module, args, kwargs):
        x = args[0] if args else kwargs["x"]
        timesteps = args[1] if len(args) > 1 else kwargs.get("timesteps")
        self.calls.append({"shape": list(x.shape), "dtype": str(x.dtype), "timesteps": tensor_summary(timesteps)})
        number = len(self.calls)
        if number == 1 and self.settings.get("snapshot"):
            self.during = host_state()
        if self.settings.get("hold_at") == number:
            self.held = True
            self.go.wait(HELD_SECONDS)
            self.held = False
        now = [name for name in FAULTS if self.settings.get(name) == number]
        self.fired += now
        if "interrupt_at" in now:
            shared.state.interrupted = True
        if "skip_at" in now:
            shared.state.skipped = True
        if "raise_at" in now:
            self.detach()
            raise RuntimeError(f"asyndm probe: fault in call {number} of the UNet")
        if "nan_at" in now:
            broken = torch.full_like(x, float("nan"))
            return ((broken, *args[1:]), kwargs) if args else (args, {**kwargs, "x": broken})
        return None

    def as_dict(self) -> dict:
        """What the route answers."""
        return {
            "settings": self.settings,
            "calls": self.calls,
            "timesteps": [call["timesteps"].get("values") for call in self.calls],
            "sigmas": self.sigmas,
            "fired": self.fired,
            "held": self.held,
            "during": self.during,
            "finished": self.finished,
        }


class Current:
    """The job that is probed now, and the last one."""

    job: Job | None = None
    last: Job | None = None

    @classmethod
    def begin(cls, settings: dict | None) -> None:
        """Ends what an earlier job has left, and starts to probe when a request asks for it."""
        if cls.job is not None:
            cls.job.detach()
        cls.job = None if settings is None else Job(settings)
        cls.last = cls.job or cls.last


def parse(argument) -> dict | None:
    """The settings of a request; the page sends text."""
    if isinstance(argument, str):
        argument = json.loads(argument) if argument.strip() else None
    return argument if isinstance(argument, dict) else None


class ProbeScript(scripts.Script):
    """Switches the probe on for the jobs that ask for it."""

    def title(self):
        return "asyndm probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(value="", label="asyndm probe", visible=False, elem_id=self.elem_id("settings"))]

    def before_process(self, p, argument=None, *rest):
        Current.begin(parse(argument))

    def process(self, p, *args):
        seed_torch()

    def process_before_every_sampling(self, p, *args, **kwargs):
        seed_torch()
        if Current.job is not None:
            Current.job.attach()

    def postprocess(self, p, processed, *args):
        if Current.job is not None:
            Current.job.finished = True
            Current.job.detach()
            Current.job = None


def on_cfg_denoiser(params):
    """Follows a change of model within the job and records the noise level."""
    job = Current.job
    if job is None:
        return
    job.attach()
    if job.settings.get("record_sigmas"):
        job.sigmas.append({"step": params.sampling_step, **tensor_summary(params.sigma)})


# ------------------------------------------------------------------------------------------------------- state


def origin(function) -> str:
    """Where a function comes from: qualified name, file and line, which no wrapper can fake."""
    chain = []
    while function is not None:
        inner = inspect.unwrap(function, stop=lambda _: True)
        code = getattr(getattr(inner, "__func__", inner), "__code__", None)
        place = (
            f"{code.co_filename.split('site-packages/')[-1]}:{code.co_firstlineno}" if code else type(inner).__name__
        )
        name = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', '?')}"
        chain.append(f"{name} ({place})")
        function = getattr(inner, "__wrapped__", None)
    return " wraps ".join(chain)


def watched_functions() -> dict[str, str]:
    """Origins of all functions, and of all methods of classes, in the watched modules."""
    result = {}
    for module_name in WATCHED:
        module = sys.modules.get(module_name)
        for name, value in sorted(vars(module).items()) if module else ():
            if inspect.isclass(value):
                for method_name, entry in sorted(vars(value).items()):
                    method = getattr(entry, "__func__", entry)  # of class and static methods
                    if inspect.isroutine(method):
                        result[f"{module_name}.{name}.{method_name}"] = origin(method)
            elif inspect.isroutine(value):
                result[f"{module_name}.{name}"] = origin(value)
            elif name == "torch":  # the WebUI puts an object of its own here
                result[f"{module_name}.{name}"] = f"{type(value).__module__}.{type(value).__qualname__}"
    return result


def model_state(model) -> dict:
    """Hooks, methods overridden on instances and classes of a model's modules."""
    hooks: dict[str, list[str]] = {}
    overrides: dict[str, str] = {}
    classes: Counter = Counter()
    for name, module in model.named_modules():
        classes[f"{type(module).__module__}.{type(module).__qualname__}"] += 1
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            found = [hook for hook in getattr(module, kind, {}).values() if type(hook).__name__ != Job.__name__]
            if found:
                hooks[f"{name} {kind}"] = [origin(hook) for hook in found]
        for attribute, value in vars(module).items():
            if callable(value) and not isinstance(value, torch.nn.Module) and hasattr(type(module), attribute):
                overrides[f"{name}.{attribute}"] = origin(value)
    return {
        "hook_count": sum(map(len, hooks.values())),
        "hooks": hooks,
        "overrides": overrides,
        "forward_overrides": sorted(name for name in overrides if name.endswith(".forward")),
        "classes": dict(sorted(classes.items())),
    }


def host_state() -> dict:
    """Everything that an extension may leave changed, without ids and addresses."""
    callbacks = {
        category.removeprefix("callbacks_"): sorted(origin(getattr(entry, "callback", entry)) for entry in entries)
        for category, entries in script_callbacks.callback_map.items()
    }
    global_hooks = torch.nn.modules.module
    return {
        "model": model_state(shared.sd_model if isinstance(shared.sd_model, torch.nn.Module) else loaded_model()),
        "patcher": patcher_state(),
        "global_hooks": {
            name: len(getattr(global_hooks, name)) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")
        },
        "samplers": [sampler.name for sampler in sd_samplers.samplers],
        "all_samplers": [sampler.name for sampler in sd_samplers.all_samplers],
        "functions": watched_functions(),
        "callbacks": callbacks,
        "callback_counts": {category: len(entries) for category, entries in callbacks.items()},
        "duplicate_callbacks": {
            category: sorted(name for name, count in Counter(entries).items() if count > 1)
            for category, entries in callbacks.items()
            if len(set(entries)) < len(entries)
        },
        "scripts": [script.title() for script in scripts.scripts_txt2img.alwayson_scripts],
        "state": {name: origin(value) for name, value in vars(shared.state).items() if callable(value)},
        "grad_enabled": torch.is_grad_enabled(),
        "default_dtype": str(torch.get_default_dtype()),
        "interrupted": shared.state.interrupted,
        "skipped": shared.state.skipped,
    }


def go() -> None:
    """Lets a job that is held go on."""
    if Current.job is not None:
        Current.job.go.set()


def on_app_started(demo, app):
    """Adds the routes."""
    app.add_api_route("/asyndm-probe/go", go, methods=["POST"])
    app.add_api_route("/asyndm-probe/state", host_state, methods=["GET"])
    app.add_api_route(
        "/asyndm-probe/last", lambda: Current.last.as_dict() if Current.last is not None else {}, methods=["GET"]
    )
    app.add_api_route("/asyndm-probe/reload", shared.state.request_restart, methods=["POST"])


script_callbacks.on_cfg_denoiser(on_cfg_denoiser)
script_callbacks.on_app_started(on_app_started)
