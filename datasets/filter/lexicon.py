"""The lexicon: which words name which categories. Its data lie in `caption/`, described in `caption/README.md`."""
from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Container, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from datasets.files import PathLike
from datasets.filter.context_rules import Categories, ContextRules, ContextWords, Sense
from datasets.filter.grammar import FUNCTION_WORDS, Singular, tokenise
from datasets.filter.synonyms import NOT, OwnWords, Words, concept_closure, phrase_tokens, read_concepts, read_own_words
from datasets.registry import DatasetSpec

SYNONYM_ROOT = Path(__file__).resolve().parents[2] / "caption"
"""The folder of the synonym files that come with the code."""

_RULES_FILE = "context_rules.json"
_LIVING = ("person", "animal")
_IMITATED = ("person", "animal", "transport")


@dataclass(frozen=True)
class Phrase:
    """A word or compound noun of the lexicon, for one dataset: the categories it names, or senses to choose from.

    Attributes:
        can_be_imitated: it means a living thing or a vehicle, so that a material makes it an imitation: a "chocolate
            cat" is none, a "chocolate donut" is one.
        takes_noun: a noun and a gerund that mean something else than the noun: "train crossing".
        takes_animal: one whose noun is an animal: "zebra crossing".
    """

    words: Words
    categories: Categories
    senses: Tuple[Sense, ...] = ()
    can_be_imitated: bool = False
    takes_noun: bool = False
    takes_animal: bool = False

    @functools.cached_property
    def as_noun(self) -> Optional[Categories]:
        """What it names where it is no verb, if nothing else matters."""
        verb, *rest = self.senses or (Sense(()),)
        if len(rest) == 1 and verb == Sense(verb.categories, verb=True) and rest[0].is_default:
            return rest[0].categories
        return None


class Start(NamedTuple):
    """The phrases that start with the same word."""

    alone: Optional[Phrase]
    """The word by itself, if it is a phrase."""
    compounds: Dict[str, List[Phrase]]
    """Second word to the longer phrases, the longest first."""


@dataclass(frozen=True)
class Lexicon:
    """Everything that the matcher knows about words, for one dataset.

    Attributes:
        starts: first word to the phrases that start with it.
        singular: token to singular form.
        context: words that keep a neighbour from naming anything.
        echo_names: the names that a question can exclude, as tuples of words; backgrounds with their index.
    """

    starts: Mapping[str, Start]
    singular: Mapping[str, str]
    context: ContextWords
    echo_names: Mapping[Words, Optional[int]]


def load_lexicon(spec: DatasetSpec, synonym_root: PathLike = SYNONYM_ROOT) -> Lexicon:
    """Read the shared concepts, the context rules and a dataset's own synonyms, and put them together.

    Args:
        spec: the dataset; its categories get the indices.
        synonym_root: the folder of the synonym files.

    Raises:
        DataError: a file is missing or malformed, refers to an unknown concept, or leaves a category without words.
    """
    root = Path(synonym_root)
    concepts = read_concepts(root)
    rules = ContextRules(root / _RULES_FILE)
    own = read_own_words(root, spec, concepts)
    singular = _singular_forms(spec, concepts, rules, own)

    def words_of(phrase: str) -> Words:
        return tuple(singular[token] for token in phrase_tokens(phrase))

    meanings = _meanings(concepts, rules, words_of)
    named = {words: {index for concept in found for index in own.concepts.get(concept, ())}
             for words, found in meanings.concepts_of.items()}
    senses = {words_of(phrase): tuple(rules.sense(phrase, alternative, concepts, own.concepts, singular)
                                      for alternative in alternatives)
              for phrase, alternatives in rules.senses.items()}
    for phrase in rules.also_verbs:
        verb = words_of(phrase)
        if verb in named and verb not in senses:
            senses[verb] = (Sense((), verb=True), Sense(tuple(sorted(named[verb]))))
    _add_own_words(named, senses, own, rules, words_of)

    imitated = _closure(_IMITATED, concepts)
    can_be_imitated = {words for words, found in meanings.concepts_of.items() if not found.isdisjoint(imitated)}
    can_be_imitated.update(words_of(phrase) for phrase in rules.senses
                           if not rules.meanings(phrase).isdisjoint(imitated))
    animals = _closure(("animal",), concepts)

    def phrase_of(words: Words) -> Phrase:
        noun = words[:-1] if words in meanings.silenced and words[-1].endswith("ing") else ()
        return Phrase(words, tuple(sorted(named.get(words, ()))), senses.get(words, ()),
                      can_be_imitated=words in can_be_imitated, takes_noun=noun in meanings.meant,
                      takes_animal=not meanings.meant.get(noun, set()).isdisjoint(animals))

    starts = _by_first_word([phrase_of(words) for words in sorted(named.keys() | senses.keys())], meanings.silenced)
    context = ContextWords(*(frozenset(singular[word] for word in rules.context[field])
                             for field in ContextWords._fields))
    return Lexicon(starts=starts, singular=singular, context=context, echo_names=_echo_names(spec, rules))


def _singular_forms(spec: DatasetSpec, concepts: Mapping[str, Sequence[str]], rules: ContextRules,
                    own: OwnWords) -> Singular:
    """Token to singular form; what the files have written is singular already."""
    written = {phrase for words in concepts.values() for phrase in words if not phrase.startswith("@")}
    written.update(own.words, own.names, rules.senses, spec.categories, *rules.context.values())
    written.update(spec.prompt_names(spec.categories))
    known = frozenset(token for phrase in written for token in phrase_tokens(phrase)) - rules.irregular.keys()
    return Singular(known, rules.irregular)


