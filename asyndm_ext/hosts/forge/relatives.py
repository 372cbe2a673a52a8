"""What Forge's relatives have in different places, looked up by structure.

They are one family: the CFG denoiser, the patcher whose options change a model's calls, the wrapper around the
network's call and the lists of conditions are the same in all of them. What is not, per relative as of 2026:

=====================  ==============================  ===============================
                       Forge, Forge Neo, ersatzForge   Forge Classic, reForge
=====================  ==============================  ===============================
the package            ``backend``                     ``ldm_patched``
a tensor per row       ``Condition``                   ``CONDRegular``
sigmas, timesteps      ``unet.model.predictor``        ``unet.model.model_sampling``
text encoder           engines of the model            as in AUTOMATIC1111
=====================  ==============================  ===============================

- The answer without the prompt: of Forge and ersatzForge the denoiser keeps it (as noise, and only there timestep
  samplers ask for it); Neo, Classic and reForge call a function after guidance, which the denoiser takes with
  ``model_options``. (reForge's denoiser has the other one's attribute too, and keeps something else there.)
- Control nets: reForge's do not ask those who want to change their input.
- Neo compiles the network anew for every call, by a function in the place of the model's own.

Nothing outside this module asks which relative it is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from asyndm_ext.hosts.webui.kind import CONDITIONS, has
from asyndm_ext.hosts.webui.network import is_compiled
from asyndm_ext.model.unet_time import UnsupportedModel

_SCALE = math.sqrt(0.5**2 + 1)
_KINDS = {
    "epsilon": (1.25 / _SCALE, 1.25 - 0.5 * 0.75),
    "v_prediction": (1.25 / _SCALE, 1.25 / _SCALE**2 - 0.5 * 0.75 / _SCALE),
    "const": (1.25, 1.25 - 0.5 * 0.75),
}
"""By kind the network's input and the denoised latent, for a latent of 1.25, an answer of 0.75 and sigma 0.5."""
NEEDED = ("forge_objects.unet.model.diffusion_model", "forge_objects.unet.model_options")
"""What a loaded model has to have; whatever else is missing has a place above."""
_MODIFIERS = "controlnet_conditioning_modifiers"
_COMPILES = "_torch_compile_config"


@dataclass(frozen=True)
class Relative:
    """What a relative calls itself, and the kinds of models that it loads and AsynDM supports.

    Attributes:
        package: one that no other has.
    """

    name: str
    package: str
    models: tuple[str, ...]


_LATER = ("Z-Image", "Lumina 2", "FLUX.2 Klein", "Anima", "Qwen-Image")

RELATIVES = (
    Relative("Forge Neo", "modules_forge.packages", ("SD 1.x", "SDXL", "Flux", "Chroma", *_LATER)),
    Relative("ersatzForge", "packages.huggingface_guess", ("SD 1.x", "SD 2.x", "SDXL", "Flux")),
    Relative("Forge", "backend", ("SD 1.x", "SD 2.x", "SDXL", "SD3", "Flux", "Chroma")),
    Relative("reForge", "k_diff", ("SD 1.x", "SD 2.x", "SDXL")),
    Relative("Forge Classic", "ldm_patched", ("SD 1.x", "SDXL")),
)
"""From those that are told by more to those that are told by less; for what is said about them, and nothing else."""


def relative() -> Relative:
    """The one that this process is."""
    return next(one for one in RELATIVES if has(one.package))


def condition_class() -> Callable[[Any], Any]:
    """What a tensor with a row per image is put into, so that the host joins it with its like."""
    name, attribute = next(found for found in CONDITIONS if has(found[0]))
    return getattr(import_module(name), attribute)


def predictor_of(model: Any) -> Any:
    """What knows the sigmas and timesteps of a loaded model (the patcher's ``model``).

    Raises:
        UnsupportedModel: nothing does.
    """
    for name in ("predictor", "model_sampling"):
        found = getattr(model, name, None)
        if found is not None:
            return found
    raise UnsupportedModel(f"{type(model).__name__} has no predictor")


def prediction_of(predictor: Any) -> str | None:
    """What a loaded model predicts: "epsilon", "v_prediction" or "const" (a rectified flow); None for anything else.

    Asked by what the predictor makes of an answer of the network: names and classes of the kinds differ, and extensions
    bring their own.
    """
    sigma, x, output = torch.tensor([0.5]), torch.full((1, 1, 1, 1), 1.25), torch.full((1, 1, 1, 1), 0.75)
    try:
        found = predictor.calculate_input(sigma, x), predictor.calculate_denoised(sigma, output, x)
        said = tuple(float(one) for one in found)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    for kind, expected in _KINDS.items():
        if all(math.isclose(one, other, rel_tol=1e-5) for one, other in zip(said, expected, strict=True)):
            return kind
    return None


def check_calls(sd_model: Any) -> None:
    """Raises UnsupportedModel: the loaded model lacks a place for what is put in, or the host runs something else than
    the network that it has loaded."""
    for path in NEEDED:
        found = sd_model
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is None:
            raise UnsupportedModel(f"{type(sd_model).__name__} has no {path}")
    model = sd_model.forge_objects.unet.model
    network = model.diffusion_model
    if getattr(model, _COMPILES, None) is not None or is_compiled(network):
        raise UnsupportedModel(f"{type(network).__name__} is compiled, and takes no timestep per pixel then")


def takes_model_options(denoiser: Any) -> bool:
    """Whether the denoiser hands ``model_options`` of a call on, with functions after guidance among them."""
    parameters = inspect.signature(type(denoiser).forward).parameters.values()
    return any(one.kind is one.VAR_KEYWORD or one.name == "model_options" for one in parameters)


def asks_modifiers(control: Any) -> bool:
    """Whether a control net asks those who want to change its input."""
    method = getattr(type(control), "get_control", None)
    code = getattr(inspect.unwrap(method), "__code__", None) if method is not None else None
    return code is None or _MODIFIERS in code.co_consts or _MODIFIERS in code.co_names
