"""Captions to training targets and caption graph."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple, Sequence

from torch import Tensor

from datasets.captions import filter_captions
from datasets.captions.io import find_captions
from datasets.captions.labels import unnamed_classes
from datasets.captions.pseudo_labels import LABELS_FILE, load_counts, load_targets
from datasets.files import DataError
from datasets.progress import say
from datasets.registry import DatasetSpec, how_to_caption
from engine.process.distributed import is_main, main_first
from models.graph import caption_graph


class PseudoLabels(NamedTuple):
    """What the captions say of the training images."""

    targets: Tensor
    """(n, O) soft targets in [0, 1]."""
    graph: Tensor
    """(O, O) caption graph, P(i given j)."""


def label_folder(args: argparse.Namespace, spec: DatasetSpec) -> Path:
    """The folder with the files of `caption.py --stage filter`; where only captions are there, filter them first.

    Args:
        args: `--caption_root` and, for labels made here, `--output_dir`.
        spec: the dataset.

    Raises:
        DataError: neither labels nor captions are there.
    """
    folder = Path(args.caption_root) / spec.name
    if (folder / LABELS_FILE).exists():
        return folder
    if find_captions(args.caption_root, spec.name) is None:
        raise DataError(f"{folder}: neither label files nor captions are there; get the captions with "
                        f"{how_to_caption(spec.name)}; or write captions of your own as docs/captions.md describes, "
                        "or point --caption_root at them")
    made = Path(args.output_dir) / "caption"
    with main_first():
        if not (made / spec.name / LABELS_FILE).exists():
            say(f"filtering the captions of {args.caption_root} into {made}")
            filter_captions(spec, args.caption_root, made)
    return made / spec.name


def load_pseudo_labels(args: argparse.Namespace, spec: DatasetSpec, image_ids: Sequence[str],
                       categories: Sequence[str]) -> PseudoLabels:
    """Read the training targets and the caption graph.

    Args:
        args: `--labels` and the flags of `label_folder`.
        spec: the dataset.
        image_ids: training images, in the order of the targets.
        categories: the classes, with or without the backgrounds.

    Raises:
        DataError: neither labels nor captions are there, or they do not cover the images.
    """
    folder = label_folder(args, spec)
    targets = load_targets(folder, image_ids, spec.categories, args.labels)[:, :len(categories)]
    counts, co_occurrence = load_counts(folder, spec.categories)
    warning = unnamed_classes(spec.classes, counts.tolist())
    if warning and is_main():
        print(warning)
    return PseudoLabels(targets, caption_graph(counts, co_occurrence)[:len(categories), :len(categories)])
