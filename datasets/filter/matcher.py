"""Step 2 and 4 of the filter: compound nouns, and from them to categories."""
from __future__ import annotations

from functools import reduce
from itertools import compress
from operator import and_, or_
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set, Tuple

from datasets.filter.context_rules import Categories, Sense
from datasets.filter.depiction import LIKENESS_TRIGGERS, depicted_positions, likeness_positions
from datasets.filter.grammar import COLOURS, DETERMINERS, is_modifier, is_participle, is_verb, tokenise
from datasets.filter.lexicon import Lexicon, Phrase, Start
from datasets.filter.negation import TRIGGERS, echo_positions, excluded_positions, name_at, silent_positions
from datasets.filter.synonyms import Words

_TRIGGER, _LIKENESS, _DEPICTION, _NEIGHBOUR, _POSSESSIVE = (1 << bit for bit in range(5))
_SILENCING = _TRIGGER | _LIKENESS | _DEPICTION

_MEMORY = 1 << 14
"""Captions that a matcher remembers. Captioners repeat themselves mostly from one image to the next ones."""

_NO_WORDS: FrozenSet[str] = frozenset()


class Reading(NamedTuple):
    """What a caption says."""

    words: Words
    """Its words in the singular, with its punctuation."""
    categories: Categories
    """The categories that it names, sorted."""
    excluded: Categories
    """The backgrounds that the question of a re-caption excluded, as far as the answer repeats them, sorted."""
    unclaimed: FrozenSet[str]
    """Its words that are no part of what names a category; empty where the matcher does not look for them."""


class _Known(NamedTuple):
    """All that a token's spelling tells."""

    word: str
    """The singular."""
    signs: int
    """The rules that it may call for, as bits; most tokens call for none."""
    start: Optional[Start]
    """The phrases that start with it, if any."""
    is_echo: bool
    """Whether it is part of a name that a question can exclude."""


class _Vocabulary(Dict[str, _Known]):
    """Token to what is known of it; fills itself, so that a caption costs one look-up a token."""

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        context = lexicon.context
        self._lexicon = lexicon
        self._depicting = context.depictions
        self._neighbours = context.heads | context.imitations | context.materials
        self._echo_words = frozenset(word for name in lexicon.echo_names for word in name)

    def __missing__(self, token: str) -> _Known:
        word = self._lexicon.singular[token]
        signs = (_TRIGGER * (token in TRIGGERS) | _LIKENESS * (token in LIKENESS_TRIGGERS)
                 | _DEPICTION * (word in self._depicting or token == "with") | _NEIGHBOUR * (word in self._neighbours)
                 | _POSSESSIVE * token.endswith("'s"))
        known = self[token] = _Known(word, signs, self._lexicon.starts.get(word), token in self._echo_words)
        return known


