"""The contrastive loss over images and captions."""
from __future__ import annotations

import math
from typing import Dict

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import CLIP
from mini.clip_training.recipe import Recipe


def contrastive_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Symmetric cross-entropy of (B, B) logits; the target of a row is spread over its `positives` (B, B bool)."""
    targets = positives.float()
    rows = -(targets / targets.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(targets / targets.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


def losses(model: CLIP, images: Tensor, tokens: Tensor, recipe: Recipe) -> Dict[str, Tensor]:
    """The losses of a batch.

    Args:
        model: the CLIP, over the dense vocabulary.
        images: (B, 3, R, R).
        tokens: (B, L), their captions.
        recipe: weighs them.
    """
    scale = model.logit_scale.exp().clamp(max=100)
    text = F.normalize(model.encode_text(tokens), dim=-1)
    positives = (tokens[:, None] == tokens[None]).all(-1)
    dense = model.encode_image_dense(images)
    contrastive = contrastive_loss(scale * F.normalize(dense.global_embedding, dim=-1) @ text.T, positives)
    patches = F.normalize(dense.patch_embeddings, dim=-1)
    similarities = torch.einsum("ind,td->itn", patches, text)
    instance = contrastive_loss((scale * similarities).logsumexp(-1) - math.log(patches.shape[1]), positives)
    total = contrastive + recipe.instance_weight * instance
    return {"loss": total, "contrastive": contrastive, "instance": instance}
