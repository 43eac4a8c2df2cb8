"""Words that name nothing in the picture: what a caption denies, excludes, asks or waits for, who is behind the picture
or a thing in it, and where a question is only repeated."""
from __future__ import annotations

from typing import Container, FrozenSet, List, Mapping, Sequence, Set, Tuple

from datasets.filter.grammar import (
    AUXILIARIES,
    BE_VERBS,
    DETERMINERS,
    PREPOSITIONS,
    PUNCTUATION,
    SENTENCE_ENDS,
    WH_WORDS,
)

Words = Tuple[str, ...]

_EXCLUDING = frozenset("excluding exclude excluded except excepting exception barring".split())
_DENYING = frozenset("no without neither nor lacking lack lacks absence devoid never sans".split())
_NOT = frozenset(("not isn't aren't wasn't weren't don't doesn't didn't can't cannot couldn't won't hasn't "
                  "haven't").split())
_DIALOGUE = frozenset(("question", "answer", "?"))

_NONE = _DENYING | _NOT | frozenset("nothing nobody none nowhere".split())
"""What turns the exception after it into the one thing that is there: "no one except for a dog"."""

_EXCEPT = frozenset("except excepting barring".split())

_AGENT = "by"

_WANTING = frozenset("wait waits waited waiting awaiting awaits looking searching".split())
"""With "for": what is not there yet. "Waiting for a train", "looking for a dog"."""

TRIGGERS: FrozenSet[str] = _EXCLUDING | _DENYING | _NOT | _DIALOGUE | _WANTING | {_AGENT}
"""In captions without any of these tokens every word speaks of what is to be seen."""

_DONE_BY = frozenset(
    "taken photographed shot made built designed owned painted created produced written donated sold bought named "
    "drawn photo photograph picture image video artwork painting mural sculpture decorated customized".split())
"""What comes before "by" where somebody behind the scene follows: "taken by a friend", "owned by a man"."""

_ABSENT = frozenset("visible shown seen present pictured included depicted in part".split())
"""What follows "not" where it denies the subject: "the car is not shown in the photo"."""

_HARMLESS = frozenset("only just merely sure".split())
"""What follows "not" where it denies nothing that could be seen."""

_STOPS = PREPOSITIONS.difference(("of", "for")) | WH_WORDS | BE_VERBS | AUXILIARIES | frozenset(("but", "only", "than"))


def silent_positions(tokens: Sequence[str]) -> Set[int]:
    """Positions of the tokens that are denied, excluded, awaited, part of a question, or behind the camera."""
    denied = _question_positions(tokens)
    for position, token in enumerate(tokens):
        if token in _EXCLUDING:
            if not (token in _EXCEPT and _is_denied_before(tokens, position)):
                denied.update(_excluded_after(tokens, position))
        elif token in _DENYING:
            denied.update(_denied_after(tokens, position))
        elif token in _NOT:
            following = tokens[position + 1] if position + 1 < len(tokens) else ""
            if following in _HARMLESS:
                continue
            if following in _ABSENT:
                denied.update(_subject_before(tokens, position))
            else:
                denied.update(_denied_after(tokens, position))
        elif token == _AGENT and tokens[position - 1:position] and tokens[position - 1] in _DONE_BY:
            denied.update(phrase_after(tokens, position))
        elif token in _WANTING and (token.startswith("await") or tokens[position + 1:position + 2] == ["for"]):
            denied.update(phrase_after(tokens, position + (tokens[position + 1:position + 2] == ["for"])))
    return denied


def _is_denied_before(tokens: Sequence[str], position: int) -> bool:
    """Whether the sentence denies something before `position`."""
    start = position
    while start > 0 and tokens[start - 1] not in SENTENCE_ENDS:
        start -= 1
    return not _NONE.isdisjoint(tokens[start:position])


def phrase_after(tokens: Sequence[str], position: int) -> range:
    """The noun phrase after a preposition, with what "of" adds: "a friend of the family"."""
    end = position + 1
    while end < len(tokens) and tokens[end] not in PUNCTUATION and tokens[end] not in _STOPS and tokens[end] != "and":
        end += 1
    return range(position + 1, end)