class CategoryMatcher:
    """Names the categories that a caption speaks of. A caption that repeats a recent one is not worked out again.

    Args:
        lexicon: the words of a dataset.
        find_unclaimed: whether readings hold the unclaimed words, which the report lists.
    """

    def __init__(self, lexicon: Lexicon, find_unclaimed: bool = False) -> None:
        self._find_unclaimed = find_unclaimed
        self._context = lexicon.context
        self._vehicles = lexicon.context.enclosing | lexicon.context.decked
        self._vocabulary = _Vocabulary(lexicon)
        self._backgrounds = {name: index for name, index in lexicon.echo_names.items() if index is not None}
        self._echo_names: Dict[str, List[Words]] = {}
        for name in sorted(lexicon.echo_names, key=len, reverse=True):
            self._echo_names.setdefault(name[0], []).append(name)
        self._compounds = frozenset(phrase.words for start in lexicon.starts.values()
                                    for group in start.compounds.values() for phrase in group)
        self._first: Dict[str, Reading] = {}
        self._re: Dict[str, Reading] = {}
        self._shared: Dict[Categories, Categories] = {}

    def name_categories(self, caption: str, is_recaption: bool = False) -> Categories:
        """The categories that `caption` names, as sorted indices. Arguments as for `read`."""
        return self.read(caption, is_recaption).categories

    def read(self, caption: str, is_recaption: bool = False) -> Reading:
        """Work out what a caption says.

        Args:
            caption: one caption.
            is_recaption: whether the captioner was asked with an exclusion, whose words it may have echoed.
        """
        memory = self._re if is_recaption else self._first
        reading = memory.get(caption)
        if reading is None:
            if len(memory) >= _MEMORY:
                memory.clear()
            reading = memory[caption] = self._read(caption, is_recaption)
        return reading

    def _read(self, caption: str, is_recaption: bool) -> Reading:
        tokens = tokenise(caption)
        if not tokens:
            return Reading((), (), (), _NO_WORDS)
        words: Words
        words, each_signs, starts, are_echoes = zip(*map(self._vocabulary.__getitem__, tokens))
        signs = reduce(or_, each_signs) if any(each_signs) else 0
        silent: Set[int] = set()
        excluded: Categories = ()
        if is_recaption:
            if any(map(and_, are_echoes, are_echoes[1:])):  # only names that follow each other repeat the question
                silent = echo_positions(tokens, self._echo_names, self._compounds)
            if silent or signs & _TRIGGER:
                asked = silent | excluded_positions(tokens)
                names = {name_at(tokens, position, self._echo_names) for position in asked}
                excluded = tuple(sorted({self._backgrounds[name] for name in names if name in self._backgrounds}))
        if signs & _SILENCING:
            silent = silent | self._silent_positions(tokens, words, signs)
        claimed: Optional[Set[int]] = set() if self._find_unclaimed else None
        found = self._named(tokens, words, starts, silent, signs, claimed)
        named = tuple(sorted(found)) if found else ()
        unclaimed = _NO_WORDS if claimed is None else frozenset(
            word for position, word in enumerate(words) if position not in claimed)
        return Reading(words, self._shared.setdefault(named, named), excluded, unclaimed)

    def _named(self, tokens: List[str], words: Words, starts: Tuple[Optional[Start], ...], silent: Set[int], signs: int,
               claimed: Optional[Set[int]]) -> Set[int]:
        """The categories of the phrases that are to be seen; their positions go into `claimed`."""
        found: Set[int] = set()
        last = len(words) - 1
        vehicles = self._vehicles
        free = 0
        for start, (phrase, compounds) in compress(enumerate(starts), starts):  # type: ignore[misc]  # none is None
            if start < free:
                continue
            if compounds and start < last and words[start + 1] in compounds:
                for compound in compounds[words[start + 1]]:
                    end = start + len(compound.words)
                    if words[start:end] == compound.words and not (
                            compound.takes_noun and is_participle(tokens, start, end, compound.takes_animal)):
                        phrase = compound
                        break
            if phrase is None:
                continue
            free = start + len(phrase.words)
            if (silent and start in silent
                    or signs & _NEIGHBOUR and self._is_imitation(phrase, words, start, free)
                    or signs & _POSSESSIVE and self._is_home(tokens, words, free)
                    or words[free - 1] in vehicles and self._is_seen_from_inside(words, start, free)):
                continue
            if not phrase.senses:
                categories = phrase.categories
            elif phrase.as_noun is not None and start and tokens[start - 1] in DETERMINERS:
                categories = phrase.as_noun
            else:
                categories = _meaning(phrase, tokens, words, start, free)
            found.update(categories)
            if claimed is not None and categories:
                claimed.update(range(start, free))
        return found

    def _silent_positions(self, tokens: List[str], words: Words, signs: int) -> Set[int]:
        """Positions whose words name nothing: denied, asked, awaited or only depicted."""
        silent: Set[int] = set()
        if signs & _TRIGGER:
            silent |= silent_positions(tokens)
        if signs & _DEPICTION and "of" in words:
            silent |= depicted_positions(words, self._context.depictions)
        if signs & _LIKENESS:
            silent |= likeness_positions(tokens)
        return silent

    def _is_imitation(self, phrase: Phrase, words: Words, start: int, end: int) -> bool:
        """Whether a neighbour of `phrase`, words[start:end], takes it over or makes it an imitation."""
        context = self._context
        if end < len(words) and words[end] in context.heads and words[end + 1:end + 2] != ("like",):
            return True  # a dog statue; but "a cake shaped like a dog" is a cake
        if start and phrase.can_be_imitated and words[start - 1] in context.materials:
            return True
        before = start - 1
        while before > 0 and words[before] in COLOURS:
            before -= 1
        return before >= 0 and words[before] in context.imitations

    def _is_home(self, tokens: Sequence[str], words: Sequence[str], end: int) -> bool:
        """Whether the possessive before tokens[end] only says whose home it is: "my mother's house"."""
        return tokens[end - 1].endswith("'s") and not self._context.homes.isdisjoint(words[end:end + 3])

    def _is_seen_from_inside(self, words: Sequence[str], start: int, end: int) -> bool:
        """"The back seat of his car", "people sitting on a city bus"; start and end are those of the vehicle."""
        position = start - 1
        while position > 0 and words[position] not in _INTO and start - position < 4:
            position -= 1
        if position < 1 or words[position] not in _INTO:
            return False
        context = self._context
        if words[position - 1] in context.interior_parts:
            return True
        if words[position] == "of" or words[end - 1] in context.decked:
            return False
        if words[position] == "on" and context.boarded.isdisjoint(words[start:end]):
            return False  # a girl sitting on a car is outside, on a bus she is inside
        return words[position] in ("inside", "aboard") or words[position - 1] in context.occupants


_INTO = frozenset(("of", "in", "on", "inside", "aboard"))


def _meaning(phrase: Phrase, tokens: Sequence[str], words: Sequence[str], start: int, end: int) -> Categories:
    """What an ambiguous phrase, words[start:end], names here."""
    for sense in phrase.senses:
        if _holds(sense, tokens, words, start, end):
            return sense.categories
    return ()


def _holds(sense: Sense, tokens: Sequence[str], words: Sequence[str], start: int, end: int) -> bool:
    if sense.is_default:
        return True
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
