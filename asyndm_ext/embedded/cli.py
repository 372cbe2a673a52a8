"""The ``asyndm`` command: one prompt, three clocks, five pictures.

Thin on purpose: reads the arguments, says what is wrong with them, writes files. :mod:`.sampling` makes the
pictures, :mod:`.filmstrip` lays them out.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyndm_ext import __version__

# A WebUI's environment may lack what only the embedded model needs.
_INSTALL = "pip install 'asyndm-webui[embedded]' brings it"

try:
    from PIL.PngImagePlugin import PngInfo
    from tqdm import tqdm

    from asyndm_ext.embedded import filmstrip
    from asyndm_ext.embedded.sampling import (
        COUNTED_SOLVERS,
        GUIDANCE,
        MAX_SIDE,
        SCHEDULERS,
        SIDE_STEP,
        VARIANTS,
        Job,
        Result,
        Variant,
        automatic_objects,
        run_variant,
        step_count,
    )
    from asyndm_ext.embedded.threads import threads_for
    from asyndm_ext.embedded.vocabulary import Tokenizer
    from asyndm_ext.objects import ObjectSpec, parse_objects
    from asyndm_ext.schedule import CURVES
    from asyndm_ext.settings import Settings
except ModuleNotFoundError as missing:
    raise SystemExit(f"asyndm: {missing.name} is missing; {_INSTALL}") from missing

if TYPE_CHECKING:
    from asyndm_ext.embedded.model import TinyModel

_EXAMPLE = 'asyndm "a red circle and a blue square"'
_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Bad arguments leave by ``SystemExit(2)``, as argparse does."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        objects, source = _objects(arguments)
        job = Job(
            prompt=" ".join(arguments.prompt.split()),
            seed=random.SystemRandom().randrange(2**32) if arguments.seed == -1 else arguments.seed,
            settings=Settings(
                enabled=True,
                objects=objects,
                strength=arguments.strength,
                curve=arguments.curve,
                threshold=arguments.threshold,
            ),
            steps=arguments.steps,
            solver=arguments.solver,
            scheduler=arguments.scheduler,
            guidance=arguments.guidance,
            width=arguments.size[0],
            height=arguments.size[1],
        )
        if arguments.out.exists() and not arguments.out.is_dir():
            raise ValueError(f"{arguments.out} is a file, not a folder")
    except ValueError as error:
        parser.error(str(error))
    try:
        # Here, after the arguments: diffusers takes seconds to import, and a typing error should be told at once.
        from asyndm_ext.embedded.model import load_tiny

        model = load_tiny()
        with threads_for(job.width * job.height):
            results = _sample(model, job)
            files = _write(model, job, results, arguments.out)
    except ModuleNotFoundError as missing:
        print(f"asyndm: {missing.name} is missing; {_INSTALL}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"asyndm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("asyndm: interrupted, nothing written", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(_summary(job, source, results, files), indent=2, ensure_ascii=False))
    else:
        _report(job, source, results, files)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The arguments; names of solvers, schedulers and curves come from their registries."""
    parser = argparse.ArgumentParser(
        prog="asyndm",
        description="Draw a prompt three times from the same noise: on the ordinary schedule, on a concave schedule"
        " for all pixels, and with AsynDM, where only the objects' pixels are slow. Writes the three images, a"
        " side-by-side picture and a filmstrip.",
        epilog=f"example: {_EXAMPLE}",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("prompt", help="coloured shapes, e.g. 'a red circle to the left of a blue square on a white background'")
    add("--seed", type=int, default=-1, help="of the starting noise; a random one if absent or -1")
    add("--steps", type=int, default=20, help="sampling steps (%(default)s)")
    add("--solver", type=_one_of(COUNTED_SOLVERS), default="Euler", help=f"{', '.join(COUNTED_SOLVERS)} (%(default)s)")
    add(
        "--scheduler",
        type=_one_of(SCHEDULERS),
        default="uniform",
        help=f"spacing of the noise levels: {', '.join(SCHEDULERS)} (%(default)s)",
    )
    add("--curve", type=_one_of(CURVES), default="quadratic", help=f"concave curve: {', '.join(CURVES)} (%(default)s)")
    add("--strength", type=float, default=0.7, help="how slow the objects are, 0 to 1 (%(default)s)")
    add("--objects", help="words of the prompt, with commas: 'red circle, blue square:0.4' (found in the prompt)")
    add(
        "--threshold",
        type=float,
        default=1.0,
        help="a pixel is the object's from this multiple of the word's mean attention on (%(default)s)",
    )
    add("--guidance", type=float, default=GUIDANCE, help="CFG scale (%(default)s)")
    add("--size", type=_size, default=(128, 128), help=f"128 or 128x192: multiples of {SIDE_STEP} up to {MAX_SIDE}")
    add("--out", type=Path, default=Path("asyndm_out"), help="folder for the pictures (%(default)s)")
    add("--json", action="store_true", help="print a summary for programs")
    add("--version", action="version", version=f"asyndm {__version__}")
    return parser


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: one of the names, letter case aside."""
    known = {name.casefold(): name for name in names}

    def parse(text: str) -> str:
        if text.casefold() not in known:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}; choose one of: {', '.join(names)}")
        return known[text.casefold()]

    return parse


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 128 or 128x192 (width x height)")
    return int(match[1]), int(match[2] or match[1])


def _objects(arguments: argparse.Namespace) -> tuple[tuple[ObjectSpec, ...], str]:
    """The objects, and where they come from."""
    given = parse_objects(arguments.objects)
    if given:
        return given, "--objects"
    return tuple(map(ObjectSpec, automatic_objects(Tokenizer().words(arguments.prompt)))), "prompt"


def _sample(model: TinyModel, job: Job) -> dict[Variant, Result]:
    """All variants, one after the other, under one progress bar on stderr."""
    with tqdm(total=len(VARIANTS) * step_count(model, job), unit="step", file=sys.stderr) as bar:
        results: dict[Variant, Result] = {}
        for variant in VARIANTS:
            bar.set_description(f"{variant:>7}")
            results[variant] = run_variant(model, job, variant, on_step=bar.update)
    return results


def _write(model: TinyModel, job: Job, results: dict[Variant, Result], folder: Path) -> dict[str, Path]:
    """All pictures, each with its parameters in a text chunk. Everything is drawn before the first file appears."""
    pictures = {variant: filmstrip.to_picture(model.decode(result.latent)[0]) for variant, result in results.items()}
    drawn = {
        **{str(variant): (picture, job.infotext(variant)) for variant, picture in pictures.items()},
        "comparison": (filmstrip.comparison(job, results, pictures), job.infotext()),
        "filmstrip": (filmstrip.filmstrip(job, results["asyndm"], model.decode), job.infotext()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, (picture, parameters) in drawn.items():
        text = PngInfo()
        text.add_text("parameters", parameters)
        files[name] = folder / f"{name}.png"
        picture.save(files[name], pnginfo=text)
    return files


def _summary(job: Job, source: str, results: dict[Variant, Result], files: dict[str, Path]) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "version": __version__,
        "prompt": job.prompt,
        "seed": job.seed,
        "parameters": {
            "steps": job.steps,
            "solver": job.solver,
            "scheduler": job.scheduler,
            "curve": job.settings.curve,
            "strength": job.settings.strength,
            "threshold": job.settings.threshold,
            "guidance": job.guidance,
            "width": job.width,
            "height": job.height,
        },
        "objects": [
            {"words": str(spec), "columns": columns}
            for spec, columns in zip(job.settings.objects, job.columns, strict=True)
        ],
        "objects_from": source,
        "runs": {
            variant: {
                "seconds_per_step": round(result.seconds_per_step, 4),
                "slow_fraction": result.slow_fraction,
                "timesteps": result.timestep_range,
            }
            for variant, result in results.items()
        },
        "files": {name: str(path.resolve()) for name, path in files.items()},
    }


def _report(job: Job, source: str, results: dict[Variant, Result], files: dict[str, Path]) -> None:
    """What a person reads."""
    found = "found in the prompt" if source == "prompt" else "as given"
    print(f"objects: {', '.join(map(str, job.settings.objects))} ({found}); seed: {job.seed}")
    for variant, result in results.items():
        print(f"{variant:>10}: {files[variant]} ({result.seconds_per_step:.3f} s a step)")
    for name in ("comparison", "filmstrip"):
        print(f"{name:>10}: {files[name]}")
