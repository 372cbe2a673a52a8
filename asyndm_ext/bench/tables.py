"""The rows of ``asyndm bench`` for a reader: lines of a table, and what they say in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_NAMES = {"sd21": "SD 2.1", "sdxl": "SDXL", "sd3": "SD3", "flux": "Flux", "embedded": "the embedded model"}

HEADER = (
    f"{'network':>9} {'device':>6} {'images':>6} {'latent':>8}  {'what':>6}  {'time of a step, beside a plain one':>36}"
    f"  {'a plain step':>12}  {'processor':>9}  memory"
)


def line(row: dict[str, Any]) -> str:
    """Under :data:`HEADER`."""
    spread = f"{row['ratio']:.3f} ({row['ratio_min']:.3f} to {row['ratio_max']:.3f})"
    return (
        f"{row['model']:>9} {row['device']:>6} {row['batch']:>6} {row['latent']:>8}  {row['variant']:>6}  {spread:>36}"
        f"  {row['step_seconds']:>10.3f} s  {row['cpu_ratio']:>9.3f}  {row['memory_ratio']:.3f} of "
        f"{row['memory_mib']:.0f} MiB"
    )


def in_words(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """What AsynDM costs, network by network."""
    for row in rows:
        if row["variant"] != "asyndm":
            continue
        off = next(
            other
            for other in rows
            if other["variant"] == "off" and all(other[key] == row[key] for key in ("model", "device", "batch"))
        )
        noise = max(off["ratio_max"] - 1, 1 - off["ratio_min"], 0.0)
        images = "1 image" if row["batch"] == 1 else f"{row['batch']} images"
        where = f"on {_NAMES.get(row['model'], row['model'])} ({row['device']}, {images})"
        cost, more = row["ratio"] - 1, row["memory_ratio"] - 1
        memory = "no more memory" if more < 0.0005 else f"{_percent(more)} more memory"
        if cost <= noise:
            yield (
                f"AsynDM costs less than can be seen here {where}: plain steps differ by {_percent(noise)} among "
                f"themselves, and with AsynDM it was {_percent(cost)}; {memory}."
            )
        else:
            yield f"AsynDM costs {_percent(cost)} of a step {where}, and {memory}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


COUNT_HEADER = (
    f"{'network':>9} {'images':>6} {'latent':>8}  {'kernels of a model call':>25}  {'copies to the device':>29}  "
    f"{'read back':>9}\n"
    f"{'':>9} {'':>6} {'':>8}  {'AsynDM':>8} {'plain':>8} {'ratio':>7}  {'in layers':>9} {'a step':>9} {'waiting':>9}  "
    f"{'a step':>9}"
)


def count_line(row: dict[str, Any]) -> str:
    """Under :data:`COUNT_HEADER`."""
    return (
        f"{row['model']:>9} {row['batch']:>6} {row['latent']:>8}  {row['kernels']:>8} {row['kernels_plain']:>8} "
        f"{row['ratio']:>7.3f}  {row['copies_in_network']:>9} {row['copies_per_step']:>9} {row['waiting_copies']:>9}  "
        f"{row['read_backs']:>9}"
    )


def count_in_words(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """What the counts mean."""
    for row in rows:
        images = "1 image" if row["batch"] == 1 else f"{row['batch']} images"
        more = row["kernels"] / row["kernels_plain"] - 1
        waits = row["waiting_copies"] + row["read_backs"]
        times = {0: "never", 1: "once"}.get(waits, f"{waits} times")
        yield (
            f"With AsynDM a GPU runs {_percent(more)} more kernels on {_NAMES[row['model']]} ({images}), "
            f"and the processor waits for it {times} a step."
        )
