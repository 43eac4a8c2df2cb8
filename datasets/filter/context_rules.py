"""The context rules of `caption/context_rules.json`: ambiguous words, and words that decide about their neighbours."""
from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from datasets.files import DataError, read_json, shorten
from datasets.filter.synonyms import check_word_lists, is_word

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


_CONDITIONS: Dict[str, Any] = {"plural": bool, "verb": bool, "modifier": bool,
                               "before": list, "after": list, "near": list}
"""What a sense can depend on, and the JSON type."""


def _as_list(value: Any) -> List[str]:
    return [value] if isinstance(value, str) else value


class ContextRules:
    """The content of `context_rules.json`, checked."""

    def __init__(self, path: Path) -> None:
        content = read_json(path, "It comes with the code; restore it")
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected an object")
        lists = check_word_lists(path, {name: content.get(name, []) for name in (
            "also verbs", "echo names", *(field.replace("_", " ") for field in ContextWords._fields))})
        self._path = path
        self.also_verbs = lists["also verbs"]
        self.echo_names = lists["echo names"]
        self.context = {field: lists[field.replace("_", " ")] for field in ContextWords._fields}
        self.irregular: Dict[str, str] = content.get("irregular plurals", {})
        self.senses: Dict[str, List[Dict[str, Any]]] = content.get("senses", {})
        if not isinstance(self.irregular, dict) or not all(map(is_word, self.irregular.values())):
            raise DataError(f"{path}: \"irregular plurals\" must map plurals to singulars")
        if not isinstance(self.senses, dict):
            raise DataError(f"{path}: \"senses\" must map words to lists of senses")
        for phrase, senses in self.senses.items():
            if not is_word(phrase) or not isinstance(senses, list) or not all(map(self._is_sense, senses)):
                raise DataError(f"{path}: the senses of {shorten(phrase)} are not as caption/README.md describes them")

    @staticmethod
    def _is_sense(written: Any) -> bool:
        if not isinstance(written, dict):
            return False
        meanings = written.get("means") or []
        if not isinstance(meanings, (str, list)) or not all(isinstance(meaning, str) for meaning in meanings):
            return False
        values = {key: value for key, value in written.items() if key in _CONDITIONS and value is not None}
        return all(type(value) is _CONDITIONS[key] and (isinstance(value, bool) or all(map(is_word, value)))
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
        """A sense of an ambiguous phrase, for one dataset.

        Args:
            phrase: the word, for messages.
            written: the sense as the file has it.
            concepts: all that there are.
            categories_of: concept to category indices.
            singular: token to singular form.

        Raises:
            DataError: a condition or a concept is unknown.
        """
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
