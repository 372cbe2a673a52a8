"""The objects of a batch and the columns of their tokens, in every text that prompt editing and AND make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from modules import prompt_parser, sd_samplers, shared

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.hosts.webui.finders import Finder
from asyndm_ext.messages import shown
from asyndm_ext.prompt.finder import automatic_objects, reads_as_english
from asyndm_ext.prompt.objects import ObjectSpec
from asyndm_ext.region.strengths import Strengths, strengths_for
from asyndm_ext.settings import Settings

Columns = tuple[tuple[int, ...], ...]
"""Per object the columns of its tokens."""


@dataclass(frozen=True)
class RowText:
    """One conditional row: the image it belongs to, and its text as prompt editing changes it over the steps."""

    image: int
    schedule: tuple[tuple[int, str], ...]

    def at(self, step: int) -> str:
        """The active text; the host's rule: the first entry whose end is not before this step."""
        for end, text in self.schedule:
            if step <= end:
                return text
        return self.schedule[0][1]

    @property
    def texts(self) -> list[str]:
        """All of them; the host encodes them together."""
        return [text for _, text in self.schedule]


def row_texts(p: Any, hires: bool) -> list[RowText]:
    """The texts behind the conditional rows of a batch, in the host's row order.

    Args:
        hires: those of the hires pass.
    """
    prompts = prompt_parser.SdConditioning(p.hr_prompts if hires else p.prompts)
    indexes, flat, _ = prompt_parser.get_multicond_prompt_list(prompts)
    hires_steps = None
    if hires:
        config = sd_samplers.find_sampler_config(p.hr_sampler_name or p.sampler_name)
        hires_steps = p.hr_second_pass_steps or p.steps
        hires_steps = config.total_steps(hires_steps) if config else hires_steps
    # A WebUI without this setting has no argument for it either.
    old_scheduling = [True] if getattr(shared.opts, "use_old_scheduling", False) else []
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
        flat, p.firstpass_steps, hires_steps, *old_scheduling
    )
    return [
        RowText(image, tuple((end, text) for end, text in schedules[index]))
        for image, subprompts in enumerate(indexes)
        for index, _ in subprompts
    ]


def first_row(p: Any | None) -> tuple[str, int] | None:
    """The first text of the pass that is about to run, and how many columns its conditioning ``(columns, channels)``
    has; None where nothing has been encoded."""
    hires = getattr(p, "is_hr_pass", False)
    encoded = getattr(p, "hr_c" if hires else "c", None)
    if encoded is None:
        return None
    return row_texts(p, hires)[0].texts[0], len(encoded.batch[0][0].schedules[0].cond)


