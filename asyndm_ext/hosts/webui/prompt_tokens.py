"""What the WebUI's tokenizer makes of a prompt, and where its objects are, for those who ask before a job.

The prompt goes the way that a job's goes: comments and extra networks are taken out, AND and prompt editing make
several texts of it, and each text is a row of tokens with columns in the conditioning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from modules import extra_networks, prompt_parser, script_callbacks

from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.hosts.webui.finders import Finder, JoinedFinder, PieceFinder, TextFinder, TokenFinder, tokenizer_of
from asyndm_ext.hosts.webui.host import current
from asyndm_ext.hosts.webui.tokens import found_in
from asyndm_ext.prompt.objects import ObjectSpec

SPACES = ("\u2581", "\u0120")
"""How the pieces that begin a word say so: of sentencepiece, and of bytes as GPT-2 writes them."""

_STEPS = 20  # of a job that is not known yet, for prompt editing

MAX_WORK = 1_000_000
"""Characters of all texts that prompt editing makes, times ten and the number of objects: some seconds."""


class TooMuch(ValueError):
    """The prompt, its steps and its objects make more than there is time for."""


def read(
    finder: Finder, prompt: str, negative: str | None, objects: Sequence[ObjectSpec], steps: int
) -> dict[str, Any]:
    """The answer to a request for tokens, JSON types.

    Args:
        finder: the loaded model's, see :meth:`asyndm_ext.hosts.webui.host.Host.finder`.
        prompt, negative: as in a job; no styles are added.
        objects: whose columns to look up; empty: those that would be found automatically.
        steps: of the job, for prompt editing.

    Raises:
        TooMuch: they are more than there is time for.
    """
    parts = _parts(prompt, steps)
    texts = [text for _, schedule in parts for _, text in schedule]
    _check_work(texts, 0)
    wanted = list(objects) or found_in(finder, texts)
    unwanted = [] if negative is None else _schedule(_cleaned(negative, steps, False), steps)
    _check_work([*texts, *(text for _, text in unwanted)], len(wanted))
    present = [spec for spec in wanted if any(finder.columns(text, spec) for text in texts)]
    return {
        "parts": [{"weight": weight, "texts": _texts(finder, schedule, present)} for weight, schedule in parts],
        "objects": [str(spec) for spec in present],
        "missing": [str(spec) for spec in objects if spec not in present],
        "negative": None if negative is None else _texts(finder, unwanted),
    }


def found(prompt: str) -> list[str]:
    """The objects that a job would find in a prompt; styles are in it already."""
    finder, texts = _as_a_job_reads(prompt)
    return [spec.name for spec in found_in(finder, texts)]


def places(prompt: str) -> Callable[[str], int]:
    """How often a job would find an object in a prompt: in the text that has it most often."""
    finder, texts = _as_a_job_reads(prompt)
    return lambda name: max(len(finder.places(text, name)) for text in texts)


def _as_a_job_reads(prompt: str) -> tuple[Finder, list[str]]:
    """The loaded model's finder, or one that needs none; and the texts that a prompt makes."""
    try:
        host = current()
        finder: Finder = TextFinder() if host.model() is None else host.finder()
    except (AsynDMError, NotApplied):  # a job says why
        finder = TextFinder()
    try:
        return finder, [text for _, schedule in _parts(prompt, _STEPS) for _, text in schedule]
    except RecursionError:  # brackets nested too deeply for the WebUI
        return TextFinder(), [prompt]


def _parts(prompt: str, steps: int) -> list[tuple[float, list[tuple[int, str]]]]:
    """What AND makes of a prompt, with weights, and prompt editing of that."""
    indexes, flat, _ = prompt_parser.get_multicond_prompt_list([_cleaned(prompt, steps, True)])
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(flat, steps)
    return [(weight, schedules[index]) for index, weight in indexes[0]]


