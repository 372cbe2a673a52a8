"""The drawing: one prompt, a few seeds, three clocks.

Thin on purpose: reads the arguments, says what is wrong with them, writes files. :mod:`.rows` makes the pictures,
:mod:`.comparison` and :mod:`.filmstrip` lay them out, :mod:`.report` says what came of it. What needs torch is imported
where it is used, so that help, and what is wrong with a prompt, come at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import re
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from asyndm_ext.commands import folders, frame, interrupts
from asyndm_ext.commands.main import COMMANDS
from asyndm_ext.embedded.limits import GUIDANCE, MAX_GUIDANCE, MAX_SIDE, SCHEDULERS, SEEDS, SIDE_STEP
from asyndm_ext.presets import OF_OBJECTS

if TYPE_CHECKING:
    from PIL import Image

    from asyndm_ext.embedded.job import Job, Variant
    from asyndm_ext.embedded.rows import Row
    from asyndm_ext.prompt.objects import ObjectSpec
    from asyndm_ext.world.model import WorldModel

MOST_SEEDS = 16
_SHORT = 10**6
"""Random seeds are below it: easy to type again, and to read on a sheet."""
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
        "Draw a prompt from a few seeds, each three times from the same noise: on the ordinary schedule, on a concave"
        " schedule for all pixels, and with AsynDM, where only the objects' pixels are slow. Writes all pictures, a"
        " sheet with what is right and wrong in each and what changed, and a filmstrip of the first AsynDM picture.",
        _EXAMPLE,
        usage=f'asyndm "PROMPT" [OPTIONS]\n       asyndm COMMAND [OPTIONS]\n\ncommands:\n{listed}\n'
        '  "asyndm COMMAND --help" lists the options of a command; those of draw are below.',
    )
    add = parser.add_argument
    add(
        "prompt",
        nargs="*",
        metavar="PROMPT",
        help="an animal, perhaps with a thing, a place and a time of day: 'two penguins beside a red boat at dusk'",
    )
    add("--words", action=_ListWords, help="list all words that a prompt can have, and stop")
    add(
        "--seed",
        type=frame.whole(),
        default=-1,
        metavar="N",
        help="of the first row's noise; a random one if absent or -1",
    )
    add(
        "--seeds",
        type=frame.whole(1, MOST_SEEDS),
        default=4,
        metavar="N",
        help=f"how many, one after the other: a row each, 1 to {MOST_SEEDS} (%(default)s)",
    )
    add("--steps", type=frame.whole(), default=20, metavar="N", help="sampling steps (%(default)s)")
    add(
        "--solver",
        **_one_of("asyndm_ext.embedded.job", "COUNTED_SOLVERS", "Euler"),
        metavar="NAME",
        help="Euler, Euler a, Heun, DPM++ 2M, DPM++ 2M SDE, DDIM, UniPC or another of the WebUI's samplers; see"
        " --list-solvers (%(default)s)",
    )
    add("--list-solvers", action=_ListSolvers, help="name all solvers, and stop")
    add(
        "--scheduler",
        **_one_of("asyndm_ext.embedded.limits", "SCHEDULERS", "uniform"),
        metavar="NAME",
        help=f"spacing of the noise levels: {', '.join(SCHEDULERS)} (%(default)s)",
    )
    add(
        "--curve",
        **_one_of("asyndm_ext.clock.curves", "CURVES"),
        metavar="NAME",
        help="concave curve: quadratic, piecewise linear, exponential, head start, linear (quadratic)",
    )
    add("--strength", type=frame.number, metavar="S", help="how slow the objects are, 0 to 1 (0.7)")
    add(
        "--preset",
        **_one_of("asyndm_ext.presets", "OF_OBJECTS"),
        metavar="NAME",
        help=f"settings that go together: {', '.join(OF_OBJECTS)}; those that you give beside it win",
    )
    add(
        "--objects",
        metavar="WORDS",
        help="words of the prompt, with commas: 'shark, bike:0.4'; 'bike > shark' draws the bike first (found in the"
        " prompt)",
    )
    add(
        "--order",
        **_one_of("asyndm_ext.region.turns", "ORDERS"),
        metavar="NAME",
        help="which object is drawn first: together, in turn (as in the prompt), 'in turn, last first'; an order in"
        " --objects ('bike > shark') counts in its place (together)",
    )
    add(
        "--mask-source",
        **_one_of("asyndm_ext.settings", "MASK_SOURCES", "dynamic"),
        metavar="NAME",
        help="dynamic: the objects are looked for at every step; fixed: in a plain pass before; guidance: no objects,"
        " but where the prompt makes a difference (%(default)s)",
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
    add("--json", action="store_true", help="print everything for programs (docs/COMMAND.md says how)")
    return parser


class _List(argparse.Action):
    """Prints something and stops."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        print(self.text())
        parser.exit()

    def text(self) -> str:
        raise NotImplementedError


class _ListSolvers(_List):
    def text(self) -> str:
        from asyndm_ext.embedded.job import COUNTED_SOLVERS

        return "\n".join(COUNTED_SOLVERS)


class _ListWords(_List):
    def text(self) -> str:
        from asyndm_ext.world.telling import all_words

        return all_words()


