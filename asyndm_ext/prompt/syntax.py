"""The words of a prompt without the WebUI's syntax, and where an object's words stand in it."""

import re
import unicodedata

_EXTRA_NETWORK = re.compile(r"<\w+:[^<>]*>")
_ESCAPED = re.compile(r"\\([()\[\]\\])")
# The weight of "(cat:1.3)", the step of "[cat:dog:0.5]", and the weight of "a cat :1.2 AND a dog :0.8".
_WEIGHT = re.compile(r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*(?=[)\]]|\bAND\b|\bBREAK\b|$)")
_BRACKET = re.compile(r"[()\[\]]")
_FULL_STOP = re.compile(r"\.(?=[\s)\]\"'”’]|$)")
_SEPARATORS = frozenset(',;:!?|/{}=\n\r•—–―…"“”«»，、。；：！？')
_JOINERS = "'’-."
_KEYWORDS = frozenset(("BREAK", "AND"))


def plain_text(prompt: str) -> str:
    """Return the words of ``prompt`` and the commas between its parts, nothing else.

    Emphasis, weights, LoRA and hypernetwork tags go; the words of schedules and alternations all stay, separated by
    commas; BREAK, AND and punctuation become commas; "long_hair" becomes two words. Words keep their spelling, inner
    apostrophes, hyphens and dots included. Cleaning a clean text changes nothing. Any text is accepted.
    """
    text = _EXTRA_NETWORK.sub(" ", prompt)
    text = _ESCAPED.sub(" ", text)
    text = _WEIGHT.sub(" ", text)
    text = _FULL_STOP.sub(",", text)
    text = text.replace("--", ",")
    text = "".join(map(_plain_character, text))
    chunks: list[list[str]] = [[]]
    for piece in text.replace(",", " , ").split():
        word = piece.strip(_JOINERS)
        if piece == "," or word in _KEYWORDS:
            chunks.append([])
        elif word:
            chunks[-1].append(word)
    return ", ".join(" ".join(words) for words in chunks if words)


def occurrences(prompt: str, name: str) -> int:
    """How often the words of an object stand in ``prompt``, in a row and each a whole word; letter case does not count.

    What a text encoder would find, as far as that can be told without one: emphasis may begin and end within the words,
    a comma may not stand between them. Of a schedule all texts count at once.
    """
    return len(_starts(prompt, name))


def place(prompt: str, name: str, occurrence: int | None = None) -> int:
    """Where they stand first, or the time that is meant, as a number of characters; behind all others if nowhere."""
    starts = _starts(prompt, name)[(occurrence or 1) - 1 :]
    return starts[0] if starts else len(prompt) + 1


def _starts(prompt: str, name: str) -> list[int]:
    text = _WEIGHT.sub(" ", _ESCAPED.sub(r"\1", _EXTRA_NETWORK.sub(" ", prompt)))
    text = _BRACKET.sub(" ", re.sub(r"\b(?:AND|BREAK)\b|[|:]", ",", text))
    words = _BRACKET.sub(" ", name).split()
    if not words:
        return []
    letter = r"[^\W_]"  # tags are words with lines between them: "long_hair"
    pattern = rf"(?<!{letter})" + r"\s+".join(map(re.escape, words)) + rf"(?!{letter})"
    return [match.start() for match in re.finditer(pattern, text, re.IGNORECASE)]


def _plain_character(character: str) -> str:
    """Keep letters, digits and combining marks; punctuation gives a comma, the rest (brackets, emoji) a space."""
    if character.isalnum() or character in _JOINERS:
        return character
    if character in _SEPARATORS:
        return ","
    return character if unicodedata.category(character).startswith("M") else " "