def _check_work(texts: Sequence[str], objects: int) -> None:
    if sum(map(len, texts)) * (10 + objects) > MAX_WORK:
        raise TooMuch("the prompt makes too much text for so many steps and objects; ask for fewer of them")


def _cleaned(prompt: str, steps: int, is_positive: bool) -> str:
    """Without what the WebUI and its extensions take out before they count tokens, and without extra networks."""
    params = script_callbacks.BeforeTokenCounterParams(prompt, steps, [], is_positive=is_positive)
    script_callbacks.before_token_counter_callback(params)
    return extra_networks.parse_prompt(params.prompt)[0]


def _schedule(prompt: str, steps: int) -> list[tuple[int, str]]:
    return prompt_parser.get_learned_conditioning_prompt_schedules([prompt], steps)[0]


def _texts(
    finder: Finder, schedule: Sequence[tuple[int, str]], objects: Sequence[ObjectSpec] | None = None
) -> list[dict[str, Any]]:
    """What prompt editing makes of a prompt over the steps."""
    among = [text for _, text in schedule]
    answers = []
    for end, text in schedule:
        tokens, words = tokens_and_words(finder, text, among)
        answer = {"until": end, "text": text, "tokens": tokens, "words": words}
        if objects is not None:
            found = [{"name": str(spec), "columns": list(finder.columns(text, spec, among))} for spec in objects]
            answer["objects"] = [one for one in found if one["columns"]]
        answers.append(answer)
    return answers


def tokens_and_words(
    finder: Finder, text: str, among: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The tokens of a text with their columns, and the words that they make, from first to last.

    Where CLIP and T5 both read the text, the tokens are CLIP's and then T5's; the words are as CLIP reads them.
    """
    if isinstance(finder, JoinedFinder):
        of_clip, as_words = tokens_and_words(finder.clip, text)
        of_t5, _ = tokens_and_words(finder.t5, text)
        columns = finder.behind([token["column"] for token in of_t5], [text, *among])
        behind = [{**token, "column": column} for token, column in zip(of_t5, columns, strict=False)]
        return of_clip + behind, as_words
    assert isinstance(finder, (TokenFinder, PieceFinder))
    tokenizer = tokenizer_of(finder.encoder)
    starts_word = isinstance(finder, PieceFinder)  # T5 marks where a word starts, CLIP where it ends
    if isinstance(finder, PieceFinder):
        entries = [_Entry((column,), token) for column, token in finder.pieces(text)]
    else:
        ids, columns, embeddings = finder.line(text)
        entries = [_Entry((column,), token) for column, token in zip(columns, ids, strict=True)]
        entries += [_Entry(own, None, name) for name, own in embeddings]
    tokens: list[dict[str, Any]] = []
    words: list[list[_Entry]] = []
    goes_on = False
    for entry in sorted(entries, key=lambda entry: entry.columns):
        spelled = entry.name or _spelled(tokenizer, [entry])
        tokens += [{"column": column, "id": entry.id, "text": spelled} for column in entry.columns]
        piece = "" if entry.id is None else _piece(tokenizer, entry.id)
        if not goes_on or entry.id is None or (starts_word and piece.startswith(SPACES)):
            words.append([])
        words[-1].append(entry)
        goes_on = entry.id is not None and (starts_word or not piece.endswith("</w>"))
    return tokens, [
        {
            "word": word[0].name or _spelled(tokenizer, word),
            "columns": [column for entry in word for column in entry.columns],
        }
        for word in words
    ]


class _Entry(NamedTuple):
    """A token, or an embedding of textual inversion with its name."""

    columns: tuple[int, ...]
    id: int | None
    name: str = ""


def _piece(tokenizer: Any, token: int) -> str:
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        return tokenizer.convert_ids_to_tokens(token)
    return tokenizer.decoder[token]


def _spelled(tokenizer: Any, word: Sequence[_Entry]) -> str:
    return tokenizer.decode([entry.id for entry in word]).strip()
