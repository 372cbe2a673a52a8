"""The words of a prompt with their part of speech; a name of several words is one noun."""

import re
from dataclasses import dataclass
from enum import Enum, auto

from asyndm_ext.prompt import words as lists


class Tag(Enum):
    DETERMINER = auto()
    NEGATION = auto()
    PREPOSITION = auto()
    CONJUNCTION = auto()
    AUXILIARY = auto()
    PRONOUN = auto()
    ADVERB = auto()
    ADJECTIVE = auto()
    NUMBER = auto()
    GERUND = auto()
    PARTICIPLE = auto()
    VERB = auto()
    NOUN_OR_VERB = auto()
    STYLE = auto()
    ARTIST = auto()
    NOUN = auto()


_CLOSED_CLASSES = (
    (Tag.DETERMINER, lists.DETERMINERS),
    (Tag.NEGATION, lists.NEGATIONS),
    (Tag.PREPOSITION, lists.PREPOSITIONS),
    (Tag.CONJUNCTION, lists.CONJUNCTIONS),
    (Tag.AUXILIARY, lists.AUXILIARIES),
    (Tag.PRONOUN, lists.PRONOUNS),
    (Tag.ADVERB, lists.ADVERBS),
    (Tag.STYLE, lists.STYLE_WORDS),
    (Tag.ADJECTIVE, lists.ADJECTIVES),
    (Tag.NOUN, lists.ING_NOUNS | lists.ED_NOUNS | lists.LY_NOUNS | lists.MEDIA),
    (Tag.PARTICIPLE, lists.PARTICIPLES),
)
_TAGS = {word: tag for tag, words in reversed(_CLOSED_CLASSES) for word in words}
_PHRASE_TAGS = (
    dict.fromkeys(lists.STYLE_PHRASES, Tag.STYLE)
    | dict.fromkeys(lists.PREPOSITION_PHRASES, Tag.PREPOSITION)
    | dict.fromkeys(lists.ARTIST_PHRASES, Tag.ARTIST)
    | dict.fromkeys(lists.NAMES, Tag.NOUN)
)
_LONGEST_PHRASE = max(map(len, _PHRASE_TAGS))
_MEASURE = re.compile(r"\d[\d.]*(?:k|p|d|x|s|st|nd|rd|th|mm|cm|m|px|fps|mp)?")
_POSSESSIVE = re.compile(r"['’]s?$")
NOUNS = frozenset((Tag.NOUN, Tag.NOUN_OR_VERB, Tag.STYLE))
HEADS = NOUNS | {Tag.VERB}  # a verb only gets into a phrase as a noun: "a hug"
_LITTLE = (lists.DETERMINERS | lists.PREPOSITIONS | lists.CONJUNCTIONS | lists.AUXILIARIES) - lists.FIRST_NAMES
BOUNDARIES = frozenset((Tag.NEGATION, Tag.PREPOSITION, Tag.CONJUNCTION, Tag.AUXILIARY, Tag.PRONOUN))


@dataclass(frozen=True)
class Token:
    text: str
    tag: Tag

    @property
    def word(self) -> str:
        return lower(self.text)


NO_TOKEN = Token("", Tag.CONJUNCTION)


def lower(text: str) -> str:
    return text.lower().replace("’", "'")


def tag_words(words: list[str], names: bool = False) -> list[Token]:
    """Tag the words of one chunk; known phrases ("on top of") become one token, and so do names if ``names``."""
    tokens: list[Token] = []
    lowered = tuple(map(lower, words))
    start = 0
    while start < len(words):
        for length in range(min(_LONGEST_PHRASE, len(words) - start), 1, -1):
            tag = _PHRASE_TAGS.get(lowered[start : start + length])
            if tag:
                break
        else:
            length, tag = 1, _tag(lowered[start])
        tokens.append(Token(" ".join(words[start : start + length]), tag))
        start += length
    return _with_names(tokens) if names else tokens


# "Digital Illustration" introduces the picture, capitals or not.
_NOT_IN_NAMES = lists.MEDIA | lists.LONE_TAGS | lists.QUANTITIES
# What a name can be made of, if it has a capital.
_NAMING_TAGS = (NOUNS - {Tag.STYLE}) | {Tag.ADJECTIVE, Tag.VERB, Tag.GERUND, Tag.PARTICIPLE, Tag.ADVERB}


def _with_names(tokens: list[Token]) -> list[Token]:
    """Join capitalised words that stand in a row, and two such with "of" or "the" between them: a name is one noun."""
    joined: list[Token] = []
    start = 0
    while start < len(tokens):
        end = _end_of_name(tokens, start)
        if end - start > 1:
            joined.append(Token(" ".join(token.text for token in tokens[start:end]), Tag.NOUN))
        else:
            joined.append(tokens[start])
        start = end
    return joined


