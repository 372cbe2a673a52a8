"""What all commands have in common: help at once, errors first, Ctrl+C in a line, nothing written over."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from asyndm_ext.bench import cli as bench
from asyndm_ext.bench.subjects import NAMES
from asyndm_ext.clock.curves import CURVES
from asyndm_ext.commands import folders, frame, interrupts
from asyndm_ext.commands.main import COMMANDS, _meant, main
from asyndm_ext.embedded import cli as draw
from asyndm_ext.embedded.limits import SCHEDULERS
from asyndm_ext.evaluate.methods import KINDS, VARIED
from asyndm_ext.evaluate.options import build_parser as evaluate_parser
from asyndm_ext.settings import Settings
from asyndm_ext.studio import command as studio
from asyndm_ext.world.words import WORDS
from tests.support.processes import modules, start

HEAVY = ("torch", "numpy", "diffusers", "gradio", "PIL", "tqdm")
PARSERS = {
    "asyndm": draw.build_parser,
    "asyndm evaluate": evaluate_parser,
    "asyndm bench": bench.build_parser,
    "asyndm studio": studio.build_parser,
}


# --- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["help"], *([name] for name in COMMANDS)], ids=str)
def test_help_imports_nothing_heavy(arguments, tmp_path):
    process = start(tmp_path, [*arguments, *([] if arguments == ["help"] else ["--help"])], show=True)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "usage: asyndm" in out
    assert not modules(out).intersection(HEAVY)


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert f"  {name:<10}{command.does}" in lines
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    ("prog", "names"),
    [
        ("asyndm", (*CURVES, *SCHEDULERS)),
        ("asyndm evaluate", (*CURVES, *KINDS, *VARIED)),
        ("asyndm bench", NAMES),
    ],
)
def test_help_has_the_names_that_there_are(prog, names):
    """They are written there, for their tables need torch."""
    said = " ".join(PARSERS[prog]().format_help().split())
    assert [name for name in names if name not in said] == []


def test_defaults_are_those_of_the_settings():
    parser = draw.build_parser()
    (job, *_), _ = draw._jobs(parser.parse_args(["a shark"]))
    helps = {action.dest: action.help for action in parser._actions}
    for name in ("strength", "curve", "threshold", "order", "mask_source"):
        assert getattr(job.settings, name) == getattr(Settings, name)
        assert f"({getattr(Settings, name)})" in helps[name].replace("%(default)s", str(getattr(Settings, name)))


def test_all_solvers_can_be_listed(capsys):
    from asyndm_ext.embedded.job import COUNTED_SOLVERS

    with pytest.raises(SystemExit) as left:
        draw.main(["--list-solvers"])
    assert left.value.code == 0
    assert capsys.readouterr().out.splitlines() == list(COUNTED_SOLVERS)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prog", PARSERS)
def test_the_error_comes_first(prog, capsys):
    with pytest.raises(SystemExit) as left:
        PARSERS[prog]().parse_args(["--versio"])
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{prog}: there is no option --versio; did you mean --version?",
        f"{prog} --help lists the options.",
    ]


@pytest.mark.parametrize(
    ("typed", "meant"), [("stduio", "studio"), ("Studio", "studio"), ("evalute", "evaluate"), ("bnech", "bench")]
)
def test_a_misspelt_command_is_not_a_prompt(typed, meant, capsys):
    assert main([typed]) == 2
    assert capsys.readouterr().err.startswith(f"asyndm: there is no command {typed!r}; did you mean {meant}?\n")
    assert main([typed, "--port", "0"]) == 2


def test_prompts_are_not_commands():
    assert not {*COMMANDS, "help"} & set(WORDS)
    assert [word for word in WORDS if _meant([word])] == [], '"beach" is not "bench"'
    assert _meant(["Beach"]) is None
    assert _meant(["bench", "a"]) is None
    assert _meant(["beahc", "with", "a", "cat"]) is None


@pytest.mark.parametrize(
    ("words", "prompt"), [(["a", "red", "boat"], "a red boat"), (["  a red  boat "], "a red boat")]
)
def test_a_prompt_without_quotes_is_joined(words, prompt):
    assert draw._prompt(words) == prompt


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a shark", "and", "a bike"], "put it into quotes: asyndm 'a shark and a bike'"),
        (["a red boat", "--objects", "red", "boat"], "('boat' is left over); put each into quotes: asyndm \""),
        (["a", "red", "--seed", "3", "boat"], "('boat' is left over)"),
        ([], 'there is no prompt; write one behind the command: asyndm "a shark riding a bike"'),
    ],
)
def test_pieces_that_do_not_belong_together_are_told(arguments, told, capsys):
    with pytest.raises(SystemExit) as left:
        draw.main(arguments)
    assert left.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    ("prog", "arguments", "told"),
    [
        ("asyndm bench", ["--latent", "520"], "must be from 8 to 512, got 520"),
        ("asyndm bench", ["--batches", "65"], "must be from 1 to 64, got 65"),
        ("asyndm bench", ["--devices", "toaster"], "no device 'toaster' that torch can use"),
        ("asyndm evaluate", ["--guidance", "nan"], "'nan' is not a number"),
        ("asyndm evaluate", ["--guidance", "-1"], "must be 0 or more, got -1"),
        ("asyndm evaluate", ["--minutes", "-1"], "must be 0 or more, got -1"),
    ],
)
def test_values_have_limits(prog, arguments, told, capsys):
    with pytest.raises(SystemExit):
        PARSERS[prog]().parse_args(arguments)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--guidance", "31"], "guidance must lie between 0 and 30, got 31"),
        (["--size", "544"], "the judge knows pictures of 128 pixels only; leave out --size"),
        (["--url", "http://127.0.0.1:9", "--prompt-file", "PROMPTS", "--size", "8192"], "of 8 from 64 to 4096, got 81"),
    ],
)
def test_an_evaluation_has_limits(arguments, told, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    arguments = [str(tmp_path / "prompts.txt") if word == "PROMPTS" else word for word in arguments]
    with pytest.raises(SystemExit):
        main(["evaluate", "--prompts", "1", "--kind", "usual", "--out", str(tmp_path / "run"), *arguments])
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def fails_with(error):
    def body(options):
        raise error

    return frame.run(frame.Parser("asyndm test", "", ""), [], body, extra="studio")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModuleNotFoundError("x", name="gradio.blocks"), 1, "gradio is missing; pip install 'asyndm-webui[studio]' br"),
        (ImportError("diffusers cannot be imported (x)"), 1, "diffusers cannot be imported (x)"),
        (PermissionError(13, "Permission denied", "there"), 1, "there: Permission denied"),
        (OSError("no weights"), 1, "no weights"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_are_a_line(error, code, line, capsys):
    assert fails_with(error) == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"asyndm test: {line}")


def test_a_mistake_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        fails_with(ZeroDivisionError())


def test_what_an_interrupt_has_broken_is_an_interrupt(monkeypatch):
    monkeypatch.setattr(interrupts._State, "raised", True)
    assert fails_with(ZeroDivisionError()) == 130


def test_a_diffusers_that_does_not_suit_torch_is_told(monkeypatch):
    broken = ModuleType("diffusers")

    def missing(name):
        raise RuntimeError("Failed to import diffusers.models") from RuntimeError("operator nms does not exist")

    broken.__getattr__ = missing  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "diffusers", broken)
    monkeypatch.delitem(sys.modules, "asyndm_ext.world.model", raising=False)
    with pytest.raises(ImportError, match=r"cannot be imported \(operator nms does not exist\)"):
        import asyndm_ext.world.model  # noqa: F401


# --- Ctrl+C ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize(
    ("arguments", "at", "line"),
    [
        (["a shark"], "argparse", "asyndm: interrupted"),
        (["a shark"], "numpy", "asyndm: interrupted, nothing written"),
        (["a shark"], "torch", "asyndm: interrupted, nothing written"),
        (["a shark"], "diffusers", "asyndm: interrupted, nothing written"),
        (["a shark", "--size", "32", "--steps", "1"], "tqdm", "asyndm: interrupted, nothing written"),
        (["a shark", "--size", "32", "--steps", "1"], "asyndm_ext.embedded.comparison", "asyndm: interrupted, n"),
        (["studio"], "gradio", "asyndm studio: ended"),
        (["evaluate"], "torch", "asyndm evaluate: stopped; the same command goes on from here"),
        (["bench"], "torch", "asyndm bench: interrupted"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_ctrl_c_is_a_line_and_code_130(arguments, at, line, tmp_path):
    process = start(tmp_path, arguments, at=at)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    lines = [one for one in err.replace("\r", "\n").splitlines() if one and "step/s" not in one]
    assert len(lines) == 1 and lines[0].startswith(line), err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_a_destructor_is_not_lost(tmp_path):
    """Python prints a traceback there and goes on; here the next moment stops."""
    code = """
