"""Object words of a prompt, found when the user names none.

The finder is a small noun-phrase chunker. It tags the words with the lists of :mod:`asyndm_ext.prompt_words`, reads
each comma chunk from left to right, and keeps the last noun of every noun phrase ("a big red *car* parked near a stone
*bridge*"). A tag list ("1girl, long hair, red dress") is the special case in which every chunk is one phrase.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from asyndm_ext import prompt_words as lists

# --- the prompt without the WebUI's syntax --------------------------------------------------------------------------

_EXTRA_NETWORK = re.compile(r"<\w+:[^<>]*>")
_ESCAPED = re.compile(r"\\([()\[\]\\])")
# The weight of "(cat:1.3)", the step of "[cat:dog:0.5]", and the weight of "a cat :1.2 AND a dog :0.8".
_WEIGHT = re.compile(r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*(?=[)\]]|\bAND\b|\bBREAK\b|$)")
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


def _plain_character(character: str) -> str:
    """Keep letters, digits and combining marks; punctuation gives a comma, the rest (brackets, emoji) a space."""
    if character.isalnum() or character in _JOINERS:
        return character
    if character in _SEPARATORS:
        return ","
    return character if unicodedata.category(character).startswith("M") else " "


# --- tagging --------------------------------------------------------------------------------------------------------


class _Tag(Enum):
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
    (_Tag.DETERMINER, lists.DETERMINERS),
    (_Tag.NEGATION, lists.NEGATIONS),
    (_Tag.PREPOSITION, lists.PREPOSITIONS),
    (_Tag.CONJUNCTION, lists.CONJUNCTIONS),
    (_Tag.AUXILIARY, lists.AUXILIARIES),
    (_Tag.PRONOUN, lists.PRONOUNS),
    (_Tag.ADVERB, lists.ADVERBS),
    (_Tag.STYLE, lists.STYLE_WORDS),
    (_Tag.ADJECTIVE, lists.ADJECTIVES),
    (_Tag.NOUN, lists.ING_NOUNS | lists.ED_NOUNS | lists.LY_NOUNS | lists.MEDIA),
    (_Tag.PARTICIPLE, lists.PARTICIPLES),
)
_TAGS = {word: tag for tag, words in reversed(_CLOSED_CLASSES) for word in words}
_PHRASE_TAGS = (
    dict.fromkeys(lists.STYLE_PHRASES, _Tag.STYLE)
    | dict.fromkeys(lists.PREPOSITION_PHRASES, _Tag.PREPOSITION)
    | dict.fromkeys(lists.ARTIST_PHRASES, _Tag.ARTIST)
)
_LONGEST_PHRASE = max(map(len, _PHRASE_TAGS))
_MEASURE = re.compile(r"\d[\d.]*(?:k|p|d|x|s|st|nd|rd|th|mm|cm|m|px|fps|mp)?")
_POSSESSIVE = re.compile(r"['’]s?$")
_NOUNS = frozenset((_Tag.NOUN, _Tag.NOUN_OR_VERB, _Tag.STYLE))
_HEADS = _NOUNS | {_Tag.VERB}  # a verb only gets into a phrase as a noun: "a hug"
_BOUNDARIES = frozenset((_Tag.NEGATION, _Tag.PREPOSITION, _Tag.CONJUNCTION, _Tag.AUXILIARY, _Tag.PRONOUN))


@dataclass(frozen=True)
class _Token:
    text: str
    tag: _Tag

    @property
    def word(self) -> str:
        return _lower(self.text)


_NO_TOKEN = _Token("", _Tag.CONJUNCTION)


def _lower(text: str) -> str:
    return text.lower().replace("’", "'")


def _tokens(words: list[str]) -> list[_Token]:
    """Tag the words of one chunk; known phrases ("on top of") become one token."""
    tokens: list[_Token] = []
    lowered = tuple(map(_lower, words))
    start = 0
    while start < len(words):
        for length in range(min(_LONGEST_PHRASE, len(words) - start), 1, -1):
            tag = _PHRASE_TAGS.get(lowered[start : start + length])
            if tag:
                break
        else:
            length, tag = 1, _tag(lowered[start])
        tokens.append(_Token(" ".join(words[start : start + length]), tag))
        start += length
    return tokens


def _tag(word: str) -> _Tag:
    known = _TAGS.get(word)
    if known:
        return known
    if word.isdecimal():
        return _Tag.NUMBER
    if _MEASURE.fullmatch(word) or _POSSESSIVE.search(word) or (len(word) == 1 and word.isascii()):
        return _Tag.ADJECTIVE
    if _verb_form(word, lists.SURE_VERBS):
        return _Tag.VERB
    if _verb_form(word, lists.AMBIGUOUS_VERBS):
        return _Tag.NOUN_OR_VERB
    if "-" in word:
        last = _tag(word.rpartition("-")[2])
        return last if last is _Tag.STYLE else _Tag.NOUN if last in _NOUNS else _Tag.ADJECTIVE
    if len(word) > 4 and word.endswith("ing"):
        return _Tag.GERUND
    if len(word) > 3 and word.endswith("ed"):
        return _Tag.PARTICIPLE
    if len(word) > 3 and word.endswith("ly"):
        return _Tag.ADVERB
    if len(word) > 5 and word.endswith(lists.ADJECTIVE_ENDINGS) and word not in lists.NOT_ADJECTIVES:
        return _Tag.ADJECTIVE
    return _Tag.NOUN


def _verb_form(word: str, verbs: frozenset[str]) -> str:
    """Return "base" or "s" when ``word`` is that form of one of ``verbs``, else an empty string."""
    if word in verbs:
        return "base"
    stems = (word[:-1], word[:-2] if word.endswith("es") else "", word[:-3] + "y" if word.endswith("ies") else "")
    return "s" if word.endswith("s") and not verbs.isdisjoint(stems) else ""


def _is_plural(word: str) -> bool:
    return word in lists.IRREGULAR_PLURALS or (word.endswith("s") and not word.endswith(("ss", "us", "is")))


# --- noun phrases ---------------------------------------------------------------------------------------------------


@dataclass
class _ChunkReader:
    """Reads one comma chunk; ``heads`` collects the object words.

    ``earlier`` says whether the prompt already named an object: only then is scenery after a preposition a backdrop.
    """

    tokens: list[_Token]
    earlier: bool
    heads: list[str] = field(default_factory=list)
    phrase: list[_Token] = field(default_factory=list)
    has_noun: bool = False  # in the phrase so far
    start: int = 0  # where the phrase begins
    opener: _Token = _NO_TOKEN  # the preposition or verb before the phrase
    before_opener: _Token = _NO_TOKEN
    determiner: str = ""

    def read(self) -> list[str]:
        skipping = False
        for index, token in enumerate(self.tokens):
            if skipping:  # an artist's name ends with the chunk, or where the subject follows: "by Monet of a lake"
                skipping = not (token.word == "of" and self._at(index + 1).tag is _Tag.DETERMINER)
            elif self._names_artist(index):
                self._close(token)
                skipping = True
            elif self._is_determiner(index):
                if self.phrase:
                    self._close(token)
                    self._open(index)
                self.determiner = token.word
            elif self._is_boundary(index):
                self._close(token)
                self._open(index)
            else:
                if not self.phrase:
                    self.start = index
                self.phrase.append(token)
                self.has_noun = self.has_noun or token.tag in _HEADS
        self._close(_NO_TOKEN)
        return self.heads

    def _at(self, index: int) -> _Token:
        return self.tokens[index] if 0 <= index < len(self.tokens) else _NO_TOKEN

    def _open(self, index: int) -> None:
        self.opener, self.before_opener, self.determiner = self.tokens[index], self._at(index - 1), ""

    def _names_artist(self, index: int) -> bool:
        """An artist phrase, or "by" before a bare name: first in its chunk, capitalised, or after a medium."""
        token, name, before = self.tokens[index], self._at(index + 1), self._at(index - 1)
        if token.tag is _Tag.ARTIST:
            return True
        if token.word != "by" or name.tag not in _NOUNS:
            return False
        return index == 0 or name.text[:1].isupper() or before.word in lists.MEDIA or before.tag is _Tag.STYLE

    def _is_determiner(self, index: int) -> bool:
        token = self.tokens[index]
        if token.tag is _Tag.NUMBER:  # "2 dogs", but not "unreal engine 5"
            return not self.has_noun
        return token.tag is _Tag.DETERMINER and not (token.word == "that" and self.has_noun)

    def _is_boundary(self, index: int) -> bool:
        """Whether the word ends the phrase before it (and is no part of the next one)."""
        token = self.tokens[index]
        if token.tag in _BOUNDARIES or token.word == "that" or token.word in lists.NAMING:
            return True
        if token.tag is _Tag.NOUN_OR_VERB:
            return self._acts_as_verb(index)
        if token.tag is _Tag.VERB:  # "a hug": a noun after all
            return self.has_noun or not self.determiner
        if not self.has_noun:  # nothing to end yet, but "can tap" and "it rains" hold no noun
            return self._at(index - 1).word in lists.MODALS | lists.SUBJECTS
        if token.tag is _Tag.PARTICIPLE:  # "a skull themed lamp", but "a bird perched on a branch"
            return not self._noun_follows(index)
        # "a cat chases the dog", "children building a castle": verbs that no list knows as such
        verb_before_object = token.word.endswith(("s", "ing")) and self._determiner_follows(index)
        return token.tag in (_Tag.GERUND, _Tag.ADVERB) or (token.tag is _Tag.NOUN and verb_before_object)

    def _acts_as_verb(self, index: int) -> bool:
        """Whether a word that is a noun or a verb ("park", "stands") is a verb here."""
        before, after = self._at(index - 1), self._at(index + 1)
        if not self.phrase:  # "firefighters can tap", "trying to park", "they dance"
            subject = before.tag in (_Tag.AUXILIARY, _Tag.PRONOUN) and before.word not in lists.COPULAS
            return subject or before.word in lists.MODALS | {"to", "that"}
        if before.tag not in _NOUNS:
            return False
        if self._determiner_follows(index):
            return True
        if _verb_form(self.tokens[index].word, lists.AMBIGUOUS_VERBS) == "base":  # "bears stand", but "a park bench"
            return _is_plural(before.word)
        # "a dog runs", "dog runs on grass", but "roller skates" and "two paint brushes"
        known_singular = self.determiner in lists.SINGULAR_DETERMINERS
        return not _is_plural(before.word) and (known_singular or not (self.determiner or after is _NO_TOKEN))

    def _determiner_follows(self, index: int) -> bool:
        following = self._at(index + 1)
        return following.tag is _Tag.DETERMINER and following.word != "that"

    def _noun_follows(self, index: int) -> bool:
        """Whether a noun comes next, with up to three describing words before it."""
        for following in map(self._at, range(index + 1, index + 5)):
            if following.tag not in (_Tag.ADJECTIVE, _Tag.PARTICIPLE):
                return following.tag in _NOUNS
        return False

    def _close(self, following: _Token) -> None:
        """End the phrase before ``following`` and keep its head if that is something to draw."""
        phrase, self.phrase, self.has_noun = self.phrase, [], False
        while phrase and phrase[-1].tag not in _HEADS:
            phrase.pop()
        if phrase and not self._is_dropped(phrase, following):
            self.heads.append(phrase[-1].text)

    def _is_dropped(self, phrase: list[_Token], following: _Token) -> bool:
        head = phrase[-1].word
        bare = not self.determiner
        alone = bare and self.start == 0 and following is _NO_TOKEN
        introduces = not self.heads or self.opener.tag is _Tag.CONJUNCTION
        after_preposition = self.opener.tag is _Tag.PREPOSITION
        return any(
            (
                phrase[-1].tag is _Tag.STYLE,
                self.opener.tag is _Tag.NEGATION or self.opener.word == "during",
                head in lists.QUANTITIES and following.word == "of",
                head in lists.MEDIA and following.word in lists.MEDIA_LINKS and introduces,
                head in lists.MEDIA | lists.LONE_TAGS and alone,
                head in lists.COLOUR_NOUNS and bare,
                head in lists.TIMES and after_preposition and len(phrase) == 1,
                head in lists.SCENERY
                and after_preposition
                and self.opener.word not in lists.MEDIA_LINKS
                and (self.earlier or bool(self.heads)),
                head in lists.MATERIALS and self.before_opener.word in lists.MADE,
                self.opener.word in lists.NAMING and bare,
                self.opener.word in lists.COPULAS and bare and len(phrase) == 1 and not _is_plural(head),
            )
        )


# --- the finder -----------------------------------------------------------------------------------------------------

# A tag's qualifier, "saber \(fate\)": which saber, not a second object.
_QUALIFIER = re.compile(r"\\\([^()]*\\\)")


def automatic_objects(prompt: str, limit: int = 8) -> list[str]:
    """Find the words of ``prompt`` that name things to draw, in order of first appearance, at most ``limit``.

    Why words and not phrases: they are looked up as tokens later, and the head noun's token carries the thing. Every
    word is spelled as in the prompt and stands in ``plain_text(prompt)`` as a whole word; a word that comes twice is
    returned once. English only; other languages give the last word of each comma chunk. A prompt of nothing but
    style words gives an empty list. Never raises on text.
    """
    text = plain_text(_QUALIFIER.sub(" ", prompt))
    found: dict[str, str] = {}
    for tokens in _chunks(text):
        for head in _ChunkReader(tokens, earlier=bool(found)).read():
            found.setdefault(head.casefold(), head)
    return list(found.values())[: max(limit, 0)]


def _chunks(text: str) -> Iterator[list[_Token]]:
    """Yield the tagged comma chunks, without the names that continue a list of artists ("by A B, C D")."""
    artists = False
    for chunk in text.split(", "):
        words = chunk.split()
        if artists and len(words) > 1 and all(word[0].isupper() for word in words):
            continue
        tokens = _tokens(words)
        if not tokens:
            continue
        artists = tokens[0].tag is _Tag.ARTIST or tokens[0].word == "by"
        yield tokens
