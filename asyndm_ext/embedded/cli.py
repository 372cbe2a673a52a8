"""The drawing: one prompt, three clocks, five pictures.

Thin on purpose: reads the arguments, says what is wrong with them, writes files. :mod:`.sampling` makes the
pictures, :mod:`.filmstrip` lays them out. What needs torch is imported where it is used, so that help comes at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import re
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from asyndm_ext import __version__
from asyndm_ext.commands import folders, frame, interrupts
from asyndm_ext.commands.main import COMMANDS
from asyndm_ext.embedded.limits import GUIDANCE, MAX_GUIDANCE, MAX_SIDE, SCHEDULERS, SIDE_STEP

if TYPE_CHECKING:
    from PIL import Image

    from asyndm_ext.embedded.sampling import Job, Result, Variant
    from asyndm_ext.objects import ObjectSpec
    from asyndm_ext.world.model import WorldModel

_EXAMPLE = 'asyndm "a shark riding a bike"'
_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Bad arguments leave by ``SystemExit(2)``, as argparse does."""
    return frame.run(build_parser(), argv, _draw, interrupted="interrupted, nothing written")


class _Parser(frame.Parser):
    """Knows that a prompt has spaces in it."""

    def unknown(self, left: Sequence[str]) -> str:
        if left[0].startswith("-"):
            return super().unknown(left)
        return f"the prompt or a value is in pieces ({left[0]!r} is left over); put each into quotes: {_EXAMPLE}"


def build_parser() -> frame.Parser:
    """The arguments."""
    listed = "\n".join(f"  {name:<10}{command.does}" for name, command in COMMANDS.items())
    parser = _Parser(
        "asyndm",
        "Draw a prompt three times from the same noise: on the ordinary schedule, on a concave schedule for all"
        " pixels, and with AsynDM, where only the objects' pixels are slow. Writes the three images, a side-by-side"
        " picture and a filmstrip.",
        _EXAMPLE,
        usage=f'asyndm "PROMPT" [OPTIONS]\n       asyndm COMMAND [OPTIONS]\n\ncommands:\n{listed}\n'
        '  "asyndm COMMAND --help" lists the options of a command; those of draw are below.',
    )
    add = parser.add_argument
    add(
        "prompt",
        nargs="*",
        metavar="PROMPT",
        help="an animal, perhaps with a thing and a place: 'two penguins beside a red boat at dusk'",
    )
    add(
        "--seed",
        type=frame.whole(),
        default=-1,
        metavar="N",
        help="of the starting noise; a random one if absent or -1",
    )
    add("--steps", type=frame.whole(), default=20, metavar="N", help="sampling steps (%(default)s)")
    add(
        "--solver",
        type=_one_of("asyndm_ext.embedded.sampling", "COUNTED_SOLVERS"),
        default="Euler",
        metavar="NAME",
        help="Euler, Euler a, Heun, DPM++ 2M, DPM++ 2M SDE, DDIM, UniPC or another of the WebUI's samplers; see"
        " --list-solvers (%(default)s)",
    )
    add("--list-solvers", action=_ListSolvers, help="name all solvers, and stop")
    add(
        "--scheduler",
        type=_one_of("asyndm_ext.embedded.limits", "SCHEDULERS"),
        default="uniform",
        metavar="NAME",
        help=f"spacing of the noise levels: {', '.join(SCHEDULERS)} (%(default)s)",
    )
    add(
        "--curve",
        type=_one_of("asyndm_ext.schedule", "CURVES"),
        default="quadratic",
        metavar="NAME",
        help="concave curve: quadratic, piecewise linear, exponential, linear (%(default)s)",
    )
    add(
        "--strength", type=frame.number, default=0.7, metavar="S", help="how slow the objects are, 0 to 1 (%(default)s)"
    )
    add(
        "--objects",
        metavar="WORDS",
        help="words of the prompt, with commas: 'shark, bike:0.4' (found in the prompt)",
    )
    add(
        "--threshold",
        type=frame.number,
        default=1.0,
        metavar="T",
        help="a pixel is the object's from this multiple of the word's mean attention on, 0.1 to 5 (%(default)s)",
    )
    add(
        "--guidance",
        type=frame.number,
        default=GUIDANCE,
        metavar="G",
        help=f"CFG scale, 0 to {MAX_GUIDANCE:g} (%(default)s)",
    )
    add(
        "--size",
        type=_size,
        default=(128, 128),
        metavar="WxH",
        help=f"128 or 128x192: multiples of {SIDE_STEP} from {SIDE_STEP} to {MAX_SIDE} (128)",
    )
    add(
        "--out",
        type=Path,
        default=Path("asyndm_out"),
        metavar="FOLDER",
        help="for the pictures; where earlier ones are, a number is added (%(default)s)",
    )
    add("--json", action="store_true", help="print a summary for programs")
    return parser