def _question_positions(tokens: Sequence[str]) -> Set[int]:
    """Everything from the start of a sentence to its question mark, and from "Question:" to "Answer:" or the end."""
    asked: Set[int] = set()
    start = 0
    in_question = False
    for position, token in enumerate(tokens):
        if token == "question" and tokens[position + 1:position + 2] == [":"]:
            in_question, start = True, position
        elif token == "answer" and tokens[position + 1:position + 2] == [":"]:
            if in_question:
                asked.update(range(start, position))
            in_question, start = False, position + 1
        elif token == "?":
            asked.update(range(start, position))
            in_question, start = False, position + 1
        elif token in SENTENCE_ENDS and not in_question:
            start = position + 1
    if in_question:
        asked.update(range(start, len(tokens)))
    return asked


def _excluded_after(tokens: Sequence[str], position: int) -> range:
    """"excluding the dog, the cat and a chair is ...": a list that may have determiners."""
    end = position + 1
    while end < len(tokens) and tokens[end] not in SENTENCE_ENDS:
        token = tokens[end]
        if token in _STOPS and not (end == position + 1 and token in ("that", "of", "for")):
            break
        if token == "," and not _list_goes_on(tokens, end + 1):
            break
        end += 1
    return range(position + 1, end)


def _list_goes_on(tokens: Sequence[str], start: int) -> bool:
    """Whether a short noun phrase, closed by a comma or "and" or the end, follows: another item of a list."""
    length = 0
    for token in tokens[start:]:
        if token in PUNCTUATION or token in ("and", "or"):
            return 0 < length <= 3
        if token in _STOPS:
            return False
        length += 1
    return 0 < length <= 3


def _denied_after(tokens: Sequence[str], position: int) -> range:
    """"no people, cars or dogs", "not wearing a helmet": the noun phrase, and a list that "or" holds together."""
    end = position + 1
    while end < len(tokens) and tokens[end] not in SENTENCE_ENDS:
        token = tokens[end]
        if token in _STOPS or token in _EXCEPT:
            break
        if token == "and" and (end + 1 == len(tokens) or tokens[end + 1] in DETERMINERS):
            break
        if token == "," and not _or_follows(tokens, end + 1):
            break
        end += 1
    return range(position + 1, end)


def _or_follows(tokens: Sequence[str], start: int) -> bool:
    for token in tokens[start:]:
        if token in ("or", "nor"):
            return True
        if token in _STOPS or token in DETERMINERS or token in SENTENCE_ENDS:
            return False
    return False


def _subject_before(tokens: Sequence[str], position: int) -> range:
    """The clause that ends at `position`; a comma right before "which", "who" or "that" does not end it."""
    start = position
    while start > 0:
        previous = tokens[start - 1]
        if previous in SENTENCE_ENDS or previous == "but":
            break
        if previous == "," and tokens[start] not in ("which", "who", "that"):
            break
        start -= 1
    return range(start, position)


def excluded_positions(tokens: Sequence[str]) -> Set[int]:
    """Positions after "excluding" and the like: the list that the question asked to leave out."""
    if _EXCLUDING.isdisjoint(tokens):
        return set()
    return {denied for position, token in enumerate(tokens) if token in _EXCLUDING
            for denied in _excluded_after(tokens, position)}


def echo_positions(tokens: Sequence[str], names: Mapping[str, Sequence[Words]],
                   compounds: Container[Words]) -> Set[int]:
    """Positions of runs of category names without a word between them: the list that the question excluded.

    "Sofa person chair" is such a run; "dog dog dog" is mere repetition, and "water bottle" a compound noun.

    Args:
        tokens: of a re-caption.
        names: first word to the category names that start with it, the longest first.
        compounds: two-name runs that are ordinary compound nouns.
    """
    echoed: Set[int] = set()
    position = 0
    while position < len(tokens):
        run: List[Words] = []
        end = position
        while end < len(tokens):
            name = name_at(tokens, end, names)
            if not name:
                break
            run.append(name)
            end += len(name)
        if len(run) > 1 and len(set(run)) > 1 and not (len(run) == 2 and run[0] + run[1] in compounds):
            echoed.update(range(position, end))
        position = max(end, position + 1)
    return echoed


def name_at(tokens: Sequence[str], position: int, names: Mapping[str, Sequence[Words]]) -> Words:
    """The longest of `names` that starts at `position`; empty where there is none."""
    for name in names.get(tokens[position], ()):
        if len(name) == 1 or tuple(tokens[position:position + len(name)]) == name:
            return name
    return ()
