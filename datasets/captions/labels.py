"""From the categories that captions name to label lists and co-occurrence counts."""
from __future__ import annotations

from typing import Dict, List, NamedTuple

from datasets.captions.io import Captions
from datasets.captions.prompts import NUM_PROMPTS
from datasets.filter.lexicon import Categories
from datasets.filter.matcher import CategoryMatcher

CaptionNames = Dict[str, List[Categories]]
"""Image id to the categories that each of its twelve captions names: six first captions, then six re-captions."""

LabelDictionary = Dict[str, List[List[int]]]
"""Image id to six lists of category indices, one a prompt, first caption and re-caption merged."""


class CoOccurrence(NamedTuple):
    """How often categories are named, alone and together, counted over (image, prompt) lists.

    counts: (O,), counts[j] lists name category j. together: (O, O), together[i][j] lists name both; the diagonal
    repeats `counts`, so that the adjacency P(i given j) = together[i][j] / counts[j] has a unit diagonal.
    """

    counts: List[int]
    together: List[List[int]]


def name_captions(captions: Captions, matcher: CategoryMatcher) -> CaptionNames:
    """The categories that each of the twelve captions of each image names.

    A re-caption can weave into a sentence what its question excluded ("a living room in the valley"). Where the
    image's re-captions repeat an excluded background that none of its first captions names, no re-caption names it.
    (The authors' questions exclude wrong backgrounds by mistake; ours exclude what the first captions name.)
    """
    return {image_id: _name_image(texts[:NUM_PROMPTS], texts[NUM_PROMPTS:], matcher)
            for image_id, texts in captions.items()}


def _name_image(first_captions: List[str], re_captions: List[str], matcher: CategoryMatcher) -> List[Categories]:
    first = [matcher.name_categories(text) for text in first_captions]
    re = [matcher.name_categories(text, True) for text in re_captions]
    excluded = {category for text in re_captions for category in matcher.excluded_backgrounds(text)}
    if excluded:
        echoed = excluded.difference(*first)
        re = [tuple(category for category in named if category not in echoed) for named in re]
    return first + re


def merge_prompts(names: CaptionNames) -> LabelDictionary:
    """Per image and prompt, the categories that the first caption or the re-caption names."""
    return {image_id: [sorted({*first, *re}) if re else list(first)
                       for first, re in zip(per_caption[:NUM_PROMPTS], per_caption[NUM_PROMPTS:])]
            for image_id, per_caption in names.items()}


def count_co_occurrence(labels: LabelDictionary, num_categories: int) -> CoOccurrence:
    """Count over all (image, prompt) lists which categories are named, and which together."""
    counts = [0] * num_categories
    together = [[0] * num_categories for _ in range(num_categories)]
    for lists in labels.values():
        for named in lists:
            for category in named:
                counts[category] += 1
                row = together[category]
                for other in named:
                    row[other] += 1
    return CoOccurrence(counts, together)
