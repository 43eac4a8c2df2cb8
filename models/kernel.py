"""The similarity kernel: pools the patches that look most like each category (method: S_o = P . w_o)."""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalFeatures(NamedTuple):
    """What the kernel finds in a batch of images."""

    features: Tensor
    """(B, O, D) mean of the top-K patch embeddings of every category, l_o."""
    maps: Tensor
    """(B, O, N) cosine similarity maps, S_o."""


class SimilarityKernel(nn.Module):
    """One learnable 1x1 kernel w_o per category, initialised from the text embedding of its prompt.

    Args:
        text_embeddings: (O, D).
        k: patches averaged per category (all of them where the image has fewer).
        learned: False keeps the kernel at the text embeddings.
    """

    def __init__(self, text_embeddings: Tensor, k: int, learned: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(text_embeddings.float(), dim=-1), requires_grad=learned)
        self.k = k

    def forward(self, patch_embeddings: Tensor) -> LocalFeatures:
        """Pool (B, N, D) patch embeddings; their length does not matter, only their direction."""
        patches = F.normalize(patch_embeddings, dim=-1)
        maps = F.normalize(self.weight, dim=-1) @ patches.transpose(1, 2)
        k = min(self.k, maps.shape[-1])
        strongest = maps.topk(k, dim=-1).indices
        # One batched product with a 0/1 selection is faster than gathering a (B, O, K, D) tensor.
        selection = torch.zeros_like(maps).scatter_(-1, strongest, 1.0 / k)
        return LocalFeatures(selection @ patches, maps)
