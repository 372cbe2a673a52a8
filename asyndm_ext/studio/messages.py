"""What the page says about a run, as HTML. Everything that people have typed is escaped."""

from __future__ import annotations

from html import escape

from asyndm_ext.embedded.filmstrip import TITLES
from asyndm_ext.prompt.objects import written
from asyndm_ext.studio.engine import Outcome, Progress
from asyndm_ext.ui.coverage import NOTHING_LAGGED
from asyndm_ext.world.animals import ANIMALS
from asyndm_ext.world.things import PAINTS, THINGS
from asyndm_ext.world.words import PLACES, TIMES


def idle() -> str:
    return line("Write a prompt and press Run, or click one of the examples.")


def waiting() -> str:
    return line("Waiting for its turn…")


def interrupted() -> str:
    return line("Interrupted: nothing was drawn.")


def restored(what: str) -> str:
    """``what`` has brought back settings."""
    return line(f"{what} has set everything as it was. Press Run to draw it.")


def in_part(what: str, left_out: list[str]) -> str:
    """``what`` has brought back all but some settings."""
    return line(f"{what} has set what it could. Press Run to draw it.") + _left_out(left_out)


def _left_out(what: list[str]) -> str:
    return note(f"Left as it was, because the page cannot be set so: {', '.join(what)}") if what else ""


def unreadable(problem: str, left_out: list[str]) -> str:
    """A link has brought settings, and a prompt that cannot be drawn."""
    return wrong(problem) + _left_out(left_out)


SHAPES = frozenset(("circle", "circles", "square", "squares", "triangle", "triangles", "star"))
"""Words of an earlier model that the little world does not have."""


def of_shapes(prompt: str) -> str:
    """The prompt of a link is for the earlier model."""
    return (
        f"this link is from an earlier version, whose model drew coloured shapes: {prompt!r} cannot be drawn any more."
        " The other settings are as in the link. Write a prompt of the little world, such as 'a shark riding a bike'."
    )


def wrong(message: str) -> str:
    """An error, for people."""
    text = message.removeprefix("AsynDM: ")
    return f'<div class="studio-status studio-wrong" role="alert">{escape(text[:1].upper() + text[1:])}</div>'


def accident(error: Exception) -> str:
    """An error that nobody has foreseen."""
    return wrong(f"this went wrong: {str(error) or type(error).__name__} (more about it is in the console)")


def lost() -> str:
    """The drawing has ended without an answer."""
    return wrong("the drawing has ended without a picture. Press Run to try again (more about it is in the console)")


def working(progress: Progress) -> str:
    """The progress bar. It is not read out at each of its steps."""
    share = f"step {progress.step} of {progress.total}"
    return (
        f'<div class="studio-status" aria-live="off"><span>{TITLES[progress.variant]}: {share}</span>'
        f'<progress value="{progress.step}" max="{progress.total}" aria-label="{share}"></progress></div>'
    )


def finished(outcome: Outcome) -> str:
    """What was done, in a line; and what there is to know about it."""
    return line(summary(outcome)) + (note(outcome.note) if outcome.note else "")


def summary(outcome: Outcome) -> str:
    """What was done, in words."""
    seconds = sum(result.seconds_per_step * len(result.strength) for result in outcome.results.values())
    says = [f"{len(outcome.results)} picture{'s' * (len(outcome.results) > 1)} in {seconds:.1f} s"]
    says.append(f"seed {outcome.job.seed}")
    ours = outcome.results.get("asyndm")
    if ours is None:
        says.append("AsynDM is off: open its panel to switch it on")
    else:
        if outcome.job.settings.uses_words:
            says.append("objects: " + ", ".join(written(outcome.job.settings.objects)))
        if ours.note != NOTHING_LAGGED:
            says.append(f"{sum(ours.slow_fraction) / len(ours.slow_fraction):.0%} of the picture slow on average")
    return "; ".join(says)


def words() -> str:
    """What the model can be told, folded."""
    animals = [one for animal in ANIMALS.values() for one, _ in animal.names]
    things = [name for thing in THINGS.values() for name in thing.names]
    known = {
        "Animals, one to three of a kind": animals,
        "Things": things,
        "Their colours": list(PAINTS),
        "Where": [way for ways in PLACES.values() for way in ways],
        "When": [way for ways in TIMES.values() for way in ways],
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(', '.join(all_))}</dd>" for name, all_ in known.items())
    return f"<details class='studio-words'><summary>What it can draw</summary><dl>{rows}</dl></details>"


def line(text: str) -> str:
    return f'<div class="studio-status" role="status"><span>{escape(text)}</span></div>'


def note(text: str) -> str:
    return f'<div class="studio-note">Note: {escape(text)}.</div>'
