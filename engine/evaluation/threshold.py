"""From which score on a class is a tag: one rule for all methods, found without true labels.

The rule (our choice): of some training images, evenly spread over the split, a method's scores are compared with the
pseudo-labels that captions gave them, and the threshold is the one whose tags have the highest expected F1. There is
one threshold for all classes, and it holds for test images and photos alike.
"""
from __future__ import annotations

import argparse
from typing import Dict

import torch
from torch import Tensor

from engine.evaluation.metrics import summarise
from engine.features.feature_set import FeatureSet, spread_rows
from engine.training.prediction import predict
from models.bac_gcn import BACGCN

NUM_IMAGES = 1000
"""Training images that a threshold is found on. On the embedded world more change it by less than 0.01."""


def spread(count: int) -> Tensor:
    """Rows of at most `NUM_IMAGES` of `count` images, evenly spread."""
    return spread_rows(count, NUM_IMAGES)


def best_threshold(confidence: Tensor, labels: Tensor) -> float:
    """The threshold with the highest expected F1 over all pairs of image and class.

    With labels that are probabilities, the expected true positives of a set of tags are the sum of their labels, so
    F1 = 2 sum(labels of the tags) / (tags + sum of all labels). It lies halfway between two scores that occur.

    Args:
        confidence: (n, C) scores, higher for what is more likely there.
        labels: (n, C) pseudo-labels in 0..1.
    """
    scores, order = confidence.flatten().double().sort(descending=True)
    labels = labels.flatten().double()[order]
    tags = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    f1 = 2 * labels.cumsum(0) / (tags + labels.sum())
    last_of_its_score = torch.cat([scores[:-1] > scores[1:], torch.ones(1, dtype=torch.bool)])
    best = int(f1.where(last_of_its_score, -1.0).argmax())
    return float((scores[best] + scores[min(best + 1, len(scores) - 1)]) / 2)


def measure(model: BACGCN, test_set: FeatureSet, threshold_set: FeatureSet, args: argparse.Namespace,
            device: torch.device) -> Dict[str, float]:
    """mAP and the measures of tags on the test set, with the threshold of `threshold_set`'s pseudo-labels."""
    num_classes = test_set.targets.shape[1]
    known, logits = (predict(model, data, args, device)[:, :num_classes] for data in (threshold_set, test_set))
    threshold = best_threshold(known.sigmoid(), threshold_set.targets[:, :num_classes])
    return {"threshold": threshold, **summarise(logits, test_set.targets, logits.sigmoid() >= threshold,
                                                 args.min_positives)}
