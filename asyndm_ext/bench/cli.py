"""The ``asyndm bench`` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyndm_ext.commands import frame

if TYPE_CHECKING:
    import torch

    from asyndm_ext.bench.subjects import Subject

_DTYPES = ("float32", "bfloat16", "float16")
# On a CPU, so that a step takes seconds: of 512 x 512 pictures, with more than one image of 256 x 256.
_ONE_IMAGE, _MORE_IMAGES = 64, 32
_MAX_LATENT, _MAX_BATCH, _MAX_PAIRS = 512, 64, 12


def build_parser() -> frame.Parser:
    parser = frame.Parser(
        "asyndm bench",
        "What a sampling step costs with AsynDM, as a ratio to the same step without it, and the memory "
        "that it takes: of the embedded model, and of random networks of the shapes of real ones. Steps of both kinds "
        "take turns in one process.",
        "asyndm bench --quick --models sdxl flux",
    )
    add = parser.add_argument
    add("--models", nargs="+", type=_model, metavar="NAME", help="embedded, sd21, sdxl, sd3, flux (all)")
    add(
        "--batches",
        nargs="+",
        type=frame.whole(1, _MAX_BATCH),
        default=[1, 4],
        metavar="N",
        help=f"batch sizes, up to {_MAX_BATCH} (1 4)",
    )
    add(
        "--pairs",
        type=frame.whole(1, _MAX_PAIRS),
        default=5,
        metavar="N",
        help=f"steps of each kind, up to {_MAX_PAIRS} (%(default)s)",
    )
    add(
        "--devices",
        nargs="+",
        type=_device,
        metavar="NAME",
        help="cpu, cuda (the CPU, and a CUDA device where there is one)",
    )
    add(
        "--latent",
        type=_latent,
        metavar="N",
        help=f"side of the latent, a multiple of 8 up to {_MAX_LATENT} (the model's own; on the CPU {_ONE_IMAGE}, in"
        f" batches {_MORE_IMAGES})",
    )
    add("--dtype", choices=_DTYPES, help="of the random networks (float32; on CUDA float16)")
    add("--threads", type=frame.whole(1, 1024), metavar="N", help="of torch on the CPU (its own choice)")
    add("--full", action="store_true", help="the whole depth also on the CPU")
    add("--no-naive", action="store_true", help="leave out the naive way, which takes long and much memory")
    add("--quick", action="store_true", help="a look: latents of 32, 3 pairs, batch 1, unless told otherwise")
    add(
        "--count",
        action="store_true",
        help="not how long a step takes but what a GPU is told to do for it (kernels, copies, numbers read back): of"
        " sd21, sdxl, sd3 and flux at whole depth, on any machine",
    )
    add("--json", action="store_true", help="print the rows for programs")
    return parser


def _model(text: str) -> str:
    from asyndm_ext.bench.subjects import NAMES

    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"unknown name {text!r}; choose one of: {', '.join(NAMES)}")
    return text


def _device(text: str) -> str:
    """As torch has it. Raises ArgumentTypeError: this machine has no such device."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises any of these
        told = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"this machine has no device {text!r} that torch can use ({told})") from None
    return text


def _latent(text: str) -> int:
    side = frame.whole(8, _MAX_LATENT)(text)
    if side % 8:
        raise argparse.ArgumentTypeError(f"must be a multiple of 8, got {side}")
    return side


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Bad arguments leave by ``SystemExit(2)``, as argparse does."""
    parser = build_parser()
    given = sys.argv[1:] if argv is None else argv
    if "--quick" in given:
        parser.set_defaults(latent=_MORE_IMAGES, pairs=3, batches=[1])
    return frame.run(parser, argv, _bench)


def _bench(options: argparse.Namespace) -> int:
    import torch

    from asyndm_ext.bench import tables
    from asyndm_ext.bench.measure import compare, steps_of
    from asyndm_ext.bench.subjects import NAMES

    if options.count:
        return _count(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    devices = options.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    runs = [
        (torch.device(device), name, batch)
        for device in devices
        for name in options.models or NAMES
        for batch in options.batches
    ]

    def naive(batch: int) -> bool:
        # At more than one image the naive way says nothing new, and its matrices grow large.
        return batch == 1 and not options.no_naive

    rows: list[dict[str, Any]] = []
    total = sum(_share(name) * steps_of(options.pairs, naive(batch)) for _, name, batch in runs)
    with _progress(total) as bar:
        _say(bar, tables.HEADER, options.json)
        for device, name, batch in runs:
            bar.set_description(f"{name}, batch {batch}")
            subject = _subject(name, batch, device, options)
            about = _about(device, subject)
            for row in compare(subject, options.pairs, naive(batch), about, lambda: bar.update(_share(name))):  # noqa: B023
                rows.append(row)
                _say(bar, tables.line(row), options.json)
            del subject
    if options.json:
        print(json.dumps({"rows": rows}, indent=2))
    else:
        print(*tables.in_words(rows), sep="\n")
    return 0


def _count(options: argparse.Namespace) -> int:
    """What a GPU is told to do, in the place of how long it takes."""
    from asyndm_ext.bench import count, tables
    from asyndm_ext.bench.cases import CASES

    if set(options.models or ()) - set(CASES):
        raise frame.Refused(f"--count knows the networks {', '.join(CASES)}")
    runs = [(name, batch) for name in options.models or CASES for batch in options.batches]
    rows = []
    with _progress(len(runs)) as bar:
        _say(bar, tables.COUNT_HEADER, options.json)
        for name, batch in runs:
            bar.set_description(f"{name}, batch {batch}")
            rows.append(count.row(name, batch, options.latent))
            bar.update()
            _say(bar, tables.count_line(rows[-1]), options.json)
    if options.json:
        print(json.dumps({"rows": rows}, indent=2))
    else:
        print(*tables.count_in_words(rows), sep="\n")
    return 0


def _share(name: str) -> float:
    """About how long a step takes beside those of the other networks."""
    return {"embedded": 0.05, "sd21": 12.0, "sdxl": 10.0, "sd3": 4.5, "flux": 9.0}.get(name, 1.0)


def _progress(total: float) -> Any:
    bar = "{desc}: {percentage:3.0f}% |{bar}| about {remaining} left"
    return frame.progress(total=total, bar_format=bar, disable=None, leave=False)


def _say(bar: Any, text: str, aside: bool) -> None:
    """A line of the table, above the bar; ``aside``: not on stdout."""
    bar.clear()
    print(text, file=sys.stderr if aside else sys.stdout, flush=True)
    bar.refresh()


def _subject(name: str, batch: int, device: torch.device, options: argparse.Namespace) -> Subject:
    import torch

    from asyndm_ext.bench.subjects import EMBEDDED, embedded_subject, random_subject

    if name == EMBEDDED:
        return embedded_subject(batch, device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, options.dtype or ("float16" if on_gpu else "float32"))
    latent = options.latent
    if latent is None and not on_gpu:
        latent = _ONE_IMAGE if batch == 1 else _MORE_IMAGES
    return random_subject(name, batch, options.full or on_gpu, latent, device, dtype)


def _about(device: torch.device, subject: Subject) -> dict[str, Any]:
    import torch

    return {
        "device": device.type,
        "dtype": str(subject.host.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
