"""From the categories that captions name to label lists and co-occurrence counts."""
from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from typing import Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from datasets.captions.io import CaptionSet
from datasets.files import counted, shorten
from datasets.filter.context_rules import Categories
from datasets.filter.matcher import CategoryMatcher
from datasets.filter.words import CaptionWords
from datasets.progress import bar
from datasets.registry import DATASETS, DatasetSpec

CaptionNames = Dict[str, List[Categories]]
"""Image id to the categories that each of its captions names: first captions, then as many re-captions, if any."""

LabelDictionary = Dict[str, List[Categories]]
"""Image id to sorted lists of category indices, one a first caption with its re-caption: six in the authors' layout,
one a prompt."""


class ReadCaptions(NamedTuple):
    """What the filter found in all captions of a dataset."""

    names: CaptionNames
    words: CaptionWords
    """The words of each caption, in the order of `names`."""
    has_re_captions: bool
    unclaimed: Counter[str]
    """How many captions hold each word that is no part of what names a category, if the matcher finds them."""
    companions: Dict[int, Counter[str]]
    """Category to how many captions that name it hold each unclaimed word."""


class CoOccurrence(NamedTuple):
    """How often categories are named, alone and together, counted over (image, prompt) lists.

    counts: (O,), counts[j] lists name category j. together: (O, O), together[i][j] lists name both; the diagonal
    repeats `counts`, so that the adjacency P(i given j) = together[i][j] / counts[j] has a unit diagonal.
    """

    counts: List[int]
    together: List[List[int]]


def read_captions(captions: CaptionSet, matcher: CategoryMatcher, words: bool = True) -> ReadCaptions:
    """Work out what each caption of each image says, each text once.

    A re-caption can weave into a sentence what its question excluded ("a living room in the valley"). Where the
    image's re-captions repeat an excluded background that none of its first captions names, no re-caption names it.
    (The authors' questions exclude wrong backgrounds by mistake; ours exclude what the first captions name.)

    Args:
        captions: image id to its captions.
        matcher: of the dataset.
        words: whether to collect the captions' words, which the scores need.
    """
    read = ReadCaptions({}, CaptionWords(), captions.has_re_captions, Counter(), {})
    with _no_garbage_collection():
        _read_into(read, captions, matcher, words)
    return read


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of small objects without a cycle among them: looking for cycles takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_into(read: ReadCaptions, captions: CaptionSet, matcher: CategoryMatcher, words: bool) -> None:
    for image_id, texts in bar("reading captions", "image", len(captions), over=captions.items()):
        num_first = captions.num_first(image_id)
        first = [matcher.read(text) for text in texts[:num_first]]
        again = [matcher.read(text, is_recaption=True) for text in texts[num_first:]]
        named = [reading.categories for reading in first]
        excluded = {category for reading in again for category in reading.excluded}
        echoed = excluded.difference(*named) if excluded else excluded
        if echoed:
            named += [tuple(category for category in reading.categories if category not in echoed)
                      for reading in again]
        else:
            named += [reading.categories for reading in again]
        read.names[image_id] = named
        for reading in first + again:
            if words:
                read.words.add(reading.words)
            if reading.unclaimed:
                read.unclaimed.update(reading.unclaimed)
                for category in reading.categories:
                    read.companions.setdefault(category, Counter()).update(reading.unclaimed)


def merge_prompts(read: ReadCaptions) -> LabelDictionary:
    """Per image and first caption, the categories that it or its re-caption names."""
    if not read.has_re_captions:
        return {image_id: list(named) for image_id, named in read.names.items()}
    known: Dict[Tuple[Categories, Categories], Categories] = {}
    return {image_id: [_merged(first, again, known)
                       for first, again in zip(named[:len(named) // 2], named[len(named) // 2:])]
            for image_id, named in read.names.items()}


def _merged(first: Categories, again: Categories, known: Dict[Tuple[Categories, Categories], Categories]) -> Categories:
    """Both, sorted; equal results are one object, as there are millions of them."""
    if not again or first == again:
        return first
    merged = known.get((first, again))
    if merged is None:
        merged = known[first, again] = tuple(sorted({*first, *again}))
    return merged


def count_co_occurrence(labels: Mapping[str, Sequence[Sequence[int]]], num_categories: int) -> CoOccurrence:
    """Count over all (image, prompt) lists which categories are named, and which together."""
    counts = [0] * num_categories
    together = [[0] * num_categories for _ in range(num_categories)]
    for named, times in Counter(tuple(named) for lists in labels.values() for named in lists).items():
        for category in named:
            counts[category] += times
            row = together[category]
            for other in named:
                row[other] += times
    return CoOccurrence(counts, together)


def compare_with_splits(spec: DatasetSpec, captioned: Mapping[str, Sequence[str]], train_ids: Sequence[str],
                        test_ids: Sequence[str]) -> List[str]:
    """Warnings about training images without captions or words and, of one's own dataset, captions without an image."""
    warnings = []
    without = [image_id for image_id in train_ids if image_id not in captioned]
    if without:
        warnings.append(f"warning: {len(without):,} of {counted(len(train_ids), 'training image')} without a caption, "
                        f"the first is {shorten(without[0])}; caption them, or take them out of "
                        f"{spec.train_split_file}")
    silent = [image_id for image_id in train_ids if image_id in captioned and not "".join(captioned[image_id]).strip()]
    if silent:
        warnings.append(f"warning: the captions of {len(silent):,} of {counted(len(train_ids), 'training image')} are "
                        f"empty, the first is {shorten(silent[0])}; nothing is in them, to training. Caption again, "
                        f"or take them out of {spec.train_split_file}")
    known = {*train_ids, *test_ids}
    foreign = [image_id for image_id in captioned if image_id not in known]
    if foreign and known and spec.name not in DATASETS:  # of those, many take a part
        warnings.append(f"warning: {len(foreign):,} captioned images are in neither split file, the first is "
                        f"{shorten(foreign[0])}; the graph counts them. Is its name misspelt?")
    return warnings


def unnamed_classes(classes: Sequence[str], counts: Sequence[float]) -> str:
    """A warning about the classes that no caption names; empty where there are none.

    Args:
        classes: the C names.
        counts: how many lists name each category, at least C.
    """
    unnamed = [name for name, count in zip(classes, counts) if not count]
    if not unnamed:
        return ""
    return (f"WARNING: no caption names {', '.join(unnamed)}: nothing can be learned about "
            f"{'it' if len(unnamed) == 1 else 'them'}. Add words for {'it' if len(unnamed) == 1 else 'them'} "
            "(docs/captions.md), or leave the class out")
