"""A pretend accelerator for machines without one: tensors with real numbers on a device of its own, ``gpu``.

The numbers are on the CPU, and so is what is made of them; but torch takes the tensors for those of another device. So
what CUDA would refuse is refused here (tensors of two devices in one operator), and every kernel, copy and read-back
is written down with file and line (:class:`asyndm_ext.bench.counting.Log`).

    with pretend.accelerator() as log:
        module.to(pretend.GPU)(x.to(pretend.GPU))
    print(log.told("copy"))

Needs torch 2.10 or newer; :func:`needed` skips a test elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from asyndm_ext.bench.counting import READS, Log, name_of, note

DEVICE = "gpu"
aten = torch.ops.aten
# Operators that a GPU has as one, though torch can take them apart.
_WHOLE = {aten.scaled_dot_product_attention.default}
_registered: list[Any] = []


class _Module:
    """What stands under ``torch.gpu``."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class OnDevice(Tensor):
    """A tensor of the pretend device. Attributes: ``inner``: its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(DEVICE, 0),
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnDevice({self.inner})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_Device.current or _Device(Log())).run(func, args, kwargs or {})


def _on(x: Any) -> bool:
    return x.type == DEVICE if isinstance(x, torch.device) else isinstance(x, OnDevice)


class _Device(TorchDispatchMode):
    current: _Device | None = None

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        wanted = kwargs.get("device")
        tensors = list(_all_tensors((args, kwargs)))
        if not any(map(_on, tensors)) and (wanted is None or not _on(torch.device(wanted))):
            return func(*args, **kwargs)
        name = name_of(func)
        if torch.is_inference_mode_enabled() and func not in _WHOLE and name not in READS:
            # Composite operators arrive whole there; taken apart they are the ones that are known.
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        if name == "_has_compatible_shallow_copy_type":
            return _on(args[0]) == _on(args[1])
        here = [t for t in tensors if _on(t)]
        _check(name, args, tensors, wanted)
        note(self.log, func, args, kwargs, _on)
        if name == "_fused_sdp_choice" and here:
            return 1  # flash attention
        inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
        if wanted is not None:
            inner_kwargs["device"] = torch.device("cpu")
        inner_kwargs.pop("non_blocking", None)
        if func is aten._scaled_dot_product_flash_attention.default:
            scale = {"scale": inner_kwargs.get("scale")}
            answer, sums = aten._scaled_dot_product_flash_attention_for_cpu(*inner_args[:3], **scale)
            none = torch.empty(0)
            out: Any = (answer, sums, none, none, answer.shape[2], answer.shape[2], none, none, none)
        else:
            out = func(*inner_args, **inner_kwargs)
        if name == "copy_":
            return args[0]
        if wanted is not None:
            to_device = _on(torch.device(wanted))
        else:
            to_device = bool(here)
        if not to_device:
            return out
        if isinstance(out, Tensor):  # in place: what came in goes out
            for one in here:
                if one.inner is out:
                    return one
        return tree_map(_outer, out)


class _Functions(TorchFunctionMode):
    """What torch decides above the operators: that this device has flash attention."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "scaled_dot_product_attention" and isinstance(args[0], OnDevice):
            more = [*args[3:], *(value for key, value in kwargs.items() if key != "scale")]
            if args[0].shape[-1] == args[2].shape[-1] and not any(isinstance(one, Tensor) or one for one in more):
                return aten._scaled_dot_product_flash_attention(*args[:3], scale=kwargs.get("scale"))[0]
            _check("attention", args, list(_all_tensors((args, kwargs))), None)
            if _Device.current is not None:
                _Device.current.log.add("kernel", "attention")
            inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
            return OnDevice(func(*inner_args, **inner_kwargs))
        return func(*args, **kwargs)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnDevice) else x


def _outer(x: Any) -> Any:
    return OnDevice(x) if isinstance(x, Tensor) and not isinstance(x, OnDevice) else x


def _all_tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict):
        yield from _all_tensors(list(x.values()))
    elif isinstance(x, (list, tuple)):
        for one in x:
            yield from _all_tensors(one)


def _check(name: str, args: Any, tensors: list[Tensor], wanted: Any) -> None:
    """Raises RuntimeError where CUDA would: tensors of two devices in one operator. Numbers (0 dimensions) may be
    anywhere, indices of a tensor on the device too."""
    if name in ("_to_copy", "copy_", "_copy_from") or not any(map(_on, tensors)):
        return
    elsewhere = [t for t in tensors if not _on(t) and t.ndim > 0]
    if name.startswith("index") and name not in ("index_select", "index_add_", "index_add") and _on(args[0]):
        elsewhere = [t for t in elsewhere if not any(t is i for i in args[1])]
    if elsewhere:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu in {name}")


def _empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Copies that are made below the modes, as ``torch.tensor(numbers, device=...)`` does."""
    _inner(target).copy_(_inner(source))
    if _Device.current is not None:
        if _on(target):
            _Device.current.log.add("copy", "numbers of a list", not non_blocking)
        else:
            _Device.current.log.add("read-back", "copy from the device", True)
    return target


def _register() -> None:
    """Once a process, and for good: torch knows no way back."""
    if _registered:
        return
    from torch.utils import backend_registration

    backend_registration._setup_privateuseone_for_python_backend(DEVICE, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    library.impl(
        "empty_strided",
        lambda size, stride, dtype=None, layout=None, device=None, pin_memory=None: _empty_strided(size, stride, dtype),
        "PrivateUse1",
    )
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    _registered.append(library)


def needed() -> None:
    """Skip the test where torch has no way to pretend a device."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # noqa: F401
    except ImportError:
        pytest.skip("this torch cannot pretend a device")


@contextmanager
def accelerator() -> Iterator[Log]:
    """The device is there inside this block, and what it is told is in the log."""
    needed()
    _register()
    # A module's parameters become the device's own tensors, of another class.
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    log = Log()
    mode = _Device(log)
    _Device.current = mode
    try:
        with _Functions(), mode:
            yield log
    finally:
        _Device.current = None
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def numbers(x: Tensor) -> Tensor:
    """Of a tensor of the device, without its noticing."""
    return _inner(x)
