"""The sizes of a CLIP and the little more that its forward pass depends on."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping

from torch import Tensor

from clip.transformer import ACTIVATIONS

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue over OpenAI's training images, by which images are normalised."""

WIDE_HEADS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
"""Vision width to head width of ViT-H, ViT-g, ViT-bigG and ViT-e; the heads of every other CLIP are 64 wide."""


class WeightsError(ValueError):
    """Weights that cannot be used. The message is one line: the file, what is wrong, what to do."""


@dataclass(frozen=True)
class Architecture:
    """Everything that a CLIP computes with but its weights; the defaults are those of OpenAI's ViT-B/16."""

    embed_dim: int = 512
    image_resolution: int = 224
    patch_size: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    context_length: int = 77
    vocab_size: int = 49408
    text_width: int = 512
    text_layers: int = 12
    vision_mlp_ratio: float = 4.0
    text_mlp_ratio: float = 4.0
    # What the shapes of the weights do not tell:
    vision_head_width: int = 64
    text_head_width: int = 64
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise WeightsError(f"activation {self.activation!r}: only {' and '.join(ACTIVATIONS)} are supported")
        for width, head_width in ((self.vision_width, self.vision_head_width), (self.text_width, self.text_head_width)):
            if head_width < 1 or width % head_width:
                raise WeightsError(f"not a CLIP: width {width} is no multiple of the head width {head_width}")

    @property
    def vision_mlp_width(self) -> int:
        """Hidden width of the MLPs of the image encoder."""
        return round(self.vision_width * self.vision_mlp_ratio)

    @property
    def text_mlp_width(self) -> int:
        """Hidden width of the MLPs of the text encoder."""
        return round(self.text_width * self.text_mlp_ratio)

    @classmethod
    def of(cls, state_dict: Mapping[str, Tensor], activation: str = "quick_gelu", vision_head_width: int | None = None,
           text_head_width: int = 64) -> Architecture:
        """Read the sizes off the shapes of a state dict with OpenAI's names.

        Args:
            state_dict: names to tensors.
            activation: of the feed-forward networks, one of `ACTIVATIONS`; LAION's and DataComp's CLIPs use "gelu".
            vision_head_width: by default that of the released CLIPs of this width.
            text_head_width: 64 in all released CLIPs.

        Raises:
            WeightsError: the tensors are not those of a CLIP with a vision transformer.
        """
        try:
            vision_width, _, patch_size, _ = state_dict["visual.conv1.weight"].shape
            tokens, _ = state_dict["visual.positional_embedding"].shape
            context_length, text_width = state_dict["positional_embedding"].shape
            vocab_size, _ = state_dict["token_embedding.weight"].shape
            _, embed_dim = state_dict["text_projection"].shape
            vision_layers = _count_blocks(state_dict, "visual.transformer.resblocks.")
            text_layers = _count_blocks(state_dict, "transformer.resblocks.")
            vision_mlp_width, _ = state_dict["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape
            text_mlp_width, _ = state_dict["transformer.resblocks.0.mlp.c_fc.weight"].shape
        except KeyError as error:
            raise WeightsError(f"not a CLIP: {error.args[0]} is missing") from None
        except ValueError:
            raise WeightsError("not a CLIP: a weight has the wrong number of dimensions") from None
        if 0 in (vision_width, tokens, patch_size, text_width):
            raise WeightsError("not a CLIP: a weight is empty")
        grid = math.isqrt(tokens - 1)
        if grid * grid != tokens - 1:
            raise WeightsError(f"not a CLIP: {tokens} positions are not [cls] and a square grid of patches")
        return cls(
            embed_dim=embed_dim,
            image_resolution=grid * patch_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=vision_layers,
            context_length=context_length,
            vocab_size=vocab_size,
            text_width=text_width,
            text_layers=text_layers,
            vision_mlp_ratio=vision_mlp_width / vision_width,
            text_mlp_ratio=text_mlp_width / text_width,
            vision_head_width=vision_head_width or WIDE_HEADS.get(vision_width, 64),
            text_head_width=text_head_width,
            activation=activation,
        )


def _count_blocks(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    count = len({key[len(prefix):].split(".")[0] for key in state_dict if key.startswith(prefix)})
    if count == 0:
        raise KeyError(f"{prefix}*")
    return count