import signal, time
from asyndm_ext.commands import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
class Gone:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        x = 1
interrupts.take_over()
try:
    with interrupts.careful():
        Gone()
        time.sleep(60)
        print("went on")
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(draw.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("stopped\n", "", 0)


@pytest.mark.skipif(os.name != "posix", reason="a pipe that nobody reads")
def test_a_reader_that_has_left_is_no_error(tmp_path):
    process = start(tmp_path, ["--list-solvers"])
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")


# --- terminals ------------------------------------------------------------------------------------------------------


class Ascii(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", errors="strict")

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("ascii")


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Ascii())
    assert frame.run(frame.Parser("asyndm test", "", ""), [], lambda options: print("Zürich") or 0) == 0
    assert sys.stdout.text() == "Z\\xfcrich\n"


@pytest.mark.parametrize(
    ("variables", "plain"),
    [({"LC_ALL": "C"}, True), ({"LANG": "POSIX"}, True), ({"LC_ALL": "", "LANG": "de_DE.UTF-8"}, False), ({}, False)],
)
def test_the_bar_is_drawn_in_characters_that_are_there(variables, plain, monkeypatch):
    for name in ("LC_ALL", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", shown)
    with frame.progress(total=3, unit="step") as bar:
        bar.update(2)
    shown.flush()
    assert shown.buffer.getvalue().decode().isascii() == plain


# --- folders --------------------------------------------------------------------------------------------------------


def files(text: bytes):
    return {name: lambda file: file.write(text) for name in ("plain.png", "asyndm.png")}


def test_nothing_is_written_over(tmp_path):
    out = tmp_path / "deep" / "out"
    assert [folders.save(out, files(str(n).encode())) for n in range(3)] == [
        out,
        out.with_name("out-2"),
        out.with_name("out-3"),
    ]
    assert [folder.joinpath("plain.png").read_bytes() for folder in sorted(out.parent.iterdir())] == [b"0", b"1", b"2"]


def test_a_folder_with_other_things_is_taken_as_it_is(tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"mine")
    assert folders.save(tmp_path, files(b"x")) == tmp_path
    assert (tmp_path / "holiday.png").read_bytes() == b"mine"


def test_one_old_file_is_enough(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "asyndm.png").write_bytes(b"old")
    (tmp_path / "out-2").write_text("a file")
    assert folders.save(tmp_path / "out", files(b"new")) == tmp_path / "out-3"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["asyndm.png"]


def test_a_file_that_comes_meanwhile_is_kept(tmp_path):
    out = tmp_path / "out"

    def somebody_else(file):
        if not (out / "asyndm.png").exists():
            (out / "asyndm.png").write_bytes(b"theirs")

    wanted = {"plain.png": somebody_else, "asyndm.png": lambda file: file.write(b"ours")}
    assert folders.save(out, wanted) == tmp_path / "out-2"
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("asyndm.png", b"theirs")]
    assert (tmp_path / "out-2" / "asyndm.png").read_bytes() == b"ours"


def test_here_gets_numbers_inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folders.save(Path("."), files(b"1")) == Path(".")
    assert folders.save(Path("."), files(b"2")) == Path("asyndm_out-2")
    assert (tmp_path / "plain.png").read_bytes() == b"1"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl+C"])
def test_an_error_leaves_nothing(error, tmp_path):
    def fail(file):
        file.write(b"half")
        raise error

    for out in (tmp_path / "a" / "b", tmp_path):
        with pytest.raises(type(error)):
            folders.save(out, {**files(b"x"), "z.png": fail})
        assert not list(tmp_path.iterdir())


def test_a_folder_is_looked_at_before_the_work(tmp_path, monkeypatch):
    folders.check(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"file is a file, not a folder; choose another folder with --out"):
            folders.check(place)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=5 * 2**20 + 1))
    with pytest.raises(ValueError, match=r"is full \(5 MiB left\); make room"):
        folders.check(tmp_path / "new")
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    with pytest.raises(ValueError, match="nothing may be written in"):
        folders.check(tmp_path / "new")


def test_the_modules_of_the_commands_are_there():
    assert json.dumps(list(COMMANDS)) == '["draw", "studio", "evaluate", "bench"]'
    assert {command.module for command in COMMANDS.values()} == {
        draw.__name__,
        studio.__name__,
        "asyndm_ext.evaluate.main",
        bench.__name__,
    }