def _end_of_name(tokens: list[Token], start: int) -> int:
    """The first place after the name that begins at ``start``; one further on if none does."""
    end = start
    while end < len(tokens) and _names(tokens, end):
        end += 1
    while end > start and tokens[end - 1].word in _NOT_IN_NAMES:
        end -= 1
    if not any(token.tag in HEADS for token in tokens[start:end]):
        return start + 1  # "Highly Detailed"
    first = tokens[start]
    if end - start > 2 and start == 0 and first.tag not in NOUNS and first.word not in lists.FIRST_NAMES:
        return 1  # "Cute Emma Watson": the capital is that of the sentence
    # "the Lord of the Rings", but not "Bowl of Ramen", which begins the sentence
    # "Kermit the Frog", but not "Pet the Cat"
    of = end - start > 1 or (start > 0 and tokens[start - 1].tag is Tag.DETERMINER)
    link = [token.word for token in tokens[end : end + 2]] if end > start else []
    if (of and link[:1] == ["of"]) or (first.tag is Tag.NOUN and link[:1] == ["the"]):
        after = end + (2 if link == ["of", "the"] else 1)
        while after < len(tokens) and _names(tokens, after):
            after += 1
            end = after
    return max(end, start + 1)


def _names(tokens: list[Token], index: int) -> bool:
    """Whether a word has a capital as the words of names have."""
    token = tokens[index]
    if not token.text[0].isupper() or _POSSESSIVE.search(token.text):
        return False
    if token.word in lists.FIRST_NAMES:
        return index + 1 < len(tokens) and _names(tokens, index + 1)
    return token.tag in _NAMING_TAGS


class Capitals(Enum):
    """What the capitals of a prompt tell."""

    NOTHING = auto()  # "A Red Fox In A Field", "Girl in Blue Dress", "A CAT"
    NAMES_OR_NOTHING = auto()  # "Obama in Hawaii", "Girl in Kimono": no other word is there to tell
    NAMES = auto()


def what_capitals_tell(text: str) -> Capitals:
    chunks = [chunk.split() for chunk in text.split(", ") if chunk]
    if any(word[0].isupper() and lower(word) in _LITTLE for chunk in chunks for word in chunk[1:]):
        return Capitals.NOTHING
    tokens = [token for chunk in chunks for token in tag_words(chunk) if token.word not in _LITTLE]
    words = [token for token in tokens if token.text[0].isalpha()]
    if not all(token.text[0].isupper() for token in words):
        return Capitals.NAMES
    described = any(token.tag in (Tag.ADJECTIVE, Tag.PARTICIPLE) for token in words)
    return Capitals.NOTHING if described else Capitals.NAMES_OR_NOTHING


def _tag(word: str) -> Tag:
    known = _TAGS.get(word)
    if known:
        return known
    if word.isdecimal():
        return Tag.NUMBER
    if _MEASURE.fullmatch(word) or _POSSESSIVE.search(word) or (len(word) == 1 and word.isascii()):
        return Tag.ADJECTIVE
    if verb_form(word, lists.SURE_VERBS):
        return Tag.VERB
    if verb_form(word, lists.AMBIGUOUS_VERBS):
        return Tag.NOUN_OR_VERB
    if "-" in word:
        last = _tag(word.rpartition("-")[2])
        return last if last is Tag.STYLE else Tag.NOUN if last in NOUNS else Tag.ADJECTIVE
    if len(word) > 4 and word.endswith("ing"):
        return Tag.GERUND
    if len(word) > 3 and word.endswith("ed"):
        return Tag.PARTICIPLE
    if len(word) > 3 and word.endswith("ly"):
        return Tag.ADVERB
    if len(word) > 5 and word.endswith(lists.ADJECTIVE_ENDINGS) and word not in lists.NOT_ADJECTIVES:
        return Tag.ADJECTIVE
    return Tag.NOUN


def verb_form(word: str, verbs: frozenset[str]) -> str:
    """Return "base" or "s" when ``word`` is that form of one of ``verbs``, else an empty string."""
    if word in verbs:
        return "base"
    stems = (word[:-1], word[:-2] if word.endswith("es") else "", word[:-3] + "y" if word.endswith("ies") else "")
    return "s" if word.endswith("s") and not verbs.isdisjoint(stems) else ""


def is_plural(word: str) -> bool:
    return word in lists.IRREGULAR_PLURALS or (word.endswith("s") and not word.endswith(("ss", "us", "is")))
