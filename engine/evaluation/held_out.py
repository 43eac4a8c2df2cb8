"""`--val_share`: training images that are kept out of training, to compare runs without a true label."""
from __future__ import annotations

import argparse
import hashlib
from typing import Dict, NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.captions.pseudo_labels import load_targets
from datasets.files import DataError, counted
from datasets.registry import DatasetSpec
from engine.evaluation.metrics import average_precision, mean_ap
from engine.features.feature_set import FeatureSet
from engine.training.prediction import predict
from engine.training.training_labels import label_folder
from models.bac_gcn import BACGCN

REFERENCE_LABELS = "scores"
"""The kind of labels that held-out images have whatever `--labels` a run trains on: better labels make a higher
pseudo_mAP and pseudo_AP by themselves, so runs are compared by the same ones."""

POSITIVE = 0.5
"""A class with this reference label is a positive of pseudo_mAP and pseudo_AP."""


class Halves(NamedTuple):
    """The training images in two parts."""

    train: FeatureSet
    held_out: Optional[FeatureSet]
    """With their reference labels for the C classes; None without `--val_share`."""


def held_out_rows(image_ids: Sequence[str], share: float) -> Tensor:
    """The rows of the images that are kept out, ascending: those with the lowest digests of their ids.

    So they are the same images whatever the seed, the flags and the order of the list.
    """
    digests = [hashlib.sha256(image_id.encode()).digest() for image_id in image_ids]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    return torch.tensor(sorted(order[:round(share * len(order))]), dtype=torch.long)


def hold_out(data: FeatureSet, args: argparse.Namespace, spec: DatasetSpec) -> Halves:
    """Keep `--val_share` of the training images out.

    Args:
        data: all training images with the labels to train on.
        args: `--val_share` and the flags of `label_folder`.
        spec: the dataset.

    Raises:
        DataError: nothing is left to train on, or no class is in what is kept out.
    """
    if not args.val_share:
        return Halves(data, None)
    rows = held_out_rows(data.image_ids, args.val_share)
    kept = torch.ones(len(data), dtype=torch.bool)
    kept[rows] = False
    held_out = data.select(rows)
    if len(rows):
        labels = load_targets(label_folder(args, spec), held_out.image_ids, spec.categories, REFERENCE_LABELS)
        held_out.targets = labels[:, :len(spec.classes)]
    if not kept.any() or not (held_out.targets >= POSITIVE).any():
        fault = "nothing is left to train on" if not kept.any() else (
            "no class is named in them" if len(rows) else "there is nothing to compare by")
        raise DataError(f"--val_share {args.val_share} keeps {len(rows)} of {counted(len(data), 'training image')} "
                        f"out: {fault}; change it")
    return Halves(data.select(kept.nonzero().flatten()), held_out)


def held_out_metrics(model: BACGCN, held_out: Optional[FeatureSet], args: argparse.Namespace,
                     device: torch.device) -> Dict[str, float]:
    """How the held-out images fare against their reference labels; {} without any.

    Returns:
        pseudo_mAP: mean of the classes' AP, in percent.
        pseudo_AP: one AP over all (image, class) pairs, in percent. Few images a class make a noisy mean, the pairs of
            all classes are many; their logits share one scale, as the biases start at the labels' log-odds.
        pseudo_loss: cross-entropy.
    """
    if held_out is None:
        return {}
    labels = held_out.targets
    logits = predict(model, held_out, args, device)[:, :labels.shape[1]]
    positives = labels >= POSITIVE
    pseudo_map = mean_ap(average_precision(logits, positives))
    assert pseudo_map is not None, "hold_out found a positive"
    return {"pseudo_mAP": pseudo_map,
            "pseudo_AP": float(average_precision(logits.reshape(-1, 1), positives.reshape(-1, 1))[0]),
            "pseudo_loss": float(F.binary_cross_entropy_with_logits(logits, labels))}
