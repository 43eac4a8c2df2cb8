"""What every method is measured on: a frozen encoder and the images of a test split."""
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
from engine.features.frozen_encoder import load_encoder, need_text_tower
from engine.features.readable_images import read_test_split
from engine.features.text_embeddings import encode_words
from engine.training.checkpoint import Checkpoint
from models.encoder import FrozenEncoder


@dataclass(frozen=True)
class EvaluationSet:
    """A frozen encoder and a test split."""

    args: argparse.Namespace
    spec: DatasetSpec
    device: torch.device
    encoder: FrozenEncoder
    """The encoder of the run that is evaluated, or the default one."""
    images: ImageList
    """The test images, squashed to the encoder's input."""
    targets: Tensor
    """(n, C) their true labels."""
    skipped: List[str]
    """Test images that cannot be read."""

    @property
    def clip_model(self) -> CLIP:
        """The CLIP of the encoder; raises DataError where it is none."""
        return need_text_tower(self.encoder, self.args)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.spec.classes)

    def class_embeddings(self) -> Tensor:
        """(C, D) text embeddings of the classes, on the CPU."""
        return encode_words(self.clip_model, self.spec.prompt_names(self.spec.classes), self.args.prompts).cpu()


def check_weights(args: argparse.Namespace, trained: Checkpoint, encoder: FrozenEncoder) -> None:
    """Raises DataError where a checkpoint was trained on another frozen encoder."""
    facts = encoder.facts()
    if trained["weights_sha256"] != facts["weights_sha256"]:
        activation, then = facts.get("activation"), trained.get("activation", "quick_gelu")
        advice = ("" if activation in (None, then)
                  else f"; they were {then} then and are {activation} here, see --activation")
        kind = "" if encoder.text_tower is None else "CLIP "
        raise DataError(f"{args.model_path}: not the {kind}weights that {args.checkpoint} was trained "
                        f"on{advice}")


def load_evaluation_set(args: argparse.Namespace, spec: DatasetSpec, device: torch.device,
                        trained: Optional[Checkpoint] = None) -> EvaluationSet:
    """Load the frozen encoder of the flags, or of a checkpoint that they come from, and the test split."""
    num_classes = len(spec.classes)
    images, split, skipped = read_test_split(args, num_classes)
    encoder = load_encoder(args, device, trained and trained.get("encoder"))
    images = images.with_transform(encoder.transform)
    return EvaluationSet(args, spec, device, encoder, images, split.targets(num_classes), skipped)


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
