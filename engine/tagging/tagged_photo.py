"""A photo with its tags: what the files and the page are written from."""
from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import List, NamedTuple, Optional, Tuple

from torch import Tensor

from engine.evaluation.metrics import above_midpoint
from engine.evaluation.predictor import Tags
from engine.methods.tag_threshold import check_threshold, stored_threshold
from engine.tagging.photo_loader import Thumbnail
from engine.training.checkpoint import Checkpoint


class TaggedPhoto(NamedTuple):
    """One photo."""

    path: str
    result: Tags
    """Scores (O,) and maps (O, rows, columns) of the scorer's categories."""
    tags: List[int]
    """Its classes by the rule for tags, highest score first."""
    thumbnail: Optional[Thumbnail]


@dataclass
class TagRun:
    """What holds for all photos of a run, and what is known at its end."""

    title: str
    """The method and its weights."""
    categories: Tuple[str, ...]
    """Classes, then backgrounds where the method scores those too."""
    num_classes: int
    """C."""
    threshold: Optional[float]
    """A class is a tag from this score on; None: above the midpoint of a photo's scores."""
    unreadable: List[Tuple[str, str]] = field(default_factory=list)
    """Path and reason of those that cannot be read, so far."""

    @property
    def classes(self) -> Tuple[str, ...]:
        """The C names."""
        return self.categories[:self.num_classes]

    @property
    def rule(self) -> str:
        """When a class is a tag, in words."""
        if self.threshold is None:
            return "above the midpoint of the photo's lowest and highest score"
        return f"a score of {self.threshold:.4g} or more"

    def tagged(self, path: str, result: Tags, thumbnail: Optional[Thumbnail]) -> TaggedPhoto:
        """A photo with its tags."""
        scores = result.scores[:self.num_classes]
        chosen = tags_of(scores, self.threshold)
        tags = [row for row in scores.argsort(descending=True, stable=True).tolist() if chosen[row]]
        return TaggedPhoto(path, result, tags, thumbnail)


def tag_threshold(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Optional[float]:
    """From which score on a class is a tag: `--threshold`, or the checkpoint's, or half of the probability for a
    checkpoint that has none; None for methods without training, where `tags_of` goes by the midpoint."""
    check_threshold(args)
    if args.threshold is not None or trained is None or args.method != trained["args"]["method"]:
        return args.threshold
    stored = stored_threshold(trained).value
    return 0.5 if stored is None else stored


def tags_of(scores: Tensor, threshold: Optional[float]) -> Tensor:
    """(C,) bool: the classes that are tags, of (C,) scores of one photo.

    Without a threshold they are the scores above the midpoint of the lowest and the highest, as TagCLIP decides.
    """
    return above_midpoint(scores[None])[0] if threshold is None else scores >= threshold
