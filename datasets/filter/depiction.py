"""Words that only say what something depicts or resembles: "a statue of a horse", "a cake shaped like a train"."""
from __future__ import annotations

from typing import Container, FrozenSet, Sequence, Set

from datasets.filter.grammar import PUNCTUATION
from datasets.filter.negation import phrase_after

_PICTURES = frozenset(("image", "picture", "photo", "photograph"))
"""What a caption calls the photo itself, unless a thing comes "with a picture of" something."""

LIKENESS_TRIGGERS: FrozenSet[str] = frozenset("like as resembling resemble resembles shape form likeness".split())
"""Without one of these tokens no caption speaks of a likeness."""

_DEPICTION_ENDS = frozenset("in at near next behind beside by above over below under hanging hung is are".split())

_MADE = frozenset("shaped styled dressed disguised costumed decorated painted carved cut molded moulded modeled "
                  "modelled posing".split())
"""With "like" or "as": what has the looks of something else."""

_RESEMBLING = frozenset("resembling resemble resembles".split())
_SHAPE = frozenset("shape form likeness".split())


def depicted_positions(words: Sequence[str], depictions: Container[str]) -> Set[int]:
    """Positions of what comes after "a statue of" and the like.

    Args:
        words: of the caption, in the singular.
        depictions: nouns that depict what follows their "of".
    """
    depicted: Set[int] = set()
    for position, word in enumerate(words[:-1]):
        if words[position + 1] != "of":
            continue
        if word in depictions or word in _PICTURES and "with" in words[max(position - 2, 0):position]:
            end = position + 2
            while end < len(words) and words[end] not in PUNCTUATION and words[end] not in _DEPICTION_ENDS:
                end += 1
            depicted.update(range(position + 2, end))
    return depicted


def likeness_positions(tokens: Sequence[str]) -> Set[int]:
    """Positions of what something has the looks of: "dressed up as a bear", "painted to look like a shark".

    A guess is no likeness: "it looks like a dog" names a dog.
    """
    looks: Set[int] = set()
    for position, token in enumerate(tokens):
        if token in ("like", "as") and _is_likeness(tokens, position) or token in _RESEMBLING:
            looks.update(phrase_after(tokens, position))
        elif token in _SHAPE and tokens[position + 1:position + 2] == ["of"] and tokens[max(position - 2, 0)] == "in":
            looks.update(phrase_after(tokens, position + 1))
    return looks


def _is_likeness(tokens: Sequence[str], position: int) -> bool:
    """Whether the "like" or "as" at `position` follows "shaped", "dressed up", "to look" or "that looks"."""
    before = tokens[position - 1] if position else ""
    earlier = tokens[position - 2] if position > 1 else ""
    if before == "up":
        before = earlier
    return before in _MADE or before == "look" and earlier == "to" or before == "looks" and earlier in ("that", "which")
