"""The ``asyndm bench`` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

_INSTALL = "pip install 'asyndm-webui[embedded]' brings it"

try:
    import torch

    from asyndm_ext.bench.measure import compare
    from asyndm_ext.bench.subjects import EMBEDDED, NAMES, Subject, embedded_subject, random_subject
except ModuleNotFoundError as missing:
    raise SystemExit(f"asyndm: {missing.name} is missing; {_INSTALL}") from missing

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# On a CPU, so that a step takes seconds: of 512 x 512 pictures, with more than one image of 256 x 256.
_ONE_IMAGE, _MORE_IMAGES = 64, 32


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asyndm bench",
        description="What a sampling step costs with AsynDM, as a ratio to the same step without it, and the memory "
        "that it takes: of the embedded model, and of random networks of the shapes of real ones. Steps of both kinds "
        "take turns in one process.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=NAMES, default=list(NAMES), help="which networks (all)")
    add("--batches", nargs="+", type=int, default=[1, 4], help="batch sizes (1 4)")
    add("--pairs", type=int, default=5, help="steps of each kind (%(default)s, up to 12)")
    add("--devices", nargs="+", help="cpu, cuda (the CPU, and a CUDA device where there is one)")
    add(
        "--latent", type=int, help="side of the latent, a multiple of 8 (the model's own; on the CPU 64, in batches 32)"
    )
    add("--dtype", choices=_DTYPES, help="of the random networks (float32; on CUDA float16)")
    add("--threads", type=int, help="of torch on the CPU (its own choice)")
    add("--full", action="store_true", help="the whole depth also on the CPU")
    add("--no-naive", action="store_true", help="leave out the naive way, which takes long and much memory")
    add("--quick", action="store_true", help="a look: latents of 32, 3 pairs, batch 1, unless told otherwise")
    add("--json", action="store_true", help="print the rows for programs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Bad arguments leave by ``SystemExit(2)``, as argparse does."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    arguments = parser.parse_args(arguments_given)
    if arguments.quick:
        parser.set_defaults(latent=_MORE_IMAGES, pairs=3, batches=[1])
        arguments = parser.parse_args(arguments_given)
    if arguments.latent is not None and (arguments.latent <= 0 or arguments.latent % 8):
        parser.error(f"--latent must be a multiple of 8, got {arguments.latent}")
    if not 1 <= arguments.pairs <= 12:
        parser.error(f"--pairs must be between 1 and 12, got {arguments.pairs}")
    if min(arguments.batches) < 1:
        parser.error("--batches must be 1 or more")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    devices = arguments.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = []
    for device in map(torch.device, devices):
        for name in arguments.models:
            for batch in arguments.batches:
                subject = _subject(name, batch, device, arguments)
                about = _about(device, subject)
                # At more than one image the naive way says nothing new, and its matrices grow large.
                for row in compare(subject, arguments.pairs, batch == 1 and not arguments.no_naive, about):
                    rows.append(row)
                    print(_line(row), file=sys.stderr if arguments.json else sys.stdout, flush=True)
                del subject
    if arguments.json:
        print(json.dumps({"rows": rows}, indent=2))
    return 0


def _subject(name: str, batch: int, device: torch.device, arguments: argparse.Namespace) -> Subject:
    if name == EMBEDDED:
        return embedded_subject(batch, device)
    on_gpu = device.type == "cuda"
    dtype = _DTYPES[arguments.dtype or ("float16" if on_gpu else "float32")]
    latent = arguments.latent
    if latent is None and not on_gpu:
        latent = _ONE_IMAGE if batch == 1 else _MORE_IMAGES
    return random_subject(name, batch, arguments.full or on_gpu, latent, device, dtype)


def _about(device: torch.device, subject: Subject) -> dict[str, Any]:
    return {
        "device": device.type,
        "dtype": str(subject.host.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['model']:>9} {row['device']} batch {row['batch']} {row['latent']:>7} {row['variant']:>7}: "
        f"{row['ratio']:.3f} ({row['ratio_min']:.3f} to {row['ratio_max']:.3f}) of {row['step_seconds']:.3f} s a step, "
        f"processor {row['cpu_ratio']:.3f}, memory {row['memory_ratio']:.3f} of {row['memory_mib']:.0f} MiB"
    )


if __name__ == "__main__":
    raise SystemExit(main())
