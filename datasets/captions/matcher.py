"""Step 2 and 4 of the filter: compound nouns, and from them to categories."""
from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Set, Tuple

from datasets.captions.grammar import PUNCTUATION, is_modifier, is_verb, tokenise
from datasets.captions.lexicon import Categories, Lexicon, Phrase, Sense
from datasets.captions.negation import TRIGGERS, echo_positions, silent_positions


class CategoryMatcher:
    """Names the categories that a caption speaks of. The same caption is worked out once."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._singular = lexicon.singular
        self._phrases = lexicon.phrases
        self._context = lexicon.context
        self._vehicles = lexicon.context.enclosing | lexicon.context.decked
        self._echo_names = lexicon.echo_names
        self._echo_words = frozenset(word for name in lexicon.echo_names for word in name)
        self._compounds = frozenset(phrase.words for group in lexicon.phrases.values() for phrase in group
                                    if len(phrase.words) > 1)
        self._triggers = TRIGGERS | lexicon.context.depictions | _PICTURES
        self._first: Dict[str, Categories] = {}
        self._re: Dict[str, Categories] = {}

    def name_categories(self, caption: str, is_recaption: bool = False) -> Categories:
        """The categories that `caption` names, as sorted indices.

        Args:
            caption: one caption.
            is_recaption: whether the captioner was asked with an exclusion, whose words it may have echoed.
        """
        memory = self._re if is_recaption else self._first
        named = memory.get(caption)
        if named is None:
            named = memory[caption] = self._name(caption, is_recaption)
        return named

    def singular_words(self, caption: str) -> List[str]:
        """The words of a caption in the singular, with its punctuation."""
        singular = self._singular
        return [singular[token] for token in tokenise(caption)]

    def _name(self, caption: str, is_recaption: bool) -> Categories:
        tokens = tokenise(caption)
        singular = self._singular
        words = [singular[token] for token in tokens]
        phrases = self._phrases
        starts = [position for position, word in enumerate(words) if word in phrases]
        if not starts:
            return ()
        silent = self._silent_positions(tokens, words, is_recaption)
        found: Set[int] = set()
        free = 0
        for start in starts:
            if start < free:
                continue
            for phrase in phrases[words[start]]:
                end = start + len(phrase.words)
                if end - start > 1 and tuple(words[start:end]) != phrase.words:
                    continue
                free = end
                if start not in silent and not self._is_out_of_sight(tokens, words, start, end):
                    found.update(self._meaning(phrase, tokens, words, start, end))
                break
        return tuple(sorted(found))

    def _silent_positions(self, tokens: List[str], words: List[str], is_recaption: bool) -> Set[int]:
        """Positions whose words name nothing: denied, asked, echoed or only depicted."""
        silent: Set[int] = set()
        if not self._triggers.isdisjoint(words):
            silent |= silent_positions(tokens)
            silent |= self._depicted_positions(words)
        if is_recaption:
            names = self._echo_words
            if any(one in names and other in names for one, other in zip(words, words[1:])):
                silent |= echo_positions(tokens, self._echo_names, self._compounds)
        return silent

    def _depicted_positions(self, words: Sequence[str]) -> Set[int]:
        depicted: Set[int] = set()
        for position, word in enumerate(words[:-1]):
            depicts = word in self._context.depictions or word in _PICTURES and "with" in words[max(position - 2, 0):position]
            if depicts and words[position + 1] == "of":
                end = position + 2
                while end < len(words) and words[end] not in PUNCTUATION and words[end] not in _DEPICTION_ENDS:
                    end += 1
                depicted.update(range(position + 2, end))
        return depicted

    def _is_out_of_sight(self, tokens: Sequence[str], words: Sequence[str], start: int, end: int) -> bool:
        """Whether the words around words[start:end] say that the thing itself is not to be seen."""
        context = self._context
        if end < len(words) and words[end] in context.heads or start and words[start - 1] in context.imitations:
            return True
        if tokens[end - 1].endswith("'s") and not context.homes.isdisjoint(words[end:end + 3]):
            return True
        return words[end - 1] in self._vehicles and self._is_seen_from_inside(words, start, end)

    def _is_seen_from_inside(self, words: Sequence[str], start: int, end: int) -> bool:
        """"The back seat of his car", "people sitting on a city bus"; start and end are those of the vehicle."""
        position = start - 1
        while position > 0 and words[position] not in _INTO and start - position < 4:
            position -= 1
        if position < 1 or words[position] not in _INTO:
            return False
        if words[position] == "of" or words[end - 1] in self._context.decked:
            return words[position - 1] in self._context.interior_parts
        return (words[position] in ("inside", "aboard") or words[position - 1] in self._context.occupants
                or words[position - 1] in self._context.interior_parts)

    def _meaning(self, phrase: Phrase, tokens: Sequence[str], words: Sequence[str], start: int, end: int) -> Categories:
        for sense in phrase.senses:
            if _holds(sense, tokens, words, start, end):
                return sense.categories
        return () if phrase.senses else phrase.categories


_INTO = frozenset(("of", "in", "on", "inside", "aboard"))

_PICTURES = frozenset(("image", "picture", "photo", "photograph"))
"""What a caption calls the photo itself, unless a thing comes "with a picture of" something."""

_DEPICTION_ENDS = frozenset("in at near next behind beside by is are".split())


def _holds(sense: Sense, tokens: Sequence[str], words: Sequence[str], start: int, end: int) -> bool:
    plural = tokens[end - 1] != words[end - 1]
    if sense.plural is not None and sense.plural != plural:
        return False
    if sense.before and (start == 0 or words[start - 1] not in sense.before):
        return False
    if sense.after and (end == len(words) or words[end] not in sense.after):
        return False
    if sense.near and sense.near.isdisjoint(words):
        return False
    if sense.verb is not None and sense.verb != is_verb(tokens, start, end, plural):
        return False
    return sense.modifier is None or sense.modifier == is_modifier(tokens, start, end)
