"""The command line of ``asyndm evaluate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asyndm_ext.commands.frame import Parser, number, whole
from asyndm_ext.embedded.limits import GUIDANCE, MAX_SIDE, SIDE_STEP
from asyndm_ext.evaluate.methods import KINDS, USUAL, VARIED, read_value
from asyndm_ext.rivals import OPTIONS
from asyndm_ext.world.kinds import KINDS as PROMPT_KINDS

_EXAMPLE = "asyndm evaluate --prompts 100 --kind two,relation --strength 0.7,0.3,0.9 --out two_objects"
_CURVES = "quadratic, piecewise linear, exponential, head start, linear (quadratic)"
PAPER = ("table1", "table2", "table4", "table5", "table6", "fid30k", "figure8")
WEBUI_SIDES = (64, 4096)
"""Pixels. What a WebUI draws is its own affair; these catch a slip of the finger."""


def build_parser(argv: Sequence[str] | None = None) -> Parser:
    """All options; a table of the paper in the arguments changes the others' defaults."""
    parser = Parser(
        "asyndm evaluate",
        "Draw prompts x seeds x methods, judge every picture, and write tables and a report with confidence"
        " intervals against plain pictures from the same noise. A run that is stopped or killed goes on when the same"
        " command is given again. Without --url the embedded model draws.",
        _EXAMPLE,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("asyndm_evaluation"), metavar="FOLDER", help="of the run (%(default)s)")
    add("--minutes", type=_positive(0), metavar="N", help="stop after so long; the same command goes on later")
    add("--report-only", action="store_true", help="draw nothing: tables and report of what is there")
    add(
        "--paper",
        choices=PAPER,
        help="repeat this of the AsynDM paper: its prompts (give its files with --prompt-file), seeds, conditions and"
        " methods are the defaults then, and the report has its numbers beside yours",
    )
    _prompts(parser.add_argument_group("prompts"))
    _methods(parser.add_argument_group("methods", "Where several values are given, the first is the central one."))
    _embedded(parser.add_argument_group("embedded model"))
    _exact(parser.add_argument_group("exact world"))
    _webui(parser.add_argument_group("WebUI"))
    _judges(parser.add_argument_group("judges and report"))
    name = _paper(sys.argv[1:] if argv is None else argv)
    if name is not None:
        from asyndm_ext.evaluate.paper import TABLES

        parser.set_defaults(**TABLES[name].defaults)
    return parser


