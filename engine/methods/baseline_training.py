"""Training the baselines: the same run folder, log, checkpoints and table as BAC-GCN's."""
from __future__ import annotations

import argparse
import math
from typing import Any, Callable, Dict, List, Protocol, Sequence, Union

import torch
from torch import Tensor, nn

from datasets.files import DataError
from datasets.registry import DatasetSpec
from datasets.split_file import ImageList, read_image_ids
from engine.evaluation.evaluation_set import EvaluationSet, Scored, load_evaluation_set
from engine.evaluation.metrics import average_precision, mean_ap, summarise
from engine.evaluation.threshold import best_threshold
from engine.features.frozen_clip import clip_name
from engine.methods.cdul_training import CDULTraining
from engine.methods.tag_threshold import find_sample
from engine.methods.tai_dpt_training import TaIDPTTraining
from engine.process.reproducibility import seed_everything
from engine.process.stopwatch import Stopwatch
from engine.training.provenance import data_facts
from engine.training.run import Run
from models.baselines.zero_shot import zero_shot_scores


class Training(Protocol):
    """A baseline in training. All that an epoch changes is in the model and the optimiser, so a run can go on."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What trains it."""

    @property
    def data(self) -> Sequence[Union[ImageList, Tensor]]:
        """What is trained on, to be told from other data."""

    @property
    def skipped(self) -> List[str]:
        """Training images that cannot be read."""

    def __len__(self) -> int:
        """Images or texts an epoch."""

    def train_one_epoch(self, epoch: int) -> float:
        """Train for an epoch, counted from 1; the mean loss."""

    def encode(self, images: EvaluationSet, what: str) -> Any:
        """What scoring reads of images, once for all epochs; `what` they are is for the progress bar."""

    def score(self, encoded: Any) -> Scored:
        """Score images that were encoded, as they are scored now."""

    def test_globals(self) -> Tensor:
        """(n, D) global embeddings of the test images, for CLIP zero-shot beside the result."""


TRAININGS: Dict[str, Callable[[EvaluationSet, Sequence[str]], Training]] = {
    "cdul": CDULTraining, "tai_dpt": TaIDPTTraining}
"""What makes a training from the test split and the ids of the training images."""


def train_baseline(args: argparse.Namespace, spec: DatasetSpec, device: torch.device) -> Run:
    """Train `--method cdul` or `tai_dpt`. Of the training images the ids alone are read, never the labels.

    Raises:
        DataError: a loss is not finite.
    """
    test = load_evaluation_set(args, spec, device)
    seed_everything(args.seed, device)
    training = TRAININGS[args.method](test, read_image_ids(args.train_split_file))
    run = Run(args, list(spec.classes), {**test.encoder.facts(),
                                         **data_facts(*training.data, test.images, test.targets),
                                         "skipped_images": training.skipped + test.skipped})
    run.restore(training.model, training.optimizer)
    encoded, sample = training.encode(test, "test"), find_sample(test)
    encoded_sample = training.encode(sample, "threshold") if sample else None

    for epoch in range(run.next_epoch, args.epochs + 1):
        watch = Stopwatch()
        with watch.part("training"):
            loss = training.train_one_epoch(epoch)
        if not math.isfinite(loss):
            raise DataError(f"epoch {epoch}: the loss is not finite; nothing of it is saved. Lower --lr")
        with watch.part("evaluation"):
            scored, threshold = training.score(encoded), None
            if sample is not None:
                threshold = best_threshold(training.score(encoded_sample).confidence, sample.targets)
            metrics = summarise(scored.scores, test.targets, scored.tags(threshold), args.min_positives)
        known = {} if threshold is None else {"threshold": threshold}
        run.finish_epoch({"epoch": epoch, "loss": loss, "images": len(training), **known, **metrics},
                         watch.timing(len(training)), training.model, training.optimizer)

    zero_shot = zero_shot_scores(training.test_globals(), test.class_embeddings())
    run.finish(spec, mean_ap(average_precision(zero_shot, test.targets, args.min_positives)),
               clip_name=clip_name(args, test.clip_model))
    return run
