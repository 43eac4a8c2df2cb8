"""The frozen image encoder: what the method needs of one image, computed once; and CLIP as the paper takes it."""
from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from clip.model import CLIP, DenseFeatures, VisionTransformer
from datasets.images import ImageTransform, image_transform
from models.masks import complementary_images, high_attention, high_count


class Features(NamedTuple):
    """Features of a batch of images, all in one space (CLIP's joint one), not normalised."""

    patch_embeddings: Tensor
    """(B, N, D), P: self-only last block, or the plain one."""
    global_embeddings: Tensor
    """(B, 3, D): the plain [cls] embedding, g_H and g_Hc; (B, 3 + T, D) with the plain ones of T tiles behind."""


MASK_MODES = ("pixel", "token")
PATCH_ATTENTIONS = ("self", "full")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FrozenEncoder(nn.Module, ABC):
    """Any frozen network that gives an image patch features and global ones of one space, without gradients.

    What trains, evaluates, draws or tags asks for no more than this.
    """

    resolution: int
    """Side of the input in pixels. What is encoded, cropped or drawn asks here."""
    embed_dim: int
    """D, of all features."""
    mask_share: float = 0.15
    """Share of the patches in H."""
    mask_threshold: Optional[float] = None
    """Threshold on the normalised attention, instead of a share."""

    @property
    def text_tower(self) -> Optional[CLIP]:
        """What embeds words in the space of the features; None where nothing does."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    @abstractmethod
    def transform(self) -> ImageTransform:
        """A photo as the encoder takes it: squashed to `resolution` and normalised."""

    @abstractmethod
    def grid(self, height: int, width: int) -> Tuple[int, int]:
        """Rows and columns of the patches of an input of this size in pixels."""

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Encode (B, 3, H, W) images."""

    @abstractmethod
    def encode_whole(self, images: Tensor) -> Tensor:
        """The plain global features (B, D) of (B, 3, H, W) images alone."""

    @abstractmethod
    def attention(self, images: Tensor) -> Tensor:
        """(B, N) attention of which H is made.

        Raises:
            ValueError: the network has none.
        """

    @abstractmethod
    def identity(self) -> Dict[str, str]:
        """What the plain global features depend on beside the images: digests of the weights, as part of a key."""

    @abstractmethod
    def options(self) -> Dict[str, Any]:
        """What patches and masked globals depend on besides, as part of a key."""

    @abstractmethod
    def facts(self) -> Dict[str, Any]:
        """What config.json and checkpoints say of the network, "weights_sha256" among it."""

    def state(self) -> Dict[str, Tensor]:
        """What was fitted to the training images, for checkpoints; nothing of CLIP."""
        return {}


def weights_digest(model: Union[CLIP, VisionTransformer]) -> str:
    """SHA-256 over all that the numbers of a CLIP, or of its image encoder, depend on.

    That is the names and values of the weights, and the activation and the head widths where they are not OpenAI's:
    so the digests of OpenAI's are those of the weights alone.
    """
    told = [f"{field.name} {getattr(model.architecture, field.name)}"
            for field in dataclasses.fields(model.architecture)
            if field.name in ("activation", "vision_head_width", "text_head_width")
            and getattr(model.architecture, field.name) != field.default]
    return digest_tensors(model.state_dict(), "".join(told))


def digest_tensors(tensors: Mapping[str, Tensor], told: str = "") -> str:
    """SHA-256 over a text and the names and values of tensors."""
    digest = hashlib.sha256(told.encode())
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def clip_facts(model: CLIP) -> Dict[str, Any]:
    """What config.json and checkpoints say of the CLIP that a run stands on."""
    return {"weights_sha256": weights_digest(model), "activation": model.architecture.activation,
            "head_width": model.architecture.vision_head_width}


CLIP_OPTIONS = ("mask_share", "mask_threshold", "attention_layer", "mask_mode", "patch_attention", "precision")
"""Attributes of a `CLIPEncoder` that its features depend on, beside weights and resolution."""


