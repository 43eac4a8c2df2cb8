"""Which caption holds which words."""
from __future__ import annotations

from array import array
from typing import Dict, Iterable, List


class CaptionWords:
    """The distinct words of captions, as rows of a sparse matrix in the order in which captions are added.

    Attributes:
        ends: where each caption's columns end; the first entry is 0.
        columns: word numbers, caption after caption.
    """

    def __init__(self) -> None:
        self._index = _Index()
        self.ends = array("q", [0])
        self.columns = array("i")

    def add(self, words: Iterable[str]) -> None:
        """Add a caption."""
        self.columns.extend(set(map(self._index.__getitem__, words)))
        self.ends.append(len(self.columns))

    @property
    def vocabulary(self) -> List[str]:
        """The words, by number."""
        return list(self._index)


class _Index(Dict[str, int]):
    """Word to number, in the order in which words turn up."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number
