"""What every method is measured on: a frozen CLIP and the images of a test split."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple

import torch
from torch import Tensor

import clip
from clip.model import CLIP
from datasets.files import DataError
from datasets.images import image_transform
from datasets.registry import DatasetSpec
from datasets.split_file import ImageList, read_split_file
from engine.features import build_encoder, weights_digest
from engine.metrics import above_midpoint
from engine.readable import readable
from engine.text import encode_categories
from models.encoder import FrozenEncoder

Checkpoint = Dict[str, Any]
"""What `engine.run.load_checkpoint` returns."""


@dataclass(frozen=True)
class Bench:
    """A frozen CLIP and a test split."""

    args: argparse.Namespace
    spec: DatasetSpec
    device: torch.device
    clip_model: CLIP
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
        return encode_categories(self.clip_model, self.spec.classes, self.args.prompts).cpu()

    def encoder(self) -> FrozenEncoder:
        """The encoder of the run that is evaluated, or the default one."""
        return build_encoder(self.args, self.clip_model)


def check_weights(args: argparse.Namespace, trained: Checkpoint, clip_model: CLIP) -> None:
    """Raises DataError where a checkpoint was trained on another CLIP."""
    if trained["weights_sha256"] != weights_digest(clip_model):
        raise DataError(f"{args.model_path}: not the CLIP weights that {args.checkpoint} was trained on")


def load_bench(args: argparse.Namespace, spec: DatasetSpec, device: torch.device) -> Bench:
    """Load the CLIP of `--model_path` and the test split."""
    num_classes = len(spec.classes)
    split = read_split_file(args.val_split_file, num_classes)
    test_ids, skipped = readable(split.image_ids, args.val_img_root, args)
    clip_model, _ = clip.load(args.model_path, device)
    images = ImageList(args.val_img_root, test_ids, image_transform(clip_model.visual.input_resolution))
    return Bench(args, spec, device, clip_model, images, split.only(test_ids).targets(num_classes), skipped)


class Scored(NamedTuple):
    """What a method says of the test images."""

    scores: Tensor
    """(n, C), to be ranked."""
    predicted: Tensor
    """(n, C) bool, the labels that it gives."""

    @classmethod
    def by_sign(cls, logits: Tensor) -> Scored:
        """Labels are the logits above 0."""
        return cls(logits, logits > 0)

    @classmethod
    def by_midpoint(cls, scores: Tensor) -> Scored:
        """Labels are the scores above the midpoint of their image's, for methods without logits (as TagCLIP does)."""
        return cls(scores, above_midpoint(scores))
