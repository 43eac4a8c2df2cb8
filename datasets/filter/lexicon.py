"""The lexicon: which words name which categories. Its data lie in `caption/`, described in `caption/README.md`."""
from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Container, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from datasets.files import DataError, PathLike, read_json, shorten
from datasets.filter.grammar import Singular, tokenise
from datasets.registry import DatasetSpec

SYNONYM_ROOT = Path(__file__).resolve().parents[2] / "caption"
"""The folder of the synonym files that come with the code."""

_SHARED_PATTERN = "shared_*.json"
_RULES_FILE = "context_rules.json"
_SAME_AS = "same as"
_NOT = "no "
_LIVING = ("person", "animal")
_IMITATED = ("person", "animal", "transport")

Words = Tuple[str, ...]
Categories = Tuple[int, ...]


@dataclass(frozen=True)
class Sense:
    """What an ambiguous word means where all of its conditions hold.

    Attributes:
        categories: the categories that the word then names; none when it means something else.
        plural: the word must be written in the plural (True) or the singular (False).
        verb: it must stand as a verb (True) or not (False).
        modifier: it must stand as an adjective or before another noun (True) or not (False).
        before, after: the word before / after it must be one of these (singular forms).
        near: one of these must be anywhere in the caption (singular forms).
    """

    categories: Categories
    plural: Optional[bool] = None
    verb: Optional[bool] = None
    modifier: Optional[bool] = None
    before: FrozenSet[str] = frozenset()
    after: FrozenSet[str] = frozenset()
    near: FrozenSet[str] = frozenset()

    @functools.cached_property
    def is_default(self) -> bool:
        """Whether it holds anywhere."""
        return self == Sense(self.categories)


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


class ContextWords(NamedTuple):
    """Words that keep a neighbour from naming anything, in the singular. Fields are keys of `context_rules.json`."""

    heads: FrozenSet[str]
    """Nouns that take over a compound: a "dog statue" is no dog."""
    depictions: FrozenSet[str]
    """Nouns that only depict what follows their "of": "a statue of a horse"."""
    imitations: FrozenSet[str]
    """Words that make any noun an imitation: "a toy horse"."""
    materials: FrozenSet[str]
    """Words that make a living thing or a vehicle an imitation: "a chocolate cat"."""
    homes: FrozenSet[str]
    """Places that do not show their owner: "my mother's house"."""
    interior_parts: FrozenSet[str]
    """Parts from which a vehicle is seen from inside: "the back seat of a car", "the deck of a ship"."""
    enclosing: FrozenSet[str]
    """Vehicles that people are in: "a man sitting in a car" does not show the car."""
    boarded: FrozenSet[str]
    """Those of them that people "on" them are in, too: "a man sitting on a bus"."""
    decked: FrozenSet[str]
    """Vehicles that people are on, in full view, unless an interior part is named."""
    occupants: FrozenSet[str]
    """What is in an enclosing vehicle, and how: "people", "sitting"."""


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
    concepts = _read_concepts(root)
    rules = _Rules(root / _RULES_FILE)
    own_words, categories_of = _read_dataset(root, spec, concepts)

    written = {phrase for words in concepts.values() for phrase in words if not phrase.startswith("@")}
    written.update(own_words, rules.senses, spec.categories, *rules.context.values())
    written.update(spec.prompt_names(spec.categories))
    known = frozenset(token for phrase in written for token in _tokens(phrase)) - rules.irregular.keys()
    singular = Singular(known, rules.irregular)

    def words_of(phrase: str) -> Words:
        return tuple(singular[token] for token in _tokens(phrase))

    concepts_of: Dict[Words, Set[str]] = {}
    silenced: Dict[Words, Set[str]] = {}
    for concept, phrases in concepts.items():
        for words in [words_of(phrase) for phrase in phrases if not phrase.startswith("@")]:
            if concept.startswith(_NOT):
                silenced.setdefault(words, set()).update(_closure(concept[len(_NOT):], concepts))
            else:
                concepts_of.setdefault(words, set()).add(concept)
    meant = {**concepts_of, **{words_of(phrase): rules.default_concepts(phrase) for phrase in rules.senses}}
    living = set().union(*(_closure(concept, concepts) for concept in _LIVING if concept in concepts))
    for words in concepts_of.keys() - silenced.keys():
        concepts_of[words] |= meant.get(_subject(words, meant), set()) & living  # "man swimming": a swimmer and a man
    for words, silent in silenced.items():
        concepts_of.setdefault(words, {concept for part in _parts(words, meant) for concept in meant[part] - silent})
    named = {words: {index for concept in found for index in categories_of.get(concept, ())}
             for words, found in concepts_of.items()}
    senses: Dict[Words, Tuple[Sense, ...]] = {}
    for phrase, alternatives in rules.senses.items():
        senses[words_of(phrase)] = tuple(rules.sense(phrase, alternative, concepts, categories_of, singular)
                                         for alternative in alternatives)
    for phrase in rules.also_verbs:
        verb = words_of(phrase)
        if verb in named and verb not in senses:
            senses[verb] = (Sense((), verb=True), Sense(tuple(sorted(named[verb]))))
    for phrase, indices in own_words.items():
        named.setdefault(words_of(phrase), set()).update(indices)
        senses.pop(words_of(phrase), None)

    context = ContextWords(*(frozenset(singular[word] for word in rules.context[field])
                             for field in ContextWords._fields))
    echo_names: Dict[Words, Optional[int]] = {tuple(tokenise(name)): None for name in rules.echo_names}
    for index, (category, spoken) in enumerate(zip(spec.categories, spec.prompt_names(spec.categories))):
        for name in (category, spoken, category.replace(" ", "")):
            echo_names[tuple(tokenise(name))] = index if index >= len(spec.classes) else None
    imitated = set().union(*(_closure(concept, concepts) for concept in _IMITATED if concept in concepts))
    can_be_imitated = {words for words, found in concepts_of.items() if not found.isdisjoint(imitated)}
    can_be_imitated.update(words_of(phrase) for phrase in rules.senses
                           if not rules.meanings(phrase).isdisjoint(imitated))
    animals = _closure("animal", concepts) if "animal" in concepts else set()

    def phrase_of(words: Words) -> Phrase:
        noun = words[:-1] if words in silenced and words[-1].endswith("ing") else ()
        return Phrase(words, tuple(sorted(named.get(words, ()))), senses.get(words, ()),
                      can_be_imitated=words in can_be_imitated, takes_noun=noun in meant,
                      takes_animal=not meant.get(noun, set()).isdisjoint(animals))

    starts = _by_first_word([phrase_of(words) for words in sorted(named.keys() | senses.keys())], silenced)
    return Lexicon(starts=starts, singular=singular, context=context, echo_names=echo_names)


