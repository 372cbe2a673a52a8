"""Whether a prompt is in English, which is all that the object finder reads."""

from __future__ import annotations

import unicodedata

from asyndm_ext.prompt import words as lists

_ENGLISH = lists.DETERMINERS | lists.PREPOSITIONS | lists.CONJUNCTIONS | lists.AUXILIARIES | lists.PRONOUNS
# From here on it is no chance: two little words that English does not have, or one and a weaker sign.
_CLEARLY = 1.5


def looks_foreign(text: str) -> bool:
    """Whether a text is clearly in another language than English: mostly letters of another script than the Latin one,
    or more little words of other languages than of English. A list of nouns alone ("Hund, Katze") does not tell.

    Args:
        text: a prompt without syntax, see :func:`asyndm_ext.prompt.syntax.plain_text`.
    """
    letters = [character for character in text if character.isalpha()]
    foreign_letters = sum(not _is_latin(character) for character in letters)
    if foreign_letters * 2 > len(letters):
        return True
    words = text.replace(",", " ").split()
    lowered = [word.lower() for word in words]
    # A capital in the middle is a name's: "Los Angeles", "Big Sur".
    counted = [low for number, (word, low) in enumerate(zip(words, lowered, strict=True)) if number == 0 or word == low]
    sure = sum(word in lists.FOREIGN_WORDS for word in counted)
    score = sure + 0.5 * sum(word in lists.FOREIGN_WORDS_OF_NAMES for word in counted)
    english = sum(word in _ENGLISH for word in lowered)
    if score >= _CLEARLY and score > english:
        return True
    return english == 0 and len(words) > 1 and lowered[0] in lists.FOREIGN_ARTICLES


def _is_latin(character: str) -> bool:
    return character.isascii() or unicodedata.name(character, "").startswith(("LATIN", "FULLWIDTH LATIN", "MODIFIER"))
