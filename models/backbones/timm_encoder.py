"""Any image network of timm as the frozen encoder: ResNets, ConvNeXt, EfficientNets, DINOv2, SigLIP's image tower."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.images import ImageTransform, image_transform
from models.backbones.reduction import Reduction
from models.encoder import PRECISIONS, Features, FrozenEncoder, digest_tensors
from models.masks import complementary_images, high_attention


class WideFeatures(NamedTuple):
    """What a network says of a batch of images, at its own width."""

    patches: Tensor
    """(B, N, W): what its head makes of one position alone, as CLIP's self-only last block does."""
    whole: Tensor
    """(B, W): what its head makes of all positions."""


class TimmEncoder(FrozenEncoder):
    """A network of timm, without gradients. Before it encodes it needs a reduction, by `reduce_by`.

    Args:
        model: the network, for inputs of `resolution`.
        name: timm's name of it.
        resolution: side of the input in pixels.
        masked_globals: make g_H and g_Hc by the attention of [cls] in the last block; removed patches are painted
            black. Otherwise the plain global features stand in their places.
        mask_share: see `FrozenEncoder`.
        mask_threshold: see `FrozenEncoder`.
        precision: of the matrix products, by autocast where it is not that of the weights.

    Raises:
        ValueError: `masked_globals` is asked of a network that has no [cls] token or no plain attention.
    """

    def __init__(self, model: Any, name: str, resolution: int, masked_globals: bool = False, mask_share: float = 0.15,
                 mask_threshold: Optional[float] = None, precision: str = "fp32") -> None:
        super().__init__()
        self.model = model.eval()
        self.name = name
        self.resolution = resolution
        self.masked_globals = masked_globals
        self.mask_share = mask_share
        self.mask_threshold = mask_threshold
        self.precision = precision
        self.mean, self.std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        self._reduction: Optional[Reduction] = None
        if masked_globals:
            self._cls_attention()
        self._grid = self._probe()

    @property
    def transform(self) -> ImageTransform:
        """See `FrozenEncoder`; normalised as the network was trained."""
        return image_transform(self.resolution, mean=self.mean, std=self.std)

    def grid(self, height: int, width: int) -> Tuple[int, int]:
        """See `FrozenEncoder`; all inputs are squashed to one size."""
        return self._grid

    @property
    def embed_dim(self) -> int:  # type: ignore[override]
        """D, after the reduction."""
        return self._fitted().components.shape[1]

    def reduce_by(self, reduction: Reduction) -> None:
        """Set what brings the features of the network to D."""
        self._reduction = Reduction(*(part.to(self.device) for part in reduction))

    @torch.no_grad()
    def wide(self, images: Tensor) -> WideFeatures:
        """Features of (B, 3, H, W) images before the reduction."""
        with torch.autocast(images.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"):
            maps = self.model.forward_features(images)
            whole = self._head(maps)
            patches = self._head(self._positions(maps)).view(len(images), -1, whole.shape[-1])
        return WideFeatures(patches.float(), whole.float())

    @torch.no_grad()
    def forward(self, images: Tensor) -> Features:
        """See `FrozenEncoder`."""
        wide, reduction = self.wide(images), self._fitted()
        wholes = [wide.whole] * 3
        if self.masked_globals:
            high = high_attention(self.attention(images), self.mask_share, self.mask_threshold)
            wholes[1:] = [self.wide(masked).whole for masked in complementary_images(
                images, high, self.resolution // self._grid[0], self.mean, self.std)]
        return Features(reduction.patches(wide.patches), reduction.globals(torch.stack(wholes, dim=1)))

    def encode_whole(self, images: Tensor) -> Tensor:
        """See `FrozenEncoder`."""
        return self._fitted().globals(self.wide(images).whole)

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """See `FrozenEncoder`: [cls] to patches in the last block, the mean over its heads."""
        layer = self._cls_attention()
        seen: List[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model.forward_features(images)
        finally:
            hook.remove()
        queries, keys, _ = layer.qkv(seen[0]).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys = layer.q_norm(queries[:, :, :1]), layer.k_norm(keys)
        attention = (layer.scale * queries @ keys.transpose(-2, -1)).softmax(dim=-1).mean(dim=1)[:, 0]
        return attention[:, self.model.num_prefix_tokens:]

    def identity(self) -> Dict[str, str]:
        """See `FrozenEncoder`."""
        return {"network": self.name, "weights": self._digest(), "reduction": digest_tensors(self.state())}

    def options(self) -> Dict[str, Any]:
        """See `FrozenEncoder`."""
        masks = {"mask_share": self.mask_share, "mask_threshold": self.mask_threshold} if self.masked_globals else {}
        return {"masked_globals": self.masked_globals, "precision": self.precision, **masks}

    def facts(self) -> Dict[str, Any]:
        """See `FrozenEncoder`."""
        return {"weights_sha256": self._digest(), "reduction_sha256": digest_tensors(self.state())}

    def state(self) -> Dict[str, Tensor]:
        """See `FrozenEncoder`: the reduction."""
        return {name: value.cpu() for name, value in self._fitted()._asdict().items()}

    def fitting_key(self) -> Dict[str, str]:
        """What the features before the reduction depend on beside the images, as part of a key."""
        return {"network": self.name, "weights": self._digest(), "precision": self.precision}

    def _digest(self) -> str:
        return digest_tensors(self.model.state_dict(), self.name)

    def _fitted(self) -> Reduction:
        if self._reduction is None:
            raise RuntimeError("the encoder has no reduction yet")
        return self._reduction

    def _head(self, maps: Tensor) -> Tensor:
        return self.model.forward_head(maps, pre_logits=True).flatten(1)

    def _positions(self, maps: Tensor) -> Tensor:
        """Each position as an input of the head of its own."""
        if maps.dim() == 4:
            last = _channels_last(self.model, maps)
            return last.flatten(0, 2)[:, None, None] if last is maps else last.flatten(0, 2)[:, :, None, None]
        patches = maps[:, self.model.num_prefix_tokens:].flatten(0, 1)[:, None]
        if self.model.global_pool in ("token", "map", ""):
            return patches
        return F.pad(patches, (0, 0, self.model.num_prefix_tokens, 0))  # the head leaves the first tokens out

    def _cls_attention(self) -> Any:
        """The attention layer of the last block."""
        from timm.models.vision_transformer import Attention
        layer = getattr(self.model.blocks[-1], "attn", None) if hasattr(self.model, "blocks") else None
        if getattr(self.model, "cls_token", None) is None or type(layer) is not Attention:
            raise ValueError(f"{self.name} has no [cls] token whose attention could make masks")
        return layer

    @torch.no_grad()
    def _probe(self) -> Tuple[int, int]:
        maps = self.model.forward_features(torch.zeros(1, 3, self.resolution, self.resolution, device=self.device))
        if maps.dim() == 4:
            rows, columns = _channels_last(self.model, maps).shape[1:3]
            return int(rows), int(columns)
        side = round((maps.shape[1] - self.model.num_prefix_tokens) ** 0.5)
        return side, side


def _channels_last(model: nn.Module, maps: Tensor) -> Tensor:
    """(B, H, W, C) of a network's feature maps."""
    return maps if getattr(model, "output_fmt", "NCHW") == "NHWC" else maps.permute(0, 2, 3, 1)