def _closure(names: Sequence[str], concepts: Mapping[str, Sequence[str]]) -> Set[str]:
    """Those of the concepts that there are, and all that they include."""
    return set().union(*(concept_closure(name, concepts) for name in names if name in concepts))


class _Meanings(NamedTuple):
    """Phrases and the concepts behind them."""

    concepts_of: Dict[Words, Set[str]]
    """What a phrase means."""
    meant: Dict[Words, Set[str]]
    """The same, and of an ambiguous phrase what it means where no condition holds."""
    silenced: Dict[Words, Set[str]]
    """Compounds, and the concepts that a part of theirs means and they do not."""


def _meanings(concepts: Mapping[str, Sequence[str]], rules: ContextRules,
              words_of: Callable[[str], Words]) -> _Meanings:
    concepts_of: Dict[Words, Set[str]] = {}
    silenced: Dict[Words, Set[str]] = {}
    for concept, phrases in concepts.items():
        for words in [words_of(phrase) for phrase in phrases if not phrase.startswith("@")]:
            if concept.startswith(NOT):
                silenced.setdefault(words, set()).update(concept_closure(concept[len(NOT):], concepts))
            else:
                concepts_of.setdefault(words, set()).add(concept)
    meant = {**concepts_of, **{words_of(phrase): rules.default_concepts(phrase) for phrase in rules.senses}}
    living = _closure(_LIVING, concepts)
    for words in concepts_of.keys() - silenced.keys():
        concepts_of[words] |= meant.get(_subject(words, meant), set()) & living  # "man swimming": a swimmer and a man
    for words, silent in silenced.items():
        concepts_of.setdefault(words, {concept for part in _parts(words, meant) for concept in meant[part] - silent})
    return _Meanings(concepts_of, meant, silenced)


def _add_own_words(named: Dict[Words, Set[int]], senses: Dict[Words, Tuple[Sense, ...]], own: OwnWords,
                   rules: ContextRules, words_of: Callable[[str], Words]) -> None:
    """Put a dataset's own words over what the shared files say: they name their category in any sense but a verb's."""
    for phrase, indices in own.words.items():
        named.setdefault(words_of(phrase), set()).update(indices)
        senses.pop(words_of(phrase), None)
    for phrase, indices in own.names.items():
        words = words_of(phrase)
        meaning = tuple(sorted(named.setdefault(words, set()) | indices))
        named[words].update(indices)
        grammatical = [Sense((), verb=True)] if phrase in rules.also_verbs else [
            sense for sense in senses.get(words, ()) if sense in (Sense((), verb=True), Sense((), modifier=True))]
        senses[words] = (*grammatical, Sense(meaning))
    by_words = {words_of(phrase): indices for phrase, indices in (*own.words.items(), *own.names.items())}
    for words in [words for words in named if len(words) > 1 and words not in by_words]:
        for tail in (words[start:] for start in range(1, len(words))):
            if tail in by_words and FUNCTION_WORDS.isdisjoint(words):
                named[words].update(by_words[tail])  # a table lamp is a lamp


def _echo_names(spec: DatasetSpec, rules: ContextRules) -> Dict[Words, Optional[int]]:
    """The names that a question can exclude; backgrounds with their index."""
    echo_names: Dict[Words, Optional[int]] = {tuple(tokenise(name)): None for name in rules.echo_names}
    for index, (category, spoken) in enumerate(zip(spec.categories, spec.prompt_names(spec.categories))):
        for name in (category, spoken, category.replace(" ", "")):
            echo_names[tuple(tokenise(name))] = index if index >= len(spec.classes) else None
    return echo_names


def _parts(words: Words, phrases: Container[Words]) -> List[Words]:
    """The shorter phrases that a compound is made of, the longest first at each word."""
    parts = []
    start = 0
    while start < len(words):
        for end in range(min(len(words), start + len(words) - 1), start, -1):
            if words[start:end] in phrases:
                parts.append(words[start:end])
                start = end
                break
        else:
            start += 1
    return parts


def _subject(words: Words, phrases: Container[Words]) -> Words:
    """The phrase before the gerund of a compound: that for "man" in "man swimming"; empty where there is none."""
    for end in range(1, len(words)):
        if words[end].endswith("ing"):
            return words[:end] if words[:end] in phrases else ()
    return ()


def _by_first_word(phrases: Sequence[Phrase], misleading: Container[Words]) -> Dict[str, Start]:
    """Index the phrases that name a category, are ambiguous, or keep a part of theirs from naming a category."""
    naming = {phrase.words[0] for phrase in phrases
              if phrase.categories or any(sense.categories for sense in phrase.senses)}
    starts: Dict[str, Start] = {}
    for phrase in phrases:
        if not phrase.categories and (phrase.words not in misleading and not phrase.senses
                                      or naming.isdisjoint(phrase.words)):
            continue
        first = phrase.words[0]
        start = starts.setdefault(first, Start(None, {}))
        if len(phrase.words) == 1:
            starts[first] = start._replace(alone=phrase)
        else:
            start.compounds.setdefault(phrase.words[1], []).append(phrase)
    for start in starts.values():
        for group in start.compounds.values():
            group.sort(key=lambda phrase: -len(phrase.words))
    return starts