@dataclass(frozen=True)
class ObjectColumns:
    """The objects of a batch and where their tokens are.

    Attributes:
        specs: per image its objects, equally many for every image (padded with None).
        rows: texts of the conditional rows.
        finder: tells the columns of an object in a text.
    """

    specs: tuple[tuple[ObjectSpec | None, ...], ...]
    rows: tuple[RowText, ...]
    finder: Finder
    _known: dict[tuple[str, ObjectSpec, tuple[str, ...]], tuple[int, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """All texts are looked at before the first step: reForge takes a model apart, tokenizer and all, as soon as the
        refiner takes over."""
        for row in self.rows:
            for text in row.texts:
                for spec in self.specs[row.image]:
                    self._at(text, spec, row.texts)

    @property
    def count(self) -> int:
        return len(self.specs[0])

    @property
    def names(self) -> list[list[str]]:
        """Per image what was found, as the user would write it."""
        return [[str(spec) for spec in own if spec is not None] for own in self.specs]

    def strengths(self, settings: Settings) -> Strengths:
        """Of each object of each image, over the steps."""
        return strengths_for(settings, self.specs, [self._places(image) for image in range(len(self.specs))])

    def _places(self, image: int) -> list[tuple[int, ...]]:
        """Where an image's objects stand first: which of its texts that is, and in which columns."""
        texts = [(text, row.texts) for row in self.rows if row.image == image for text in row.texts]
        places = []
        for spec in self.specs[image]:
            columns = ((number, self._at(text, spec, among)) for number, (text, among) in enumerate(texts))
            places.append(next(((number, *found) for number, found in columns if found), (len(texts),)))
        return places

    def at(self, step: int) -> list[tuple[int, Columns]]:
        """For each conditional row the image it belongs to and, per object, the columns active in this step."""
        return [
            (row.image, tuple(self._columns(row, step, spec) for spec in self.specs[row.image])) for row in self.rows
        ]

    def _columns(self, row: RowText, step: int, spec: ObjectSpec | None) -> tuple[int, ...]:
        return self._at(row.at(step), spec, row.texts)

    def _at(self, text: str, spec: ObjectSpec | None, among: Sequence[str]) -> tuple[int, ...]:
        if spec is None:
            return ()
        key = text, spec, tuple(among)
        if key not in self._known:
            self._known[key] = self.finder.columns(text, spec, among)
        return self._known[key]


def resolve_objects(p: Any, finder: Finder, objects: Sequence[ObjectSpec], hires: bool | None = None) -> ObjectColumns:
    """Find the objects of every image of the batch; empty ``objects``: automatically, per image.

    Args:
        hires: in the prompts of the hires pass; None: of the pass that is about to run.

    Raises:
        AsynDMError: an object does not occur in an image's prompt, or none can be found automatically.
    """
    if hires is None:
        hires = getattr(p, "is_hr_pass", False)
    rows = row_texts(p, hires)
    images = max(row.image for row in rows) + 1
    specs: list[list[ObjectSpec]] = []
    for image in range(images):
        texts = [text for row in rows if row.image == image for text in row.texts]
        if objects:
            for spec in objects:
                _require(finder, texts, spec, hires)
            specs.append(list(objects))
        else:
            specs.append(found_in(finder, texts) or _nothing_found(texts, hires))
    most = max(map(len, specs))
    padded = tuple((*own, *[None] * (most - len(own))) for own in specs)
    return ObjectColumns(padded, tuple(rows), finder)


def found_in(finder: Finder, texts: Sequence[str]) -> list[ObjectSpec]:
    """The objects that are found automatically in the texts of one image."""
    found: dict[ObjectSpec, None] = {}
    for name in dict.fromkeys(name for text in texts for name in automatic_objects(text)):
        # A name of several words that the tokenizer does not read as these words ("Barack_Obama") is its last one.
        spelled = (ObjectSpec(words) for words in (name, name.split()[-1]))
        own = next((spec for spec in spelled if _occurs(finder, texts, spec)), None)
        if own is not None:
            found.setdefault(own)
    return list(found)


def _occurs(finder: Finder, texts: Sequence[str], spec: ObjectSpec) -> bool:
    return any(finder.columns(text, spec) for text in texts)


def _require(finder: Finder, texts: Sequence[str], spec: ObjectSpec, hires: bool) -> None:
    if _occurs(finder, texts, spec):
        return
    times = max(len(finder.places(text, spec.name)) for text in texts)
    there = f"; it stands there {times} time{'s' if times > 1 else ''}" if times else ""
    name = f"{shown(spec.name)} (number {spec.occurrence})" if times else shown(spec.name)
    if hires:
        raise AsynDMError(
            f"AsynDM: {name} was not found in the hires prompt {shown(texts[0])}{there}; objects have to be words of "
            "both prompts, unless 'Passes' is set to one pass"
        )
    raise AsynDMError(
        f"AsynDM: {name} was not found in the prompt {shown(texts[0])}{there}; objects have to be words of the prompt"
    )


def _nothing_found(texts: Sequence[str], hires: bool) -> NoReturn:
    where = "hires prompt" if hires else "prompt"
    if not all(map(reads_as_english, texts)):
        raise AsynDMError(
            f"AsynDM finds objects in English prompts only, and the {where} {shown(texts[0])} seems to be in another "
            "language; name the words in the field Objects"
        )
    raise AsynDMError(f"AsynDM found no object in the {where} {shown(texts[0])}; name them in the field Objects")
