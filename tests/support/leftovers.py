"""What a generation leaves behind: hooks, exchanged functions and classes, switches of torch, tensors."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks"),
)


def state(*networks: nn.Module) -> dict[str, Any]:
    """All that must be as before; compare two of them with ``==``."""
    global_hooks = torch.nn.modules.module
    return {
        "hooks": [[len(getattr(m, kind)) for kind in HOOKS] for n in networks for m in n.modules()],
        "attributes": [sorted(vars(m)) for n in networks for m in n.modules()],
        "classes": [id(type(m)) for n in networks for m in n.modules()],
        "training": [m.training for n in networks for m in n.modules()],
        "weights": [(p.data_ptr(), p.dtype, p._version) for n in networks for p in n.parameters()],
        "global hooks": [
            len(getattr(global_hooks, name)) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")
        ],
        "functions": _functions(networks),
        "random": torch.get_rng_state().numpy().tobytes(),
        "switches": (torch.is_grad_enabled(), _under_autocast(), torch.get_default_dtype()),
    }


def _under_autocast() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


def _functions(networks: tuple[nn.Module, ...]) -> dict[str, int]:
    """Identities of what people like to replace: torch's attention and noise, the methods of the networks' modules, and
    everything callable in our own."""
    functional = torch.nn.functional
    watched = (functional.scaled_dot_product_attention, functional.linear, functional.conv2d, torch.randn)
    found = {function.__name__: id(function) for function in (*watched, torch.randn_like, torch.Tensor.to)}
    classes = {type(m) for network in networks for m in network.modules()}
    for name, module in list(sys.modules.items()):
        if name.startswith("asyndm_ext"):
            own = {key: value for key, value in vars(module).items() if callable(value)}
            found |= {f"{name}.{key}": id(value) for key, value in own.items()}
            classes |= {value for value in own.values() if isinstance(value, type)}
    for one in classes:
        members = vars(one).items()
        found |= {f"{one.__module__}.{one.__qualname__}.{key}": id(value) for key, value in members if callable(value)}
    return found


@contextmanager
def tensors() -> Iterator[Counter[str]]:
    """Counts, when the block is left, the tensors that came into being in it and are alive, by their shape and type.

    The garbage collector stands still in the block: what it would have to come for is still there, on an accelerator
    too, when the next picture needs the memory.
    """
    alive: Counter[str] = Counter()
    gc.disable()
    gc.freeze()  # what is there already is not looked at
    try:
        yield alive
        alive.update(f"{tuple(o.shape)} {o.dtype}" for o in gc.get_objects() if isinstance(o, Tensor))
    finally:
        gc.unfreeze()
        gc.enable()
