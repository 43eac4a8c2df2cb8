"""The similarity kernel: pools the patches that look most like each category (method: S_o = P . w_o); and its start."""
from __future__ import annotations

from typing import Callable, Dict, NamedTuple

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
        text_embeddings: (O, D), or what `KERNEL_STARTS` makes of them.
        k: patches averaged per category (all of them where the image has fewer).
        learned: False keeps the kernel where it starts.
    """

    def __init__(self, text_embeddings: Tensor, k: int, learned: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(text_embeddings.float(), dim=-1), requires_grad=learned)
        self.k = k

    def forward(self, patch_embeddings: Tensor) -> LocalFeatures:
        """Pool (B, N, D) patch embeddings; their length does not matter, only their direction."""
        patches = F.normalize(patch_embeddings, dim=-1)
        maps = F.normalize(self.weight, dim=-1) @ patches.transpose(1, 2)
        strongest = maps.topk(min(self.k, maps.shape[-1]), dim=-1).indices
        mean = mean_by_product if patches.device.type == "mps" else mean_of_rows
        return LocalFeatures(mean(patches, strongest), maps)


def mean_of_rows(patches: Tensor, rows: Tensor) -> Tensor:
    """Means (B, O, D) of the (B, N, D) patches that (B, O, K) rows name, without a (B, O, K, D) tensor in between."""
    first = torch.arange(len(patches), device=patches.device) * patches.shape[1]
    bags = (rows + first[:, None, None]).flatten(0, 1)
    return F.embedding_bag(bags, patches.flatten(0, 1), mode="mean").unflatten(0, rows.shape[:2])


def mean_by_product(patches: Tensor, rows: Tensor) -> Tensor:
    """The same for Apple's GPU, which has no `embedding_bag` before PyTorch 2.10: a product with a sparse matrix."""
    selection = torch.zeros(*rows.shape[:2], patches.shape[1], device=patches.device)
    return selection.scatter_(-1, rows, 1 / rows.shape[-1]) @ patches


def from_text(text_embeddings: Tensor, globals_: Tensor, targets: Tensor) -> Tensor:
    """The embedding of the category's prompt, as in the paper."""
    return F.normalize(text_embeddings, dim=-1)


def from_captions(text_embeddings: Tensor, globals_: Tensor, targets: Tensor) -> Tensor:
    """The mean global feature of the images whose captions name the category, by their labels, minus that of all."""
    directions = F.normalize(globals_, dim=-1)
    mean = directions.mean(dim=0)
    weights = targets / targets.sum(dim=0).clamp_min(1e-6)
    prototypes = F.normalize(weights.T @ directions - mean, dim=-1)
    # A category that no caption names has nothing but its prompt.
    return prototypes.where(targets.sum(dim=0)[:, None] > 0, from_text(text_embeddings, globals_, targets))


def from_both(text_embeddings: Tensor, globals_: Tensor, targets: Tensor) -> Tensor:
    """The sum of both, at unit length each."""
    return F.normalize(from_text(text_embeddings, globals_, targets)
                       + from_captions(text_embeddings, globals_, targets), dim=-1)


KERNEL_STARTS: Dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "text": from_text, "captions": from_captions, "both": from_both}
"""`--kernel_start`: from (O, D) text embeddings, (n, D) plain global features and (n, O) pseudo-labels of the training
images to (O, D) of unit length. Only "text" is the paper's."""