class _ListSolvers(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        from asyndm_ext.embedded.sampling import COUNTED_SOLVERS

        print("\n".join(COUNTED_SOLVERS))
        parser.exit()


def _one_of(module: str, table: str) -> Callable[[str], str]:
    """An argparse type: one of the names in a table, letter case aside. Imported only for a name."""

    def parse(text: str) -> str:
        names: Sequence[str] = getattr(importlib.import_module(module), table)
        known = {name.casefold(): name for name in names}
        if text.casefold() not in known:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}; choose one of: {', '.join(names)}")
        return known[text.casefold()]

    return parse


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 128 or 128x192 (width x height)")
    return int(match[1]), int(match[2] or match[1])


def _prompt(words: Sequence[str]) -> str:
    """Without quotes the shell hands over single words. Raises ValueError where it is unclear what belongs together."""
    if not words:
        raise ValueError(f"there is no prompt; write one behind the command: {_EXAMPLE}")
    if len(words) > 1 and any(" " in word for word in words):
        pieces = ", ".join(map(repr, words))
        raise ValueError(
            f"the prompt is in pieces ({pieces}); put it into quotes: asyndm {shlex.quote(' '.join(words))}"
        )
    return " ".join(" ".join(words).split())


def _job(options: argparse.Namespace) -> tuple[Job, str]:
    """What to draw, and where its objects come from. Raises ValueError for what cannot be."""
    from asyndm_ext.embedded.sampling import Job
    from asyndm_ext.settings import Settings

    prompt = _prompt(options.prompt)
    objects, source = _objects(options.objects, prompt)
    settings = Settings(
        enabled=True, objects=objects, strength=options.strength, curve=options.curve, threshold=options.threshold
    )
    job = Job(
        prompt=prompt,
        seed=random.SystemRandom().randrange(2**32) if options.seed == -1 else options.seed,
        settings=settings,
        steps=options.steps,
        solver=options.solver,
        scheduler=options.scheduler,
        guidance=options.guidance,
        width=options.size[0],
        height=options.size[1],
    )
    return job, source


def _objects(given: str | None, prompt: str) -> tuple[tuple[ObjectSpec, ...], str]:
    from asyndm_ext.embedded.sampling import automatic_objects
    from asyndm_ext.objects import ObjectSpec, parse_objects

    named = parse_objects(given)
    if named:
        return named, "--objects"
    return tuple(map(ObjectSpec, automatic_objects(prompt))), "prompt"


def _draw(options: argparse.Namespace) -> int:
    with frame.checking():
        job, source = _job(options)
        folders.check(options.out)
    # After the arguments: diffusers takes seconds to import, and a typing error should be told at once.
    from asyndm_ext.embedded.threads import threads_for
    from asyndm_ext.world.model import load_world

    model = load_world()
    with interrupts.careful(), threads_for(job.width * job.height):
        results = _sample(model, job)
        files = _write(model, job, results, options.out)
    if options.json:
        print(json.dumps(_summary(job, source, results, files), indent=2))
    else:
        _report(job, source, results, files, options.out)
    return 0


def _sample(model: WorldModel, job: Job) -> dict[Variant, Result]:
    """All variants, one after the other, under one progress bar on stderr."""
    from asyndm_ext.embedded.sampling import VARIANTS, count_of_all, run_variant

    with frame.progress(total=count_of_all(model, job, VARIANTS), unit="step") as bar:
        results: dict[Variant, Result] = {}
        for variant in VARIANTS:
            bar.set_description(f"{variant:>7}")
            results[variant] = run_variant(model, job, variant, on_step=bar.update)
    return results


def _write(model: WorldModel, job: Job, results: dict[Variant, Result], folder: Path) -> dict[str, Path]:
    """All pictures, each with its parameters in a text chunk. Everything is drawn before the first file appears."""
    from asyndm_ext.embedded import filmstrip

    pictures = {variant: filmstrip.to_picture(model.decode(result.latent)[0]) for variant, result in results.items()}
    drawn = {
        **{str(variant): (picture, job.infotext(variant)) for variant, picture in pictures.items()},
        "comparison": (filmstrip.comparison(job, results, pictures), job.infotext()),
        "filmstrip": (filmstrip.filmstrip(job, results["asyndm"], model.decode), job.infotext()),
    }
    taken = folders.save(folder, {f"{name}.png": partial(_png, *what) for name, what in drawn.items()})
    return {name: taken / f"{name}.png" for name in drawn}


def _png(picture: Image.Image, parameters: str, file: IO[bytes]) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("parameters", parameters)
    picture.save(file, "PNG", pnginfo=text)


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
        "note": results["asyndm"].note,
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


def _report(job: Job, source: str, results: dict[Variant, Result], files: dict[str, Path], wanted: Path) -> None:
    """What a person reads."""
    found = "found in the prompt" if source == "prompt" else "as given"
    print(f"prompt: {job.prompt}; seed: {job.seed}")
    print(f"objects: {', '.join(map(str, job.settings.objects))} ({found})")
    for name, path in files.items():
        speed = f" ({results[name].seconds_per_step:.3f} s a step)" if name in results else ""  # type: ignore[index]
        print(f"{name:>10}: {path}{speed}")
    note = results["asyndm"].note
    if note:
        print(f"note: {note}")
    folder = files["comparison"].parent
    aside = "" if folder == wanted else f", because {wanted} holds earlier pictures"
    print(f"All five pictures are in {folder}{aside}.")
