"""Captions to pseudo-labels: the four-step filter, label scores, co-occurrence counts, and the report.

    spec = get_dataset("voc2007")
    load_matcher(spec).name_categories("a puppy on a couch")            # (11, 17): dog, sofa
    filter_captions(spec, "caption", "caption")                         # the four label files
"""
from __future__ import annotations

from pathlib import Path

from datasets.captions.io import load_captions
from datasets.captions.label_files import write_counts, write_labels, write_scores
from datasets.captions.labels import (
    compare_with_splits,
    count_co_occurrence,
    merge_prompts,
    read_captions,
    unnamed_classes,
)
from datasets.files import PathLike
from datasets.filter.lexicon import SYNONYM_ROOT, load_lexicon
from datasets.filter.matcher import CategoryMatcher
from datasets.registry import DatasetSpec
from datasets.split_file import split_ids


def load_matcher(spec: DatasetSpec, synonym_root: PathLike = SYNONYM_ROOT) -> CategoryMatcher:
    """The matcher of a dataset's categories.

    Raises:
        DataError: a synonym file is missing or malformed.
    """
    return CategoryMatcher(load_lexicon(spec, synonym_root))


def filter_captions(spec: DatasetSpec, caption_root: PathLike, output_root: PathLike, scores: bool = True,
                    synonym_root: PathLike = SYNONYM_ROOT) -> int:
    """`--stage filter`: write the label lists, the co-occurrence counts and the scores of a dataset.

    Args:
        spec: the dataset.
        caption_root: holds `<dataset>/<dataset>_captions.json`, `.jsonl` or `.csv`, and `..._re_captions.*` if any.
        output_root: gets `<dataset>/train_*.json`.
        scores: whether to write `train_label_scores.json`, too.
        synonym_root: the folder of the synonym files.

    Returns:
        The number of images.

    Raises:
        DataError: a caption file or a synonym file is missing or malformed.
    """
    matcher = load_matcher(spec, synonym_root)
    train_ids, test_ids = split_ids(spec)
    captions = load_captions(caption_root, spec.name, {*train_ids, *test_ids})
    read = read_captions(captions, matcher, words=scores)
    num_images = len(captions)
    for warning in compare_with_splits(spec, captions, train_ids, test_ids):
        print(warning)
    del captions  # the texts are the largest thing in memory, and all is read
    labels = merge_prompts(read)
    folder = Path(output_root) / spec.name
    write_labels(folder, labels)
    counted = count_co_occurrence(labels, len(spec.categories))
    write_counts(folder, counted, spec.categories)
    warning = unnamed_classes(spec.classes, counted.counts)
    if warning:
        print(warning)
    if scores:
        from datasets.captions.scores import score_images  # numpy and scipy, which labels alone do not need

        write_scores(folder, read.names, score_images(read, len(spec.categories)))
    return num_images
