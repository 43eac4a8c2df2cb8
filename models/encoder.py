"""The frozen image encoder: what the method needs of one image, computed once."""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from clip.model import CLIP
from models.masks import complementary_images, high_attention


class Features(NamedTuple):
    """Features of a batch of images, in CLIP's joint space, not normalised."""

    patch_embeddings: Tensor
    """(B, N, D), P: self-only last block."""
    global_embeddings: Tensor
    """(B, 3, D): the plain [cls] embedding, g_H and g_Hc."""


class FrozenEncoder(nn.Module):
    """CLIP with the attention mask of method step 5: three passes an image, no gradients.

    Args:
        clip_model: the frozen CLIP.
        mask_share: share of the patches in H.
        mask_threshold: threshold on the normalised attention, instead of a share.
        attention_layer: layer whose [cls]-to-patch attention makes H; -1 is the last.
    """

    def __init__(self, clip_model: CLIP, mask_share: float = 0.15, mask_threshold: Optional[float] = None,
                 attention_layer: int = -1) -> None:
        super().__init__()
        self.clip = clip_model
        self.mask_share = mask_share
        self.mask_threshold = mask_threshold
        self.attention_layer = attention_layer

    @torch.no_grad()
    def forward(self, images: Tensor) -> Features:
        """Encode (B, 3, H, W) images; both sides are multiples of the patch size."""
        dense = self.clip.encode_image_dense(images, attention_layer=self.attention_layer)
        high = high_attention(dense.cls_attention, self.mask_share, self.mask_threshold)
        masked = complementary_images(images, high, self.clip.visual.patch_size)
        embeddings = [dense.global_embedding] + [self.clip.encode_image(image) for image in masked]
        return Features(dense.patch_embeddings, torch.stack(embeddings, dim=1))
