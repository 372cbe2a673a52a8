"""Object words of a prompt, found when the user names none.

The finder is a small noun-phrase chunker. It tags the words with the lists of :mod:`asyndm_ext.prompt.words`, reads
each comma chunk from left to right, and keeps the last noun of every noun phrase ("a big red *car* parked near a stone
*bridge*"). A tag list ("1girl, long hair, red dress") is the special case in which every chunk is one phrase. A name of
several words ("*Barack Obama* below the *Statue of Liberty*") is one noun: known by its capitals, or from a list.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from asyndm_ext.prompt import words as lists
from asyndm_ext.prompt.language import looks_foreign
from asyndm_ext.prompt.syntax import plain_text
from asyndm_ext.prompt.tags import (
    BOUNDARIES,
    HEADS,
    NO_TOKEN,
    NOUNS,
    Capitals,
    Tag,
    Token,
    is_plural,
    lower,
    tag_words,
    verb_form,
    what_capitals_tell,
)

# --- noun phrases ---------------------------------------------------------------------------------------------------


@dataclass
class _ChunkReader:
    """Reads one comma chunk; ``heads`` collects the object words.

    ``earlier`` says whether the prompt already named an object: only then is scenery after a preposition a backdrop.
    ``capitals`` says what capitals are for.
    """

    tokens: list[Token]
    earlier: bool
    capitals: Capitals
    heads: list[str] = field(default_factory=list)
    phrase: list[Token] = field(default_factory=list)
    has_noun: bool = False  # in the phrase so far
    start: int = 0  # where the phrase begins
    opener: Token = NO_TOKEN  # the preposition or verb before the phrase
    before_opener: Token = NO_TOKEN
    determiner: str = ""

    def read(self) -> list[str]:
        skipping = False
        for index, token in enumerate(self.tokens):
            if skipping:  # an artist's name ends with the chunk, or where the subject follows: "by Monet of a lake"
                skipping = not (token.word == "of" and self._at(index + 1).tag is Tag.DETERMINER)
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
                self.has_noun = self.has_noun or token.tag in HEADS
        self._close(NO_TOKEN)
        return self.heads

    def _at(self, index: int) -> Token:
        return self.tokens[index] if 0 <= index < len(self.tokens) else NO_TOKEN

    def _open(self, index: int) -> None:
        self.opener, self.before_opener, self.determiner = self.tokens[index], self._at(index - 1), ""

    def _names_artist(self, index: int) -> bool:
        """An artist phrase, or "by" before a bare name: first in its chunk, capitalised, or after a medium."""
        token, name, before = self.tokens[index], self._at(index + 1), self._at(index - 1)
        if token.tag is Tag.ARTIST:
            return True
        if token.word != "by" or name.tag not in NOUNS:
            return False
        return index == 0 or name.text[:1].isupper() or before.word in lists.MEDIA or before.tag is Tag.STYLE

    def _is_determiner(self, index: int) -> bool:
        token = self.tokens[index]
        if token.tag is Tag.NUMBER:  # "2 dogs", but not "unreal engine 5"
            return not self.has_noun
        return token.tag is Tag.DETERMINER and not (token.word == "that" and self.has_noun)

    def _is_boundary(self, index: int) -> bool:
        """Whether the word ends the phrase before it (and is no part of the next one)."""
        token = self.tokens[index]
        if token.tag in BOUNDARIES or token.word == "that" or token.word in lists.NAMING:
            return True
        if token.tag is Tag.NOUN_OR_VERB:
            return self._acts_as_verb(index)
        if token.tag is Tag.VERB:  # "a hug": a noun after all
            return self.has_noun or not self.determiner
        if not self.has_noun:  # nothing to end yet, but "can tap" and "it rains" hold no noun
            return self._at(index - 1).word in lists.MODALS | lists.SUBJECTS
        if token.tag is Tag.PARTICIPLE:  # "a skull themed lamp", but "a bird perched on a branch"
            return not self._noun_follows(index)
        # "a cat chases the dog", "children building a castle": verbs that no list knows as such
        name_follows = token.text.islower() and self._at(index + 1).text[:1].isupper()  # "crossing Abbey Road"
        verb_before_object = token.word.endswith(("s", "ing")) and (
            self._determiner_follows(index) or (name_follows and self.capitals is Capitals.NAMES)
        )
        return token.tag in (Tag.GERUND, Tag.ADVERB) or (token.tag is Tag.NOUN and verb_before_object)

    def _acts_as_verb(self, index: int) -> bool:
        """Whether a word that is a noun or a verb ("park", "stands") is a verb here."""
        before, after = self._at(index - 1), self._at(index + 1)
        if not self.phrase:  # "firefighters can tap", "trying to park", "they dance"
            subject = before.tag in (Tag.AUXILIARY, Tag.PRONOUN) and before.word not in lists.COPULAS
            return subject or before.word in lists.MODALS | {"to", "that"}
        if before.tag not in NOUNS:
            return False
        if self._determiner_follows(index):
            return True
        if verb_form(self.tokens[index].word, lists.AMBIGUOUS_VERBS) == "base":  # "bears stand", but "a park bench"
            return is_plural(before.word)
        # "a dog runs", "dog runs on grass", but "roller skates" and "two paint brushes"
        known_singular = self.determiner in lists.SINGULAR_DETERMINERS
        return not is_plural(before.word) and (known_singular or not (self.determiner or after is NO_TOKEN))

    def _determiner_follows(self, index: int) -> bool:
        following = self._at(index + 1)
        return following.tag is Tag.DETERMINER and following.word != "that"

    def _noun_follows(self, index: int) -> bool:
        """Whether a noun comes next, with up to three describing words before it."""
        for following in map(self._at, range(index + 1, index + 5)):
            if following.tag not in (Tag.ADJECTIVE, Tag.PARTICIPLE):
                return following.tag in NOUNS
        return False

    def _close(self, following: Token) -> None:
        """End the phrase before ``following`` and keep its head if that is something to draw."""
        phrase, self.phrase, self.has_noun = self.phrase, [], False
        while phrase and phrase[-1].tag not in HEADS:
            phrase.pop()
        if phrase and not self._is_dropped(phrase, following):
            self.heads.append(phrase[-1].text)
        elif (
            len(phrase) > 1 and phrase[-1].word in lists.MEDIA and " " in phrase[-2].text and phrase[-2].tag is Tag.NOUN
        ):
            self.heads.append(phrase[-2].text)  # "Emma Watson portrait"

    def _is_dropped(self, phrase: list[Token], following: Token) -> bool:
        head = phrase[-1].word
        bare = not self.determiner
        alone = bare and self.start == 0 and following is NO_TOKEN
        introduces = not self.heads or self.opener.tag is Tag.CONJUNCTION
        after_preposition = self.opener.tag is Tag.PREPOSITION
        return any(
            (
                phrase[-1].tag is Tag.STYLE,
                self.opener.tag is Tag.NEGATION or self.opener.word == "during",
                head in lists.QUANTITIES and following.word == "of",
                head in lists.MEDIA and following.word in lists.MEDIA_LINKS and introduces,
                head in lists.MEDIA | lists.LONE_TAGS and alone,
                head in lists.COLOUR_NOUNS and bare,
                head in lists.TIMES and after_preposition and len(phrase) == 1,
                head in lists.SCENERY
                and after_preposition
                and self.opener.word not in lists.MEDIA_LINKS
                and (self.earlier or bool(self.heads)),
                bare and self.opener.word == "in" and self._is_place(phrase) and (self.earlier or bool(self.heads)),
                head in lists.MATERIALS and self.before_opener.word in lists.MADE,
                self.opener.word in lists.NAMING and bare,
                self.opener.word in lists.COPULAS and bare and len(phrase) == 1 and not is_plural(head),
            )
        )

    def _is_place(self, phrase: list[Token]) -> bool:
        """Whether a phrase after "in" is a name: "in New York", of more places than a list can know."""
        name = phrase[-1].text
        told = self.capitals is Capitals.NAMES or (self.capitals is not Capitals.NOTHING and " " in name)
        return len(phrase) == 1 and name[0].isupper() and (told or tuple(lower(name).split()) in lists.NAMES)


# --- the finder -----------------------------------------------------------------------------------------------------

# A tag's qualifier, "saber \(fate\)": which saber, not a second object.
_QUALIFIER = re.compile(r"\\\([^()]*\\\)")


def automatic_objects(prompt: str, limit: int = 8) -> list[str]:
    """Find the words of ``prompt`` that name things to draw, in order of first appearance, at most ``limit``.

    Why words and not phrases: they are looked up as tokens later, and the head noun's token carries the thing. Only a
    name is several words. All are spelled as in the prompt and stand in ``plain_text(prompt)``, words as whole words;
    one that comes twice is returned once. English only: a prompt that is clearly in another language
    (:func:`reads_as_english`), or of nothing but style words, gives an empty list; a few foreign words give the last of
    each comma chunk. Never raises on text.
    """
    text = plain_text(_QUALIFIER.sub(" ", prompt))
    if looks_foreign(text):
        return []
    capitals = what_capitals_tell(text)
    found: dict[str, str] = {}
    for tokens in _chunks(text, names=capitals is not Capitals.NOTHING):
        for head in _ChunkReader(tokens, bool(found), capitals).read():
            found.setdefault(head.casefold(), head)
    return list(found.values())[: max(limit, 0)]


def reads_as_english(prompt: str) -> bool:
    """Whether :func:`automatic_objects` can be expected to understand the prompt."""
    return not looks_foreign(plain_text(prompt))


def _chunks(text: str, names: bool) -> Iterator[list[Token]]:
    """Yield the tagged comma chunks, without the names that continue a list of artists ("by A B, C D")."""
    artists = False
    for chunk in text.split(", "):
        words = chunk.split()
        if artists and len(words) > 1 and all(word[0].isupper() for word in words):
            continue
        tokens = tag_words(words, names)
        if not tokens:
            continue
        artists = tokens[0].tag is Tag.ARTIST or tokens[0].word == "by"
        yield tokens
