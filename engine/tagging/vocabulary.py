"""The words of `--words`: classes of one's own for methods that need no training."""
from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import List, Sequence

from datasets.files import DataError, read_lines, shorten
from datasets.names import VOC_COCO_BACKGROUNDS, listed_name
from datasets.registry import DatasetSpec, get_dataset


def read_words(given: Sequence[str]) -> List[str]:
    """The words of `--words`: those given, or the lines of the one file that is.

    Raises:
        DataError: there are fewer than two, one comes twice, or the file is none of words.
    """
    source, missing = "--words", ", and is no file here"
    placed = [(source, word) for word in given]
    if len(given) == 1 and Path(given[0]).is_file():
        source, missing = given[0], ""
        placed = [(f"{source}:{number}", line) for number, line in read_lines(source)]
        if not placed:
            raise DataError(f"{source}: the file is empty; write a word a line")
    words = [listed_name(where, word) for where, word in placed]
    if len(words) < 2:
        raise DataError(f"{source}: one word, {shorten(words[0])}, leaves nothing to choose from{missing}; give at "
                        "least two words, or a file with a word a line")
    word, count = Counter(words).most_common(1)[0]
    if count > 1 or "" in words:
        raise DataError(f"{source}: {shorten(word)} comes twice; name each word once" if count > 1
                        else f"{source}: an empty word; leave it out")
    return words


def photo_spec(args: argparse.Namespace) -> DatasetSpec:
    """What photos are scored for without training: the categories of `--dataset`, or the `--words`.

    The words are the classes, and those backgrounds of VOC and COCO that are not among them the backgrounds (our
    choice): TagCLIP's patches may choose one, CLIP chooses among the classes.
    """
    if not args.words:
        return get_dataset(args.dataset)
    words = tuple(read_words(args.words))
    backgrounds = tuple(name for name in VOC_COCO_BACKGROUNDS if name not in words)
    return DatasetSpec("words", "words", words, backgrounds, "", "", "", "")
