"""What ``asyndm "PROMPT"`` says in the end: to a person, and as JSON to a program (docs/COMMAND.md has its shape)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asyndm_ext import __version__
from asyndm_ext.embedded.filmstrip import TITLES
from asyndm_ext.embedded.job import VARIANTS
from asyndm_ext.embedded.rows import Drawn, Row, right
from asyndm_ext.prompt.objects import written
from asyndm_ext.world.scenes import SIZE
from asyndm_ext.world.telling import change_sentence, listed, told

_NUMBERS = (
    *("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight"),
    *("Nine", "Ten", "Eleven", "Twelve", "Thirteen", "Fourteen", "Fifteen", "Sixteen"),
)
_WIDTH = 100

# --- for a person ---------------------------------------------------------------------------------------------------


def text(rows: Sequence[Row], source: str, files: Mapping[str, Path], wanted: Path) -> str:
    """The report.

    Args:
        rows: of each seed.
        source: where the objects come from: "prompt" or "--objects"; or "guidance", where there are none.
        files: the pictures, by name.
        wanted: the folder that was asked for.
    """
    job = rows[0].job
    found = (
        f"{', '.join(written(job.settings.objects))} ({'found in the prompt' if source == 'prompt' else 'as given'})"
    )
    if source == "guidance":
        found = "none; the mask is where the prompt makes a difference"
    lines = [
        f"prompt:  {job.prompt}",
        f"seeds:   {_range([row.job.seed for row in rows])}",
        f"objects: {found}",
        "",
        *_right(rows),
        "",
        *(line for sentence in what_changed(rows) for line in _filled(sentence)),
        *_notes(rows),
        "",
        *_filled(_worth(len(rows))),
        "",
        *_places(rows, files, wanted),
    ]
    return "\n".join(lines)


def _range(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def _right(rows: Sequence[Row]) -> list[str]:
    """How many pictures of each clock are right."""
    job, counts = rows[0].job, {variant: right(rows, variant) for variant in VARIANTS}
    if None in counts.values():
        return _filled(
            f"Nothing is said about right and wrong at {job.width}x{job.height}: the judge has only learnt pictures of"
            f" {SIZE}x{SIZE}, and so has the model."
        )
    width = max(map(len, TITLES.values()))
    return [f"{TITLES[variant]:<{width}}  right in {number} of {len(rows)}" for variant, number in counts.items()]


def what_changed(rows: Sequence[Row]) -> list[str]:
    """From plain to AsynDM, as the judge sees it: a sentence for each seed with a change, one for all others."""
    if right(rows, "plain") is None:
        share = max(row.changed for row in rows)
        if share == 0:
            return ["AsynDM's pictures look like the plain ones."]
        return ["What AsynDM changed is pink in the last column of comparison.png."]
    sentences = {row.job.seed: _change(row) for row in rows}
    same = [str(seed) for seed, sentence in sentences.items() if sentence is None]
    lines = [sentence for sentence in sentences.values() if sentence]
    if not lines:
        return ["Nothing that the judge can see changed from plain to AsynDM."]
    if same:
        seeds = f"seed {same[0]}" if len(same) == 1 else f"seeds {listed(same)}"
        lines.append(f"Nothing that the judge can see changed in {seeds}.")
    return lines


def _change(row: Row) -> str | None:
    before, after = row.drawn["plain"].opinion, row.drawn["asyndm"].opinion
    return change_sentence(row.job.seed, before, after) if before and after else None


def _notes(rows: Sequence[Row]) -> list[str]:
    """What the user should know about the runs: once, where it goes for all seeds."""
    notes = {row.job.seed: row.drawn["asyndm"].result.note for row in rows}
    if len(set(notes.values())) == 1:
        return [f"note: {note}" for note in set(notes.values()) if note]
    return [f"note: seed {seed}: {note}" for seed, note in notes.items() if note]


def _worth(number: int) -> str:
    seeds = "seed proves" if number == 1 else "seeds prove"
    return (
        f"{_NUMBERS[number]} {seeds} nothing, one way or the other. Whether AsynDM helps is measured over hundreds of"
        ' pictures, with error bars, by "asyndm evaluate".'
    )


def _places(rows: Sequence[Row], files: Mapping[str, Path], wanted: Path) -> list[str]:
    """Where the pictures are."""
    seeds = [row.job.seed for row in rows]
    ends = [f"plain-{seeds[0]}.png", f"asyndm-{seeds[-1]}.png"]
    singles = " to ".join(ends) if len(seeds) > 1 else listed([f"{variant}-{seeds[0]}.png" for variant in VARIANTS])
    folder = files["comparison"].parent
    aside = "" if folder == wanted else f", because {wanted} holds earlier pictures"
    return [
        f"{files['comparison']}: all pictures, side by side; look here first",
        f"{files['filmstrip']}: how AsynDM drew seed {seeds[0]}, step by step",
        f"{singles}: the pictures alone",
        f"All {len(files)} pictures are in {folder}{aside}.",
    ]


def _filled(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, _WIDTH)


# --- for a program --------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Row], source: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """What ``--json`` prints."""
    job = rows[0].job
    return {
        "version": __version__,
        "prompt": job.prompt,
        "seeds": [row.job.seed for row in rows],
        "parameters": {
            "steps": job.steps,
            "solver": job.solver,
            "scheduler": job.scheduler,
            "curve": job.settings.curve,
            "strength": job.settings.strength,
            "threshold": job.settings.threshold,
            "order": job.settings.order,
            "mask_source": job.settings.mask_source,
            "guidance": job.guidance,
            "width": job.width,
            "height": job.height,
        },
        "objects": [
            {"words": str(spec), "columns": columns}
            for spec, columns in zip(job.settings.objects, job.columns, strict=True)
        ],
        "objects_from": source,
        "right": {variant: right(rows, variant) for variant in VARIANTS},
        "rows": [
            {
                "seed": row.job.seed,
                "pictures": {
                    variant: _picture(one, files[f"{variant}-{row.job.seed}"]) for variant, one in row.drawn.items()
                },
                "changed_pixels": round(row.changed, 4),
                "change": _change(row),
                "note": row.drawn["asyndm"].result.note,
            }
            for row in rows
        ],
        "comparison": str(files["comparison"].resolve()),
        "filmstrip": str(files["filmstrip"].resolve()),
    }


def _picture(one: Drawn, file: Path) -> dict[str, Any]:
    opinion, result = one.opinion, one.result
    return {
        "file": str(file.resolve()),
        "right": opinion and opinion.right,
        "faults": opinion and opinion.faults,
        "seen": opinion and {"words": told(opinion.seen), **vars(opinion.seen)},
        "seconds_per_step": round(result.seconds_per_step, 4),
        "slow_fraction": [round(share, 4) for share in result.slow_fraction],
        "timesteps": [[round(low, 1), round(high, 1)] for low, high in result.timestep_range],
    }
