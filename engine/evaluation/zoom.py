"""Zooming at test time: an extension of ours that is not in the paper, and off by default."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Tuple

import torch
from torch import Tensor

from datasets.images import read_image
from datasets.split_file import ImageList
from engine.evaluation.metrics import average_precision, mean_ap
from engine.features.extraction import extract_features
from engine.features.feature_set import FeatureSet
from engine.training.prediction import predict
from models.bac_gcn import BACGCN
from models.encoder import FrozenEncoder


class Tiles(ImageList):
    """Each image as zoom x zoom tiles of half its sides, evenly spaced: item i is tile i % zoom^2 of an image."""

    def __init__(self, images: ImageList, zoom: int) -> None:
        self.images = images
        self.zoom = zoom
        self.transform = images.transform
        self.image_ids = [f"{image_id} tile {tile} of {zoom}x{zoom}"
                          for image_id in images.image_ids for tile in range(zoom * zoom)]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Tuple[Any, int]:
        image = read_image(self.path(index))
        row, column = divmod(index % self.zoom ** 2, self.zoom)
        # Tile corners run from 0 to half a side; a single tile is the centre.
        top, left = (0.5 * place / (self.zoom - 1) if self.zoom > 1 else 0.25 for place in (row, column))
        width, height = image.size
        box = (left * width, top * height, (left + 0.5) * width, (top + 0.5) * height)
        return self.transform(image.crop(tuple(round(side) for side in box))), index

    def path(self, index: int) -> Path:
        """The file that tile `index` is cut from."""
        return self.images.path(index // self.zoom ** 2)


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
               args: argparse.Namespace, device: torch.device) -> float:
    """mAP of the test images with `--zoom`, in percent."""
    logits = zoomed_logits(model, test_set, images, encoder, args, device)
    return mean_ap(average_precision(logits[:, :test_set.targets.shape[1]], test_set.targets))