def _one_of(module: str, table: str, default: str | None = None) -> dict[str, Any]:
    """An option's type and default: one of the names in a table, letter case aside, imported only for another name."""

    def parse(text: str) -> str:
        if text == default:  # argparse asks for it too
            return text
        names: Sequence[str] = getattr(importlib.import_module(module), table)
        known = {name.casefold(): name for name in names}
        if text.casefold() not in known:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}; choose one of: {', '.join(names)}")
        return known[text.casefold()]

    return {"type": parse, "default": default}


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


def _readable(prompt: str) -> str:
    """The prompt, if the little world can read it: known before anything is loaded."""
    from asyndm_ext.world.tokens import Tokenizer
    from asyndm_ext.world.words import read

    with frame.checking(help="--words lists what a prompt can have"):
        Tokenizer().encode(prompt)
        read(prompt)
    return prompt


def _seeds(first: int, number: int) -> list[int]:
    """One after the other. Raises ValueError where there are not so many."""
    if first == -1:
        first = random.SystemRandom().randrange(_SHORT)
    if first <= SEEDS - 1 < first + number - 1:
        raise ValueError(f"{number} seeds from {first} on go beyond the last one, {SEEDS - 1}; take a smaller --seed")
    return [first + i for i in range(number)]


def _jobs(options: argparse.Namespace) -> tuple[list[Job], str]:
    """What to draw, one for each seed, and where the objects come from. Raises ValueError for what cannot be."""
    prompt = _readable(_prompt(options.prompt))
    seeds = _seeds(options.seed, options.seeds)
    from asyndm_ext.embedded.job import Job
    from asyndm_ext.settings import Settings

    objects, source = _objects(options.objects, prompt)
    if options.mask_source == "guidance":
        if source != "prompt":
            raise ValueError("--mask-source guidance knows no words; leave out --objects, or take another mask source")
        objects, source = (), "guidance"
    given = {name: getattr(options, name) for name in ("preset", "strength", "curve", "order")}
    settings = Settings.from_dict(
        {
            **{name: value for name, value in given.items() if value is not None},
            "objects": objects,
            "threshold": options.threshold,
            "mask_source": options.mask_source,
        }
    )
    jobs = [
        Job(
            prompt=prompt,
            seed=seed,
            settings=settings,
            steps=options.steps,
            solver=options.solver,
            scheduler=options.scheduler,
            guidance=options.guidance,
            width=options.size[0],
            height=options.size[1],
        )
        for seed in seeds
    ]
    return jobs, source


def _objects(given: str | None, prompt: str) -> tuple[tuple[ObjectSpec, ...], str]:
    from asyndm_ext.embedded.job import automatic_objects
    from asyndm_ext.prompt.objects import ObjectSpec, parse_objects

    named = parse_objects(given)
    if named:
        return named, "--objects"
    return tuple(map(ObjectSpec, automatic_objects(prompt))), "prompt"


def _draw(options: argparse.Namespace) -> int:
    with frame.checking():
        jobs, source = _jobs(options)
        folders.check(options.out)
    # After the arguments: diffusers takes seconds to import, and a typing error should be told at once.
    from asyndm_ext.embedded import report
    from asyndm_ext.embedded.threads import threads_for
    from asyndm_ext.world.model import load_world

    model = load_world()
    with interrupts.careful(), threads_for(jobs[0].width * jobs[0].height):
        rows = _sample(model, jobs)
        files = _write(model, rows, options.out)
    if options.json:
        print(json.dumps(report.summary(rows, source, files), indent=2))
    else:
        print(report.text(rows, source, files, options.out))
    return 0


def _sample(model: WorldModel, jobs: Sequence[Job]) -> list[Row]:
    """All seeds, one after the other, under one progress bar on stderr."""
    from asyndm_ext.embedded.job import VARIANTS
    from asyndm_ext.embedded.rows import draw_row, judged_at
    from asyndm_ext.embedded.sampling import count_of_all
    from asyndm_ext.world.judge import load_judge

    judge = load_judge() if judged_at(jobs[0]) else None
    with frame.progress(total=len(jobs) * count_of_all(model, jobs[0], VARIANTS), unit="step") as bar:
        rows = []
        for job in jobs:

            def tell(variant: Variant, seed: int = job.seed) -> None:
                bar.set_description(f"seed {seed}, {variant:>7}")

            rows.append(draw_row(model, judge, job, on_variant=tell, on_step=bar.update))
        return rows


def _write(model: WorldModel, rows: Sequence[Row], folder: Path) -> dict[str, Path]:
    """All pictures, each with its parameters in a text chunk. Everything is drawn before the first file appears."""
    from asyndm_ext.embedded import comparison, filmstrip

    first = rows[0]
    drawn = {
        "comparison": (comparison.comparison(rows), first.job.infotext()),
        "filmstrip": (filmstrip.filmstrip(first.job, first.drawn["asyndm"].result, model.decode), first.job.infotext()),
        **{
            f"{variant}-{row.job.seed}": (one.picture, row.job.infotext(variant))
            for row in rows
            for variant, one in row.drawn.items()
        },
    }
    taken = folders.save(folder, {f"{name}.png": partial(_png, *what) for name, what in drawn.items()})
    return {name: taken / f"{name}.png" for name in drawn}


def _png(picture: Image.Image, parameters: str, file: IO[bytes]) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("parameters", parameters)
    picture.save(file, "PNG", pnginfo=text)
