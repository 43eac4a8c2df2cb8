"""Zooming at test time: an extension of ours that is not in the paper, and off by default."""
from __future__ import annotations

import argparse
from typing import Optional

import torch
from torch import Tensor

from datasets.split_file import ImageList
from engine.evaluation.metrics import average_precision, mean_ap
from engine.features.extraction import extract_features
from engine.features.feature_set import FeatureSet
from engine.features.tiles import Tiles
from engine.training.prediction import predict
from models.bac_gcn import BACGCN
from models.encoder import FrozenEncoder


def zoomed(full: Tensor, tiles: Tensor) -> Tensor:
    """Scores (n, C) of the images plus the maximum over the scores (n * tiles, C) of their tiles, (n, C)."""
    return full + tiles.view(len(full), -1, full.shape[1]).amax(dim=1)


def zoomed_logits(model: BACGCN, test_set: FeatureSet, images: ImageList, encoder: FrozenEncoder,
                  args: argparse.Namespace, device: torch.device) -> Tensor:
    """Logits (n, O) of the test images with `--zoom`: zoom^2 more images to encode, once."""
    store = extract_features(encoder, Tiles(images, args.zoom), "tiles", args)
    tile_set = FeatureSet([store], torch.zeros(len(store), test_set.targets.shape[1]))
    return zoomed(predict(model, test_set, args, device), predict(model, tile_set, args, device))


def zoomed_map(model: BACGCN, test_set: FeatureSet, images: ImageList, encoder: FrozenEncoder,
               args: argparse.Namespace, device: torch.device) -> Optional[float]:
    """mAP of the test images with `--zoom`, in percent; None without labels."""
    logits = zoomed_logits(model, test_set, images, encoder, args, device)
    return mean_ap(average_precision(logits[:, :test_set.targets.shape[1]], test_set.targets, args.min_positives))