@functools.cache
def _tokens(phrase: str) -> Words:
    return tuple(tokenise(phrase))


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


def _read_concepts(root: Path) -> Dict[str, List[str]]:
    files = {path: _word_lists(path, read_json(path)) for path in sorted(root.glob(_SHARED_PATTERN))}
    if not files:
        raise DataError(f"{root}: holds no {_SHARED_PATTERN}; give the folder of the synonym files")
    concepts: Dict[str, List[str]] = {}
    for path, lists in files.items():
        for concept, words in lists.items():
            if concept in concepts:
                raise DataError(f"{path}: concept {concept!r} is already written in another shared file; keep one")
            concepts[concept] = words
    for path, lists in files.items():
        for concept, words in lists.items():
            if concept.startswith(_NOT) and concept[len(_NOT):] not in concepts:
                raise DataError(f"{path}: {concept!r} is about {concept[len(_NOT):]!r}, and there is no such concept")
            for word in words:
                if word.startswith("@") and word[1:] not in concepts:
                    raise DataError(f"{path}: {concept!r} refers to {word!r}, and there is no such concept")
    return concepts


def _read_dataset(root: Path, spec: DatasetSpec, concepts: Mapping[str, Sequence[str]]
                  ) -> Tuple[Dict[str, Set[int]], Dict[str, Set[int]]]:
    """A dataset's own words, and the concepts that name its categories: phrase / concept to category indices."""
    path, lists = _own_lists(spec, concepts) if spec.synonyms is not None else _read_lists(root, spec)
    for category in lists:
        if category not in spec.categories:
            raise DataError(f"{path}: {category!r} is no category of {spec.name}; "
                            f"its categories are {', '.join(spec.categories)}")
    own_words: Dict[str, Set[int]] = {}
    categories_of: Dict[str, Set[int]] = {}
    for index, category in enumerate(spec.categories):
        if category not in lists and category not in concepts:
            raise DataError(f"{path}: category {category!r} has no words; list some, or refer to a shared concept")
        for word in lists.get(category, [f"@{category}"]):
            if not word.startswith("@"):
                own_words.setdefault(word, set()).add(index)
                continue
            if word[1:] not in concepts:
                raise DataError(f"{path}: {category!r} refers to {word!r}, and there is no such shared concept")
            for concept in _closure(word[1:], concepts):
                categories_of.setdefault(concept, set()).add(index)
    return own_words, categories_of


def _read_lists(root: Path, spec: DatasetSpec) -> Tuple[Path, Dict[str, List[str]]]:
    """A dataset's synonym file and its lists."""
    path = root / f"{spec.name}_synonyms.json"
    hint = "Write one as caption/README.md describes"
    content = read_json(path, hint)
    if isinstance(content, dict) and isinstance(content.get(_SAME_AS), str):
        path = root / f"{content[_SAME_AS]}_synonyms.json"
        content = read_json(path, hint)
    return path, _word_lists(path, content)


