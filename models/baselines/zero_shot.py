"""CLIP zero-shot: the baseline that needs no training."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def zero_shot_scores(global_embeddings: Tensor, text_embeddings: Tensor, softmax: bool = True) -> Tensor:
    """Scores of images against prompts.

    Args:
        global_embeddings: (n, D).
        text_embeddings: (C, D).
        softmax: p = softmax over the categories of 100 cos, as is usual; False ranks by the raw cosine.

    Returns:
        (n, C).
    """
    cosines = F.normalize(global_embeddings, dim=-1) @ F.normalize(text_embeddings, dim=-1).T
    return (100 * cosines).softmax(dim=-1) if softmax else cosines