class CLIPEncoder(FrozenEncoder):
    """CLIP with the attention mask of method step 5, without gradients.

    Args:
        clip_model: the frozen CLIP.
        mask_share: share of the patches in H.
        mask_threshold: threshold on the normalised attention, instead of a share.
        attention_layer: layer whose [cls]-to-patch attention makes H; -1 is the last.
        patch_attention: what a patch attends to in the last block: "self" alone (as MaskCLIP and TagCLIP have it), or
            to all, "full", as CLIP was trained.
        mask_mode: "pixel" paints the removed patches black, as the paper does, at three passes an image; "token"
            leaves them out of the transformer, so that the two masked images cost one pass together.
        resolution: side of the input in pixels, a multiple of the patch; CLIP's own where it is None. Position
            embeddings are interpolated.
        precision: of the matrix products, by autocast where it is not that of the weights.
        compiled: fuse what is between the products by `torch.compile`, which takes a C++ compiler and half a minute.
    """

    def __init__(self, clip_model: CLIP, mask_share: float = 0.15, mask_threshold: Optional[float] = None,
                 attention_layer: int = -1, mask_mode: str = "pixel", patch_attention: str = "self",
                 resolution: Optional[int] = None, precision: str = "fp32", compiled: bool = False) -> None:
        super().__init__()
        if mask_mode not in MASK_MODES:
            raise ValueError(f"mask_mode is {mask_mode!r}; choose one of {', '.join(MASK_MODES)}")
        if patch_attention not in PATCH_ATTENTIONS:
            raise ValueError(f"patch_attention is {patch_attention!r}; choose one of {', '.join(PATCH_ATTENTIONS)}")
        if resolution is not None and resolution % clip_model.visual.patch_size:
            raise ValueError(f"resolution is {resolution}, no multiple of the patch of {clip_model.visual.patch_size}")
        self.clip = clip_model
        self.embed_dim = clip_model.embed_dim
        self.resolution = resolution or clip_model.visual.input_resolution
        self.mask_share = mask_share
        self.mask_threshold = mask_threshold
        self.attention_layer = attention_layer
        self.mask_mode = mask_mode
        self.patch_attention = patch_attention
        self.precision = precision
        dense, single = clip_model.encode_image_dense, clip_model.encode_image
        self._encode_image_dense = torch.compile(dense) if compiled else dense
        self._encode_image = torch.compile(single) if compiled else single

    @property
    def transform(self) -> ImageTransform:
        """See `FrozenEncoder`."""
        return image_transform(self.resolution)

    @property
    def text_tower(self) -> CLIP:
        """See `FrozenEncoder`."""
        return self.clip

    def grid(self, height: int, width: int) -> Tuple[int, int]:
        """See `FrozenEncoder`."""
        return self.clip.visual.grid(height, width)

    def identity(self) -> Dict[str, str]:
        """See `FrozenEncoder`; of the image encoder alone."""
        return {"weights": weights_digest(self.clip.visual)}

    def options(self) -> Dict[str, Any]:
        """See `FrozenEncoder`."""
        return {name: getattr(self, name) for name in CLIP_OPTIONS}

    def facts(self) -> Dict[str, Any]:
        """See `FrozenEncoder`; of the whole CLIP."""
        return clip_facts(self.clip)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Features:
        """Encode (B, 3, H, W) images; both sides are multiples of the patch size."""
        dense = self.dense(images)
        with self._autocast(images):
            high = high_attention(dense.cls_attention, self.mask_share, self.mask_threshold)
            masked = (self._encode_tokens if self.mask_mode == "token" else self._encode_pixels)(images, high)
        return Features(dense.patch_embeddings, torch.stack([dense.global_embedding, *masked], dim=1))

    @torch.no_grad()
    def dense(self, images: Tensor) -> DenseFeatures:
        """The pass over the whole images (B, 3, H, W) alone, without g_H and g_Hc."""
        with self._autocast(images):
            return self._encode_image_dense(images, self.attention_layer, self.patch_attention == "self")

    @torch.no_grad()
    def encode_whole(self, images: Tensor) -> Tensor:
        """See `FrozenEncoder`."""
        return self.clip.encode_image(images)

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """See `FrozenEncoder`: [cls] to patches."""
        return self.clip.encode_image_dense(images, self.attention_layer).cls_attention

    def _autocast(self, images: Tensor) -> torch.autocast:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(images.device.type, dtype, enabled=dtype is not torch.float32)

    def _encode_pixels(self, images: Tensor, high: Tensor) -> List[Tensor]:
        """g_H and g_Hc, (B, D) each, of images whose other patches are black."""
        return [self._encode_image(masked)
                for masked in complementary_images(images, high, self.clip.visual.patch_size)]

    def _encode_tokens(self, images: Tensor, high: Tensor) -> List[Tensor]:
        """g_H and g_Hc, (B, D) each, of the patches of H and of the others alone."""
        order = high.int().argsort(dim=1, descending=True, stable=True)  # H first, each part in the order of the image
        if self.mask_threshold is None:
            count = high_count(high.shape[1], self.mask_share)
            return [self._encode_image(images, keep=keep) for keep in (order[:, :count], order[:, count:])]
        embeddings = torch.zeros(2, len(images), self.clip.embed_dim, device=images.device)
        counts = high.sum(dim=1)
        for count in counts.unique().tolist():  # images with H of one size go together
            rows = (counts == count).nonzero()[:, 0]
            for part, keep in enumerate((order[rows, :count], order[rows, count:])):
                embeddings[part, rows] = self._encode_image(images[rows], keep=keep).float()
        return list(embeddings)
