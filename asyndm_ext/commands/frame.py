"""What all commands have in common: how arguments are refused, how errors and Ctrl+C end, what a terminal can show."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from asyndm_ext import __version__
from asyndm_ext.commands import interrupts
from asyndm_ext.messages import shown


class Refused(ValueError):
    """The arguments ask for something that cannot be; the message says what. ``help``: the option that says more."""

    def __init__(self, message: str, help: str = "--help lists the options") -> None:
        super().__init__(message)
        self.help = help


class Parser(argparse.ArgumentParser):
    """Says what is wrong before anything else, and where help is."""

    def __init__(self, prog: str, description: str, example: str, usage: str = "%(prog)s [OPTIONS]") -> None:
        super().__init__(
            prog=prog, usage=usage, description=description, epilog=f"example: {example}", allow_abbrev=False
        )
        self.add_argument("--version", action="version", version=f"asyndm {__version__}")

    def error(self, message: str) -> NoReturn:
        self.refuse(Refused(message))

    def refuse(self, refused: Refused) -> NoReturn:
        """Say why, and where more is said."""
        self.exit(2, f"{self.prog}: {refused}\n{self.prog} {refused.help}.\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, left = self.parse_known_args(args, namespace)
        if left:
            self.error(self.unknown(left))
        return options

    def unknown(self, left: Sequence[str]) -> str:
        """What to say to arguments that are left over."""
        name = left[0].partition("=")[0]
        if not name.startswith("-"):
            return f"{left[0]!r} belongs to no option; a value with spaces in it needs quotes"
        near = difflib.get_close_matches(name, self._option_string_actions, 1)
        return f"there is no option {name}; did you mean {near[0]}?" if near else f"there is no option {name}"


def run(
    parser: Parser,
    argv: Sequence[str] | None,
    body: Callable[[argparse.Namespace], int],
    extra: str = "embedded",
    interrupted: str = "interrupted",
) -> int:
    """Run a command; returns the exit code. Bad arguments leave by ``SystemExit(2)``, as argparse does.

    Args:
        parser: of its arguments.
        argv: None: the process's own.
        body: the command itself. It may raise Refused for arguments that turn out bad, and OSError.
        extra: of this package: brings what the command needs.
        interrupted: what Ctrl+C is answered with.
    """
    if argv is None:
        interrupts.take_over()
    interrupts.last_words(f"{parser.prog}: {interrupted}")
    _show_what_can_be_shown()
    try:
        try:
            return body(parser.parse_args(argv))
        finally:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or interrupts.happened():
            print(f"{parser.prog}: {interrupted}", file=sys.stderr)
            return interrupts.EXIT_CODE
        return _failed(parser, error, extra)


def _failed(parser: Parser, error: Exception, extra: str) -> int:
    """Say what can be said in a line; other errors are raised again."""
    if isinstance(error, Refused):
        # The command's name is said already.
        parser.refuse(Refused(str(error).removeprefix("AsynDM: "), error.help))
    if isinstance(error, BrokenPipeError):  # "| head" has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, ModuleNotFoundError):
        name = str(error.name).partition(".")[0]
        print(f"{parser.prog}: {name} is missing; pip install 'asyndm-webui[{extra}]' brings it", file=sys.stderr)
    elif isinstance(error, (ImportError, OSError)):
        print(f"{parser.prog}: {plainly(error)}", file=sys.stderr)
    else:
        raise error
    return 1


@contextlib.contextmanager
def checking(**more: str) -> Iterator[None]:
    """A ValueError inside is about the arguments. ``help``: as in Refused."""
    try:
        yield
    except Refused:
        raise
    except ValueError as error:
        raise Refused(str(error), **more) from error


def plainly(error: Exception) -> str:
    """An error's words; the system's without their number."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def number(text: str) -> float:
    """An argparse type: any finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number")
    return value


def whole(low: int | None = None, high: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number, within limits if there are any."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number") from None
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"{low} or more" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"must be {limits}, got {text}")
        return value

    return parse


def progress(**settings: Any) -> Any:
    """A progress bar on stderr, in the characters that the terminal has."""
    from tqdm import tqdm

    # Python writes UTF-8 also where the locale is C, and tqdm believes it.
    plain = (os.environ.get("LC_ALL") or os.environ.get("LANG")) in ("C", "POSIX")
    return tqdm(file=sys.stderr, ascii=True if plain else None, **settings)


def _show_what_can_be_shown() -> None:
    """A file's name that the terminal has no characters for is no reason to fail."""
    if getattr(sys.stdout, "errors", "") == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
