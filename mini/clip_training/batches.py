"""The order, the crops and the black patches of the pictures in training."""
from __future__ import annotations

from typing import Iterator, List, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import normalize

from clip import MEAN, STD
from mini.clip_training.pictures import CAPTIONS_PER_PICTURE, Pool
from mini.clip_training.recipe import PATCH_SIZE, Phase, Recipe
from models.masks import black_out


def to_tensor(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) bytes to normalised floats."""
    return normalize(pixels.float() / 255, MEAN, STD)


def resize(pixels: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) bytes to (B, 3, side, side), antialiased."""
    return F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)


def batches(pool: Pool, recipe: Recipe, phase: Phase) -> Iterator[Tuple[Tensor, List[str]]]:
    """Images and captions of every step of a phase."""
    rng = np.random.default_rng([recipe.seed, 1, phase.steps] if phase.shuffle_first else [recipe.seed, 1])
    count = phase.pictures
    order = rng.permutation(count) if phase.shuffle_first else np.arange(count)
    per_epoch = count // recipe.batch_size
    for step in range(phase.steps):
        epoch, position = divmod(step, per_epoch)
        if epoch and position == 0:
            order = rng.permutation(count)
        rows = order[position * recipe.batch_size:(position + 1) * recipe.batch_size]
        captions = [pool.captions[row][(epoch + row) % CAPTIONS_PER_PICTURE] for row in rows]
        pixels = torch.from_numpy(pool.pixels[rows]).permute(0, 3, 1, 2).contiguous()
        side = recipe.early_resolution if step < recipe.early_share * phase.steps else recipe.resolution
        if rng.random() < 0.5:
            pixels = pixels.flip(3)
        yield black_out_patches(to_tensor(random_crop(pixels, side, rng)), recipe.blackout, rng), captions


def random_crop(pixels: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """Half of the batches whole, the others a crop of at least 60% of the side (one crop for the batch)."""
    if rng.random() < 0.5:
        full = pixels.shape[-1]
        part = int(rng.integers(int(0.6 * full), full))
        top, left = (int(v) for v in rng.integers(0, full - part + 1, 2))
        pixels = pixels[:, :, top:top + part, left:left + part]
    return resize(pixels, side)


def black_out_patches(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """In `share` of the images (B, 3, R, R), the first ones, blacken a random part of the patches."""
    side = images.shape[-1] // PATCH_SIZE
    keep = np.ones((len(images), side, side), bool)
    for mask in keep[:int(share * len(images))]:
        mask[:] = rng.random((side, side)) >= rng.uniform(0.1, 0.85)
    return black_out(images, torch.from_numpy(keep).flatten(1), PATCH_SIZE)
