"""Step 2 and 4 of the filter: compound nouns, and from them to categories."""
from __future__ import annotations

from typing import Dict, List, Sequence, Set, Tuple

from datasets.filter.depiction import LIKENESS_TRIGGERS, PICTURES, depicted_positions, likeness_positions
from datasets.filter.grammar import COLOURS, is_modifier, is_participle, is_verb, tokenise
from datasets.filter.lexicon import Categories, Lexicon, Phrase, Sense, Words
from datasets.filter.negation import TRIGGERS, echo_positions, excluded_positions, name_at, silent_positions


class CategoryMatcher:
    """Names the categories that a caption speaks of. The same caption is worked out once."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._singular = lexicon.singular
        self._starts = lexicon.starts
        self._context = lexicon.context
        self._vehicles = lexicon.context.enclosing | lexicon.context.decked
        self._backgrounds = {name: index for name, index in lexicon.echo_names.items() if index is not None}
        self._echo_names: Dict[str, List[Words]] = {}
        for name in sorted(lexicon.echo_names, key=len, reverse=True):
            self._echo_names.setdefault(name[0], []).append(name)
        self._echo_words = frozenset(word for name in lexicon.echo_names for word in name)
        self._compounds = frozenset(phrase.words for start in lexicon.starts.values()
                                    for group in start.compounds.values() for phrase in group)
        self._picturing = lexicon.context.depictions | PICTURES
        self._first: Dict[str, Categories] = {}
        self._re: Dict[str, Categories] = {}
        self._excluded: Dict[str, Categories] = {}

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

    def excluded_backgrounds(self, recaption: str) -> Categories:
        """The backgrounds that the question of a re-caption excluded, as far as the answer repeats them, sorted."""
        self.name_categories(recaption, is_recaption=True)
        return self._excluded.get(recaption, ())

    def singular_words(self, caption: str) -> List[str]:
        """The words of a caption in the singular, with its punctuation."""
        singular = self._singular
        return [singular[token] for token in tokenise(caption)]

    def unclaimed_words(self, caption: str, is_recaption: bool = False) -> Set[str]:
        """The words of a caption, in the singular, that are no part of what names a category."""
        tokens = tokenise(caption)
        words = [self._singular[token] for token in tokens]
        echo = self._echo_positions(tokens) if is_recaption else set()
        claimed = {position for start, end, categories in self._spans(tokens, words, echo) if categories
                   for position in range(start, end)}
        return {word for position, word in enumerate(words) if position not in claimed}

    def _name(self, caption: str, is_recaption: bool) -> Categories:
        tokens = tokenise(caption)
        singular = self._singular
        words = [singular[token] for token in tokens]
        echo: Set[int] = set()
        if is_recaption:
            echo = self._echo_positions(tokens)
            names = {name_at(tokens, position, self._echo_names) for position in echo | excluded_positions(tokens)}
            excluded = {self._backgrounds[name] for name in names if name in self._backgrounds}
            if excluded:
                self._excluded[caption] = tuple(sorted(excluded))
        found: Set[int] = set()
        for _, _, categories in self._spans(tokens, words, echo):
            found.update(categories)
        return tuple(sorted(found))

    def _spans(self, tokens: List[str], words: List[str], echo: Set[int]) -> List[Tuple[int, int, Categories]]:
        """The phrases of a caption that are to be seen: from, to, and what they name here."""
        known = self._starts
        starts = [position for position, word in enumerate(words) if word in known]
        if not starts:
            return []
        silent = self._silent_positions(tokens, words) | echo
        following = [*words[1:], ""]
        spans = []
        free = 0
        for start in starts:
            if start < free:
                continue
            word = known[words[start]]
            phrase = word.alone
            for compound in word.compounds.get(following[start], ()):
                end = start + len(compound.words)
                if tuple(words[start:end]) == compound.words and not (
                        compound.takes_noun and is_participle(tokens, start, end, compound.takes_animal)):
                    phrase = compound
                    break
            if phrase is None:
                continue
            free = start + len(phrase.words)
            if start not in silent and not self._is_out_of_sight(phrase, tokens, words, start, free):
                spans.append((start, free, self._meaning(phrase, tokens, words, start, free)))
        return spans

    def _silent_positions(self, tokens: List[str], words: List[str]) -> Set[int]:
        """Positions whose words name nothing: denied, asked, awaited or only depicted."""
        silent: Set[int] = set()
        if not TRIGGERS.isdisjoint(tokens):
            silent |= silent_positions(tokens)
        if "of" in words and not self._picturing.isdisjoint(words):
            silent |= depicted_positions(words, self._context.depictions)
        if not LIKENESS_TRIGGERS.isdisjoint(tokens):
            silent |= likeness_positions(tokens)
        return silent

    def _echo_positions(self, tokens: Sequence[str]) -> Set[int]:
        """Positions of the names that only repeat the question."""
        names = self._echo_words
        previous = -2
        for position in [position for position, token in enumerate(tokens) if token in names]:
            if position - previous == 1:
                return echo_positions(tokens, self._echo_names, self._compounds)
            previous = position
        return set()

    def _is_out_of_sight(self, phrase: Phrase, tokens: Sequence[str], words: Sequence[str], start: int,
                         end: int) -> bool:
        """Whether the words around `phrase`, words[start:end], say that the thing itself is not to be seen."""
        context = self._context
        if end < len(words) and words[end] in context.heads and words[end + 1:end + 2] != ["like"]:
            return True  # a dog statue; but "a cake shaped like a dog" is a cake
        if start and phrase.can_be_imitated and words[start - 1] in context.materials:
            return True
        before = start - 1
        while before > 0 and words[before] in COLOURS:
            before -= 1
        if before >= 0 and words[before] in context.imitations:
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
        context = self._context
        if words[position - 1] in context.interior_parts:
            return True
        if words[position] == "of" or words[end - 1] in context.decked:
            return False
        if words[position] == "on" and context.boarded.isdisjoint(words[start:end]):
            return False  # a girl sitting on a car is outside, on a bus she is inside
        return words[position] in ("inside", "aboard") or words[position - 1] in context.occupants

    def _meaning(self, phrase: Phrase, tokens: Sequence[str], words: Sequence[str], start: int, end: int) -> Categories:
        for sense in phrase.senses:
            if _holds(sense, tokens, words, start, end):
                return sense.categories
        return () if phrase.senses else phrase.categories


_INTO = frozenset(("of", "in", "on", "inside", "aboard"))

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
