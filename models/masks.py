"""Attention masks and the two complementary masked images (method: masked globals)."""
from __future__ import annotations

import math
from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

import clip


def min_max(values: Tensor) -> Tensor:
    """Scale the last dimension of `values` to [0, 1]; a constant row becomes all zeros."""
    low = values.amin(dim=-1, keepdim=True)
    spread = values.amax(dim=-1, keepdim=True) - low
    return (values - low) / spread.clamp_min(torch.finfo(values.dtype).tiny)


def high_attention(attention: Tensor, share: float = 0.15, threshold: Optional[float] = None) -> Tensor:
    """The set H of patches that [cls] looks at most.

    Args:
        attention: (B, N) [cls]-to-patch attention.
        share: H holds the ceil(share * N) strongest patches. 0.15 gives 30 of 196, as in the authors' example.
        threshold: if given, H holds instead the patches whose min-max-normalised attention exceeds it.

    Returns:
        (B, N) bool, True in H.
    """
    if threshold is not None:
        return min_max(attention) > threshold
    strongest = attention.topk(high_count(attention.shape[-1], share), dim=-1).indices
    return torch.zeros_like(attention, dtype=torch.bool).scatter_(-1, strongest, True)


def high_count(num_patches: int, share: float) -> int:
    """Patches in H where it is a share of all."""
    return math.ceil(share * num_patches)


def black_out(images: Tensor, keep: Tensor, patch_size: int, mean: Sequence[float] = clip.MEAN,
              std: Sequence[float] = clip.STD) -> Tensor:
    """Paint the patches outside `keep` black.

    Args:
        images: (B, 3, H, W), normalised.
        keep: (B, N) bool over the (H / patch_size) x (W / patch_size) grid, row by row.
        patch_size: side of a patch in pixels.
        mean: that the images were normalised with, of the three colours; CLIP's if nothing is said.
        std: the standard deviation, likewise.

    Returns:
        (B, 3, H, W) images, normalised as the input.
    """
    height, width = images.shape[-2:]
    grid = keep.view(-1, 1, height // patch_size, width // patch_size)
    pixels = grid.repeat_interleave(patch_size, dim=-2).repeat_interleave(patch_size, dim=-1)
    black = -images.new_tensor(mean) / images.new_tensor(std)
    return torch.where(pixels, images, black.view(1, 3, 1, 1))


def complementary_images(images: Tensor, high: Tensor, patch_size: int, mean: Sequence[float] = clip.MEAN,
                         std: Sequence[float] = clip.STD) -> Tuple[Tensor, Tensor]:
    """M_H, which keeps only the patches of H, and M_Hc, which keeps only the others. As `black_out`."""
    return black_out(images, high, patch_size, mean, std), black_out(images, ~high, patch_size, mean, std)
