"""What a device is told to do: kernels launched, copies to it, numbers read back from it.

Counted, not timed, so it is the same on every machine and needs no GPU: torch's meta device makes tensors without
numbers, and every operator on them comes by here. What is read back from it is made up.

A kernel is an operator that computes something; views and empty memory are free. Some operators are several kernels on
a real device (a sort, say), on both sides alike.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
Kind = Literal["kernel", "copy", "read-back"]

_FREE = {"_unsafe_view", "_reshape_alias", "detach_", "lift_fresh", "lift", "set_", "resize_", "record_stream"}
_QUESTIONS = {
    "_has_compatible_shallow_copy_type",
    "_fused_sdp_choice",
    "is_same_size",
    "sym_size",
    "sym_stride",
    "size",
}
_MEMORY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"}
_NUMBER = "one number (.item(), float(), int(), bool())"
_BETWEEN = ("bench/counting.py", "support/pretend.py", "machine/transfer.py")
READS = {
    "_local_scalar_dense": _NUMBER,
    "item": _NUMBER,
    "is_nonzero": _NUMBER,
    "equal": "torch.equal",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "unique_dim": "unique",
}
"""Operators that answer with numbers, or with shapes that depend on them: the processor waits for the device."""


@dataclass(frozen=True)
class Event:
    """Something that the device was told.

    Attributes:
        what: the operator, or what kind of copy.
        place: file and line that asked for it, outside torch.
        phase: what was going on, see :meth:`Log.during`; "" for nothing in particular.
        blocking: the processor waits.
    """

    kind: Kind
    what: str
    place: str
    phase: str
    blocking: bool = False


class Log:
    """All events, in their order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._phase = ""

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Events inside this block are of the phase; the innermost holds."""
        before, self._phase = self._phase, phase
        try:
            yield
        finally:
            self._phase = before

    def add(self, kind: Kind, what: str, blocking: bool = False) -> None:
        self.events.append(Event(kind, what, caller(), self._phase, blocking))

    def of(self, kind: Kind, phases: Sequence[str] | None = None) -> list[Event]:
        """Those of a kind; ``phases``: in these only."""
        return [e for e in self.events if e.kind == kind and (phases is None or e.phase in phases)]

    def told(self, kind: Kind, phases: Sequence[str] | None = None) -> str:
        """How often what was asked for where, for a reader."""
        found = Counter(f"{e.what}  {e.place}{'  (waits)' if e.blocking else ''}" for e in self.of(kind, phases))
        return "\n".join(f"{count:6d} {line}" for line, count in found.most_common())

    def clear(self) -> None:
        self.events.clear()


def caller() -> str:
    """``folder/file:line`` of the innermost frame that is neither torch's nor only in between."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename.replace("\\", "/")
        name = "/".join(path.split("/")[-2:])
        if "/torch/" not in path and name not in _BETWEEN and not path.startswith("<"):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


@cache
def name_of(operator: Any) -> str:
    """Without namespace and overload: ``add_``."""
    return operator._schema.name.partition("::")[2]


@cache
def launches(operator: Any) -> bool:
    """Whether it makes the device compute something."""
    name = name_of(operator)
    if name in _FREE or name in _QUESTIONS or name in _MEMORY:
        return False
    infos = [argument.alias_info for argument in operator._schema.arguments]
    return not any(info is not None and not info.is_write for info in infos)


def note(log: Log, operator: Any, args: Sequence[Any], kwargs: dict[str, Any], on: Callable[[Any], bool]) -> None:
    """Write down what an operator means for the device.

    Args:
        on: whether a tensor is on it.
    """
    name = name_of(operator)
    given = [a for a in args if isinstance(a, Tensor)]
    inside = any(on(a) for a in _tensors(args)) or any(on(a) for a in kwargs.values() if isinstance(a, Tensor))
    device = kwargs.get("device")
    if name in ("_to_copy", "copy_", "_copy_from"):
        target = given[0] if name == "copy_" else given[-1]
        source = given[-1] if name == "copy_" else given[0]
        to = on(target) if name != "_to_copy" else (on(source) if device is None else on(torch.device(device)))
        blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        if to and on(source):
            log.add("kernel", name)
        elif to:
            log.add("copy", "copy to the device", blocking)
        elif on(source):
            log.add("read-back", "copy from the device", True)
    elif inside and name in READS:
        log.add("read-back", READS[name], True)
    elif inside or (device is not None and on(torch.device(device))):
        if name.startswith("index"):
            _note_index(log, args, on)
        if launches(operator):
            log.add("kernel", name)


def _note_index(log: Log, args: Sequence[Any], on: Callable[[Any], bool]) -> None:
    for index in (i for a in args if isinstance(a, (list, tuple)) for i in a if isinstance(i, Tensor)):
        if not on(index):
            log.add("copy", "an index from the processor", True)
        elif index.dtype in (torch.bool, torch.uint8):
            log.add("read-back", "index by a mask", True)


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, (list, tuple)):
            yield from (one for one in a if isinstance(one, Tensor))


def _on_meta(x: Any) -> bool:
    return (x if isinstance(x, torch.device) else x.device).type == "meta"


class _Operators(TorchDispatchMode):
    """Counts, and answers for the device where it has no numbers."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        note(self.log, func, args, kwargs, _on_meta)
        name, device = name_of(func), kwargs.get("device")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and _on_meta(first):
            if name in ("_local_scalar_dense", "item", "is_nonzero"):
                return first.new_zeros((), device="cpu").item()
            if name == "equal":
                return True
            if name == "_to_copy" and device is not None and not _on_meta(torch.device(device)):
                return _made_up(first.shape, kwargs.get("dtype") or first.dtype)
        if name == "copy_" and first is not None and not _on_meta(first) and _on_meta(args[1]):
            return first.copy_(_made_up(first.shape, first.dtype))
        return func(*args, **kwargs)


def _made_up(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Numbers as a device might have them: the same each time."""
    draw = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.rand(shape, generator=draw).to(dtype)
    return torch.zeros(shape, dtype=dtype)


class _Functions(TorchFunctionMode):
    """What torch decides above the operators: which attention a device has, and copies that no operator makes."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("tensor", "as_tensor", "asarray") and kwargs.get("device") is not None:
            if _on_meta(torch.device(kwargs["device"])) and not (isinstance(args[0], Tensor)):
                self.log.add("copy", "numbers of a list", True)
        elif name == "_fused_sdp_choice" and _on_meta(args[0]):
            return 1  # flash attention
        elif name == "scaled_dot_product_attention" and _on_meta(args[0]):
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return func(*args, **kwargs)


@contextmanager
def counted() -> Iterator[Log]:
    """Everything that the meta device is told inside this block."""
    log = Log()
    with _Functions(log), _Operators(log):
        yield log
