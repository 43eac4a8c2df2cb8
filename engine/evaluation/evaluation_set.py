"""What every method is measured on: a frozen CLIP and the images of a test split."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import List, NamedTuple, Optional

import torch
from torch import Tensor

from clip.model import CLIP
from datasets.files import DataError
from datasets.registry import DatasetSpec
from datasets.split_file import ImageList
from engine.evaluation.metrics import above_midpoint
from engine.features.frozen_clip import build_encoder, load_clip, weights_digest
from engine.features.readable_images import read_test_split
from engine.features.text_embeddings import encode_words
from engine.training.checkpoint import Checkpoint
from models.encoder import FrozenEncoder


@dataclass(frozen=True)
class EvaluationSet:
    """A frozen CLIP and a test split."""

    args: argparse.Namespace
    spec: DatasetSpec
    device: torch.device
    clip_model: CLIP
    encoder: FrozenEncoder
    """The encoder of the run that is evaluated, or the default one."""
    images: ImageList
    """The test images, squashed to the encoder's input."""
    targets: Tensor
    """(n, C) their true labels."""
    skipped: List[str]
    """Test images that cannot be read."""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.spec.classes)

    def class_embeddings(self) -> Tensor:
        """(C, D) text embeddings of the classes, on the CPU."""
        return encode_words(self.clip_model, self.spec.prompt_names(self.spec.classes), self.args.prompts).cpu()


def check_weights(args: argparse.Namespace, trained: Checkpoint, clip_model: CLIP) -> None:
    """Raises DataError where a checkpoint was trained on another CLIP."""
    if trained["weights_sha256"] != weights_digest(clip_model):
        activation, then = clip_model.architecture.activation, trained.get("activation", "quick_gelu")
        advice = "" if activation == then else f"; they were {then} then and are {activation} here, see --activation"
        raise DataError(f"{args.model_path}: not the CLIP weights that {args.checkpoint} was trained on{advice}")


def load_evaluation_set(args: argparse.Namespace, spec: DatasetSpec, device: torch.device) -> EvaluationSet:
    """Load the CLIP of `--model_path` and the test split."""
    num_classes = len(spec.classes)
    images, split, skipped = read_test_split(args, num_classes)
    clip_model = load_clip(args, device)
    encoder = build_encoder(args, clip_model)
    images = images.with_transform(encoder.transform)
    return EvaluationSet(args, spec, device, clip_model, encoder, images, split.targets(num_classes), skipped)


class Scored(NamedTuple):
    """What a method says of some images."""

    scores: Tensor
    """(n, C), to be ranked."""
    are_logits: bool
    """Or else scores on a scale of the method's own."""

    @property
    def confidence(self) -> Tensor:
        """(n, C), what a threshold is compared with: probabilities for logits, or else the scores."""
        return self.scores.sigmoid() if self.are_logits else self.scores

    def tags(self, threshold: Optional[float]) -> Tensor:
        """(n, C) bool, the labels that the method gives: what reaches the threshold.

        Without one they are the logits above 0, or else the scores above the midpoint of their image's, as TagCLIP
        decides.
        """
        if threshold is not None:
            return self.confidence >= threshold
        return self.scores > 0 if self.are_logits else above_midpoint(self.scores)