def _own_lists(spec: DatasetSpec, concepts: Mapping[str, Sequence[str]]) -> Tuple[Path, Dict[str, List[str]]]:
    """The lists of a dataset that its user described: a category's name, or the concept of that name, and synonyms."""
    synonyms = spec.synonyms or {}
    return Path(spec.name), {
        category: [f"@{category.lower()}" if category.lower() in concepts else category, *synonyms.get(category, ())]
        for category in spec.categories}


def _closure(concept: str, concepts: Mapping[str, Sequence[str]]) -> Set[str]:
    """A concept and all the concepts that it includes."""
    found = {concept}
    pending = [concept]
    while pending:
        included = {word[1:] for word in concepts[pending.pop()] if word.startswith("@")} - found
        found |= included
        pending.extend(included)
    return found


def _word_lists(path: Path, content: Any) -> Dict[str, List[str]]:
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object that maps names to lists of words")
    for name, words in content.items():
        if not isinstance(words, list) or not all(map(_is_word, words)):
            raise DataError(f"{path}: {shorten(name)} must map to a list of words")
    return content


def _is_word(word: Any) -> bool:
    """A word, a compound of words, or a reference to a concept."""
    return isinstance(word, str) and (word.startswith("@") or bool(_tokens(word)))


_CONDITIONS: Dict[str, Any] = {"plural": bool, "verb": bool, "modifier": bool,
                               "before": list, "after": list, "near": list}
"""What a sense can depend on, and the JSON type."""


def _as_list(value: Any) -> List[str]:
    return [value] if isinstance(value, str) else value


class _Rules:
    """The content of `context_rules.json`, checked."""

    def __init__(self, path: Path) -> None:
        content = read_json(path, "It comes with the code; restore it")
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected an object")
        lists = _word_lists(path, {name: content.get(name, []) for name in (
            "also verbs", "echo names", *(field.replace("_", " ") for field in ContextWords._fields))})
        self._path = path
        self.also_verbs = lists["also verbs"]
        self.echo_names = lists["echo names"]
        self.context = {field: lists[field.replace("_", " ")] for field in ContextWords._fields}
        self.irregular: Dict[str, str] = content.get("irregular plurals", {})
        self.senses: Dict[str, List[Dict[str, Any]]] = content.get("senses", {})
        if not isinstance(self.irregular, dict) or not all(map(_is_word, self.irregular.values())):
            raise DataError(f"{path}: \"irregular plurals\" must map plurals to singulars")
        if not isinstance(self.senses, dict):
            raise DataError(f"{path}: \"senses\" must map words to lists of senses")
        for phrase, senses in self.senses.items():
            if not _is_word(phrase) or not isinstance(senses, list) or not all(map(self._is_sense, senses)):
                raise DataError(f"{path}: the senses of {shorten(phrase)} are not as caption/README.md describes them")

    @staticmethod
    def _is_sense(written: Any) -> bool:
        if not isinstance(written, dict):
            return False
        meanings = written.get("means") or []
        if not isinstance(meanings, (str, list)) or not all(isinstance(meaning, str) for meaning in meanings):
            return False
        values = {key: value for key, value in written.items() if key in _CONDITIONS and value is not None}
        return all(type(value) is _CONDITIONS[key] and (isinstance(value, bool) or all(map(_is_word, value)))
                   for key, value in values.items())

    def default_concepts(self, phrase: str) -> Set[str]:
        """What an ambiguous word means where no condition holds."""
        last = self.senses[phrase][-1] if self.senses[phrase] else {}
        return set(_as_list(last["means"])) if last.keys() == {"means"} else set()

    def meanings(self, phrase: str) -> Set[str]:
        """All that an ambiguous word can mean."""
        return {meaning for sense in self.senses[phrase] for meaning in _as_list(sense.get("means", []))}

    def sense(self, phrase: str, written: Mapping[str, Any], concepts: Mapping[str, Sequence[str]],
              categories_of: Mapping[str, Set[int]], singular: Mapping[str, str]) -> Sense:
        known = {"means", *_CONDITIONS}
        unknown = written.keys() - known
        if unknown:
            raise DataError(f"{self._path}: {phrase!r} has an unknown condition {min(unknown)!r}; "
                            f"known are {', '.join(sorted(known))}")
        meanings = _as_list(written.get("means", []))
        for meaning in meanings:
            if meaning not in concepts:
                raise DataError(f"{self._path}: {phrase!r} means {meaning!r}, and there is no such concept")
        categories = {index for meaning in meanings for index in categories_of.get(meaning, ())}
        words = {key: frozenset(singular[word] for word in written.get(key) or ())
                 for key in ("before", "after", "near")}
        return Sense(categories=tuple(sorted(categories)), plural=written.get("plural"),
                     verb=written.get("verb"), modifier=written.get("modifier"), **words)