def _paper(argv: Sequence[str]) -> str | None:
    """The table of the paper that is asked for, if there is one of that name."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--paper", nargs="?")
    name = first.parse_known_args(argv)[0].paper
    return name if name in PAPER else None


def _prompts(group: Any) -> None:
    add = group.add_argument
    add("--prompts", type=whole(1), metavar="N", help="how many (embedded model: of each kind, 40; files: all)")
    add(
        "--kind",
        type=_names,
        metavar="NAMES",
        help=f"of the embedded model's prompts: {', '.join(PROMPT_KINDS)} (all); of the exact world's: unusual, usual"
        " (unusual)",
    )
    add(
        "--prompts-seed",
        type=whole(),
        metavar="N",
        default=0,
        help="of the choice of the embedded model's prompts (%(default)s)",
    )
    add(
        "--prompt-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="one prompt a line, or JSON; also the sets of the paper's authors; can be repeated",
    )
    add(
        "--file-strengths",
        action="store_true",
        help="besides --strength, each object's own from the files (as the paper's authors published them)",
    )
    add("--seeds", type=whole(1), metavar="N", help="for each prompt (1; exact world: 25)")
    add("--first-seed", type=whole(), metavar="N", default=0, help="(%(default)s)")


def _methods(group: Any) -> None:
    add = group.add_argument
    kinds = "; ".join(f"{kind}: {said}" for kind, said in KINDS.items())
    add("--methods", type=_names, default=USUAL, metavar="NAMES", help=f"{kinds} ({', '.join(USUAL)})")
    add(
        "--strength",
        type=_list(lambda text: read_value("strength", text)),
        default=[0.7],
        metavar="S",
        help="0 to 1 (0.7)",
    )
    add("--curve", type=_names, default=["quadratic"], metavar="NAMES", help=_CURVES)
    add("--steps", type=_list(whole(1)), default=[20], metavar="N", help="(20)")
    add("--solver", type=_names, default=["Euler"], metavar="NAMES", help="samplers, by the WebUI's names (Euler)")
    add("--scheduler", type=_names, metavar="NAMES", help="schedule types (uniform; WebUI: Automatic)")
    add(
        "--guidance", type=_list(_positive(0)), metavar="G", help=f"CFG scales ({GUIDANCE:g}; WebUI: 7; exact world: 5)"
    )
    add(
        "--vary",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help=f"another setting of AsynDM, the first value central: {', '.join(VARIED)}; or of another method:"
        f" {', '.join(name for options in OPTIONS.values() for name in options)}; can be repeated",
    )
    add("--grid", action="store_true", help="all values with all others; otherwise one is moved at a time")
    add(
        "--plain-guidance",
        type=_list(_positive(0)),
        default=[],
        metavar="G",
        help="more CFG scales for plain pictures alone, to hold every method against the best of them",
    )
    add(
        "--matched",
        action="store_true",
        help="when all is drawn, plain pictures at each method's equivalent guidance scale, and with as many model"
        " calls",
    )
    add(
        "--choose-on",
        choices=("prompts", "pairs"),
        help="choose each method's best setting on one half of these, and report on the other half alone",
    )


def _embedded(group: Any) -> None:
    add = group.add_argument
    add("--weights", type=Path, metavar="FOLDER", help="of the model; the package's own if absent")
    add(
        "--size",
        type=whole(1),
        metavar="N",
        help=f"side of the pictures, a multiple of {SIDE_STEP} from {SIDE_STEP} to {MAX_SIDE} (128; WebUI: 512)",
    )
    add("--batch", type=whole(1), metavar="N", help="pictures in one network call (16; exact world: 500)")
    add("--processes", type=whole(1), default=1, metavar="N", help="each of one thread (%(default)s)")
    add("--bfloat16", action="store_true", help="faster where the machine multiplies in bfloat16; rounds more")
    add("--device", default="cpu", metavar="NAME", help="(%(default)s)")


def _exact(group: Any) -> None:
    group.add_argument(
        "--exact",
        nargs="?",
        const="",
        metavar="NAME=VALUE,...",
        help="instead of the embedded model: a world whose denoiser is known exactly, e.g. parts=3,tie=0.7,heed=3",
    )


def _webui(group: Any) -> None:
    add = group.add_argument
    add(
        "--url",
        action="append",
        default=[],
        metavar="URL",
        help="of a WebUI with --api, e.g. http://127.0.0.1:7860; can be repeated",
    )
    add("--auth", metavar="USER:PASSWORD", help="of --api-auth; better in the environment, as ASYNDM_EVALUATE_AUTH")
    add("--model", metavar="NAME", help="checkpoint's name, as the WebUI lists it; the loaded one if absent")
    add("--negative", default="", metavar="PROMPT", help="negative prompt")
    low, high = WEBUI_SIDES
    add("--width", type=whole(1), metavar="N", help=f"if not --size: a multiple of 8 from {low} to {high}")
    add("--height", type=whole(1), metavar="N", help="the same")
    add("--eta", type=_positive(0), metavar="ETA", help="noise weight of ancestral samplers and DDIM (the paper: 1)")
    add("--timeout", type=_positive(1), default=600.0, metavar="SECONDS", help="for one picture (%(default)s)")


def _judges(group: Any) -> None:
    add = group.add_argument
    add(
        "--metric",
        action="append",
        default=[],
        metavar="NAME[:KEY=VALUE,...]",
        help="a further judge with weights of yours, e.g. clipscore:weights=FILE; can be repeated. Of all pictures"
        " together, fid:weights=FILE,reference=FOLDER (FID and KID)",
    )
    add(
        "--true-scenes", type=whole(0), default=200, metavar="N", help="to measure the judge's own errors (%(default)s)"
    )
    add("--resample", choices=("pairs", "prompts"), default="pairs", help="what the bootstrap draws (%(default)s)")
    add("--resamples", type=whole(1), default=10_000, metavar="N", help="(%(default)s)")
    add(
        "--vote",
        type=whole(1),
        nargs="?",
        const=64,
        metavar="N",
        help="write vote.html, a page on which people choose between the methods' pictures of N prompts (64);"
        " the report reads the files that it saves from the folder votes",
    )
    add("--vote-methods", type=_names, metavar="NAMES", help="between which (the first ones of --methods, up to six)")
    add("--vote-seed", type=whole(), metavar="N", default=0, help="of the choice and order (%(default)s)")
    add("--sheet", type=whole(0), default=12, metavar="N", help="pairs on each contact sheet (%(default)s)")
    add("--sheet-seed", type=whole(), metavar="N", default=0, help="of their choice (%(default)s)")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("names are missing; write them with commas between")
    return list(dict.fromkeys(names))


def _list(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        try:
            return list(dict.fromkeys(read(part.strip()) for part in text.split(",")))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _positive(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = number(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least:g} or more, got {text}")
        return value

    return parse


def _setting(text: str) -> tuple[str, list[Any]]:
    name, _, values = text.partition("=")
    try:
        return name, list(dict.fromkeys(read_value(name, value.strip()) for value in values.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
