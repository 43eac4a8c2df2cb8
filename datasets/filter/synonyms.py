"""The synonym files: which words and concepts name which category. `caption/README.md` describes them."""
from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from datasets.description import DatasetSpec
from datasets.files import DataError, read_json, shorten
from datasets.filter.grammar import singular_candidates, tokenise

NOT = "no "
"""Concepts with this before their name list what does not mean the concept."""

_SHARED_PATTERN = "shared_*.json"
_NAMES_FILE = "concept_names.json"
_SAME_AS = "same as"

Words = Tuple[str, ...]


class OwnWords(NamedTuple):
    """What names the categories of a dataset: each maps to the category indices."""

    words: Dict[str, Set[int]]
    """Words of the dataset's own, which override the context rules."""
    names: Dict[str, Set[int]]
    """Names of categories that no concept knows, which stand for themselves."""
    concepts: Dict[str, Set[int]]


@functools.cache
def phrase_tokens(phrase: str) -> Words:
    """The tokens of a phrase; remembered, as the lexicon asks for the same ones again and again."""
    return tuple(tokenise(phrase))


def read_concepts(root: Path) -> Dict[str, List[str]]:
    """All shared concepts and their words, `"@concept"` for those of another.

    Raises:
        DataError: a file is missing or malformed, a concept is written twice, or refers to one that is not there.
    """
    files = {path: check_word_lists(path, read_json(path)) for path in sorted(root.glob(_SHARED_PATTERN))}
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
            if concept.startswith(NOT) and concept[len(NOT):] not in concepts:
                raise DataError(f"{path}: {concept!r} is about {concept[len(NOT):]!r}, and there is no such concept")
            for word in words:
                if word.startswith("@") and word[1:] not in concepts:
                    raise DataError(f"{path}: {concept!r} refers to {word!r}, and there is no such concept")
    return concepts


def read_own_words(root: Path, spec: DatasetSpec, concepts: Mapping[str, Sequence[str]]) -> OwnWords:
    """What names the categories of a dataset, of its synonym file or its description, or else of their names."""
    path, lists = _dataset_lists(root, spec)
    for category in lists:
        if category not in spec.categories:
            raise DataError(f"{path}: {category!r} is no category of {spec.name}; "
                            f"its categories are {', '.join(spec.categories)}")
    names = _concept_names(root, concepts)
    own_words: Dict[str, Set[int]] = {}
    own_names: Dict[str, Set[int]] = {}
    categories_of: Dict[str, Set[int]] = {}
    for index, category in enumerate(spec.categories):
        words = lists.get(category)
        if words is None:
            concept = category if category in concepts else None
            if concept is None and spec.synonyms is None:
                raise DataError(f"{path}: category {category!r} has no words; list some, or refer to a shared concept")
            concept = concept or _concept_called(category, names)
            words = [f"@{concept}"] if concept else []
            for name in () if concept else {category.lower(), _joined(category)}:
                own_names.setdefault(name, set()).add(index)
        for word in [*words, *(spec.synonyms or {}).get(category, ())]:
            if not word.startswith("@"):
                own_words.setdefault(word, set()).add(index)
                continue
            if word[1:] not in concepts:
                raise DataError(f"{path}: {category!r} refers to {word!r}, and there is no such shared concept")
            for concept in concept_closure(word[1:], concepts):
                categories_of.setdefault(concept, set()).add(index)
    return OwnWords(own_words, own_names, categories_of)


def _dataset_lists(root: Path, spec: DatasetSpec) -> Tuple[Path, Dict[str, List[str]]]:
    """The dataset's synonym file; a described dataset has its synonyms in the description."""
    path = root / f"{spec.name}_synonyms.json"
    if spec.synonyms is not None:
        return path, {}
    hint = "Write one as caption/README.md describes"
    content = read_json(path, hint)
    if isinstance(content, dict) and isinstance(content.get(_SAME_AS), str):
        path = root / f"{content[_SAME_AS]}_synonyms.json"
        content = read_json(path, hint)
    return path, check_word_lists(path, content)


def _concept_names(root: Path, concepts: Mapping[str, Sequence[str]]) -> Dict[str, str]:
    """Other names of concepts, and their own, to the concepts: "motorbike" is called "motorcycle" here."""
    path = root / _NAMES_FILE
    names = {concept: concept for concept in concepts if not concept.startswith(NOT)}
    for concept, others in (check_word_lists(path, read_json(path)) if path.exists() else {}).items():
        if concept not in concepts:
            raise DataError(f"{path}: {concept!r} has other names, and there is no such concept")
        names.update((other, concept) for other in others)
    return names


def _joined(category: str) -> str:
    """A name of two words also as one: "firepit"."""
    return "".join(phrase_tokens(category)) if len(phrase_tokens(category)) == 2 else category.lower()


def _concept_called(category: str, names: Mapping[str, str]) -> Optional[str]:
    """The concept that a category's name, in the singular or the plural, stands for."""
    *first, last = phrase_tokens(category)
    return next((names[name] for name in (" ".join((*first, word)) for word in (last, *singular_candidates(last)))
                 if name in names), None)


def concept_closure(concept: str, concepts: Mapping[str, Sequence[str]]) -> Set[str]:
    """A concept and all the concepts that it includes."""
    found = {concept}
    pending = [concept]
    while pending:
        included = {word[1:] for word in concepts[pending.pop()] if word.startswith("@")} - found
        found |= included
        pending.extend(included)
    return found


def check_word_lists(path: Path, content: Any) -> Dict[str, List[str]]:
    """The content of a synonym file; raises DataError where it is no object of names and lists of words."""
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object that maps names to lists of words")
    for name, words in content.items():
        if not isinstance(words, list) or not all(map(is_word, words)):
            raise DataError(f"{path}: {shorten(name)} must map to a list of words")
    return content


def is_word(word: Any) -> bool:
    """A word, a compound of words, or a reference to a concept."""
    return isinstance(word, str) and (word.startswith("@") or bool(phrase_tokens(word)))
