"""The threshold of a method's tags: the flag's, the checkpoint's, or found on training images."""
from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Callable, NamedTuple, Optional

from datasets.captions.pseudo_labels import load_targets
from datasets.files import DataError, counted
from datasets.split_file import read_image_ids
from engine.evaluation.evaluation_set import EvaluationSet, Scored
from engine.evaluation.threshold import best_threshold, spread
from engine.features.readable_images import readable
from engine.training.checkpoint import Checkpoint
from engine.training.training_labels import label_folder


class TagThreshold(NamedTuple):
    """From which score on a class is a tag."""

    value: Optional[float]
    """None: there is none, `Scored.tags` says what decides then."""
    origin: str
    """Where it comes from, for the screen."""

    def __str__(self) -> str:
        return self.origin if self.value is None else f"tags from a score of {self.value:.4g} on, {self.origin}"


def training_sample(test: EvaluationSet) -> EvaluationSet:
    """Training images to find a threshold on, with their pseudo-labels (never true ones) as targets.

    Raises:
        DataError: there are no training images, or no captions of them.
    """
    args, spec = test.args, test.spec
    ids = read_image_ids(args.train_split_file)
    images, skipped = readable([ids[row] for row in spread(len(ids)).tolist()], args.train_img_root, args)
    labels = load_targets(label_folder(args, spec), images.image_ids, spec.categories, "scores")
    images = images.with_transform(test.images.transform)
    return replace(test, images=images, targets=labels[:, :test.num_classes], skipped=skipped)


def find_sample(test: EvaluationSet) -> Optional[EvaluationSet]:
    """`training_sample`, or None where training images or their captions are not there, which is said."""
    try:
        return training_sample(test)
    except DataError as error:
        print(f"no threshold for tags from training images: {error}")
        return None


def stored_threshold(trained: Checkpoint) -> TagThreshold:
    """The threshold that was found for the weights of a checkpoint; none in checkpoints older than thresholds."""
    value = trained["history"][-1].get("threshold") if trained["history"] else None
    return TagThreshold(value, "the checkpoint's" if value is not None else
                        "the checkpoint has no threshold for tags; give one as --threshold")


def check_threshold(args: argparse.Namespace) -> None:
    """Refuse a `--threshold` that no score can reach, or that all do.

    Raises:
        DataError: the method's scores are probabilities, and it is none.
    """
    of_cosines = args.method == "clip" and (args.raw_cosine or args.standardise)
    probabilities = args.method in ("bac_gcn", "cdul", "tagclip", "clip") and not of_cosines
    if args.threshold is not None and probabilities and not 0 <= args.threshold <= 1:
        raise DataError(f"--threshold {args.threshold:g}: the scores of this method are probabilities from 0 to 1")


def tag_threshold(test: EvaluationSet, trained: Optional[Checkpoint],
                  score: Callable[[EvaluationSet], Scored]) -> TagThreshold:
    """The threshold for an evaluation: `--threshold`, or the checkpoint's, or found now.

    Args:
        test: the test split, and the flags.
        trained: the checkpoint, where there is one.
        score: the method.
    """
    args = test.args
    check_threshold(args)
    if args.threshold is not None:
        return TagThreshold(args.threshold, "as given")
    if trained is not None and args.method == trained["args"]["method"] and not args.zoom:
        return stored_threshold(trained)
    sample = find_sample(test)
    if sample is None:
        return TagThreshold(None, "no threshold for tags, give one as --threshold: the logits above 0 count, or else "
                                  "the scores above the midpoint of their image's")
    return TagThreshold(best_threshold(score(sample).confidence, sample.targets),
                        f"found on {counted(len(sample.images), 'training image')} and their captions")
