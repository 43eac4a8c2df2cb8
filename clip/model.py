"""CLIP with a vision transformer (Radford et al., 2021), under OpenAI's parameter names.

Beside `encode_image` and `encode_text` the model gives what dense, training-free and caption-driven methods ask of
a frozen CLIP: patch embeddings in the joint space, attention weights, attention restricted to a patch mask, and
passes over a subset of the patches. Images are (B, 3, H, W) and normalised as `clip.preprocess` does; H and W may be
any multiples of the patch size. Patches are counted row by row.
"""
from __future__ import annotations

import math
from typing import Mapping, NamedTuple, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.architecture import MEAN, STD, Architecture, WeightsError
from clip.layouts import to_openai_names
from clip.transformer import Transformer


class DenseFeatures(NamedTuple):
    """What one pass over B images of N patches tells, in the joint space of width D and not normalised."""

    global_embedding: Tensor  # (B, D), the same as `encode_image`
    patch_embeddings: Tensor  # (B, N, D), by default every patch attends only to itself in the last block
    cls_attention: Tensor  # (B, N), what [cls] gives to the patches; with its share for itself a row sums to 1


class PatchAttentions(NamedTuple):
    """Patch embeddings and the attention weights of all blocks."""

    patch_embeddings: Tensor  # (B, N, D), as in `DenseFeatures`
    attentions: Tensor  # (layers, B, N + 1, N + 1), rows are queries and sum to 1, token 0 is [cls]


class VisionTransformer(nn.Module):
    """CLIP's image encoder: patches and [cls] through a transformer, then into the joint space."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.input_resolution = a.image_resolution
        self.patch_size = a.patch_size
        tokens, width = (a.image_resolution // a.patch_size) ** 2 + 1, a.vision_width
        self.conv1 = nn.Conv2d(3, width, kernel_size=a.patch_size, stride=a.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, a.vision_layers, a.vision_head_width, a.vision_mlp_width, a.activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, a.embed_dim) * width**-0.5)

    def forward(self, images: Tensor, patch_mask: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """See `CLIP.encode_image`."""
        if patch_mask is not None and keep is not None:
            raise ValueError("patch_mask and keep exclude each other: kept patches could be masked instead")
        x = self._embed(images, keep)
        cls_mask = mask = None
        if patch_mask is not None:
            cls_mask = F.pad(patch_mask, (1, 0), value=True)
            mask = torch.ones(x.shape[0], 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
            mask[:, 0, 0] = cls_mask
        *blocks, last = self.transformer.blocks
        for block in blocks:
            x = block(x, mask)
        return self._project(last.cls_output(x, cls_mask))

    def dense(self, images: Tensor, attention_layer: int, self_only: bool) -> DenseFeatures:
        """See `CLIP.encode_image_dense`."""
        blocks = self.transformer.blocks
        if not -len(blocks) <= attention_layer < len(blocks):
            raise ValueError(f"attention_layer {attention_layer} is out of range for {len(blocks)} layers")
        chosen, last = blocks[attention_layer], blocks[-1]
        x = self._embed(images)
        for block in blocks:
            if block is chosen:
                cls_attention = block.cls_attention(x)[:, 1:]
            if block is not last:
                x = block(x)
        if self_only:
            cls, patches = last.cls_output(x), last.self_only(x[:, 1:])
        else:
            cls, patches = (x := last(x))[:, 0], x[:, 1:]
        return DenseFeatures(self._project(cls), self._project(patches), cls_attention)

    def attentions(self, images: Tensor) -> PatchAttentions:
        """See `CLIP.encode_image_attentions`."""
        *blocks, last = self.transformer.blocks
        x = self._embed(images)
        attentions = []
        for block in blocks:
            attentions.append(block.attention(x))
            x = block(x)
        attentions.append(last.attention(x))
        return PatchAttentions(self._project(last.self_only(x[:, 1:])), torch.stack(attentions))

    def take_openai_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Make an encoder of images that are normalised by `mean` and `std` (3,) take images normalised by OpenAI's.

        Normalisation and patch embedding are linear, so that the difference goes into the weights: a factor for each
        channel into the convolution, and the rest, the same for all patches, into their positional embeddings.
        """
        kernel = self.conv1.weight.double()
        our_mean, our_std, their_mean, their_std = map(kernel.new_tensor, (MEAN, STD, mean, std))
        with torch.no_grad():
            self.conv1.weight.copy_(kernel * (our_std / their_std)[:, None, None])
            self.positional_embedding[1:] += torch.einsum("ocyx,c->o", kernel, (our_mean - their_mean) / their_std)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image.

        Raises:
            ValueError: a side is not a positive multiple of the patch size.
        """
        if min(height, width) < 1 or height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height} x {width} pixels: both sides must be positive multiples of the "
                             f"patch size {self.patch_size}")
        return height // self.patch_size, width // self.patch_size

    def _embed(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Images to the tokens of the first block, (B, 1 + patches, W), [cls] first."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
        positions = self._positions(*self.grid(*images.shape[2:]))
        patches = self.conv1(images.type(self.conv1.weight.dtype)).flatten(2).transpose(1, 2) + positions[1:]
        if keep is not None:
            patches = patches.gather(1, keep[:, :, None].expand(-1, -1, patches.shape[2]))
        cls = (self.class_embedding + positions[0]).expand(len(images), 1, -1)
        return self.ln_pre(torch.cat([cls, patches], dim=1))

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Positional embeddings of [cls] and of a grid of patches, resized bilinearly (as in TagCLIP) if need be."""
        side = self.input_resolution // self.patch_size
        if (rows, columns) == (side, side):
            return self.positional_embedding
        square = self.positional_embedding[1:].T.unflatten(1, (side, side))[None]
        resized = F.interpolate(square, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([self.positional_embedding[:1], resized[0].flatten(1).T])

    def _project(self, x: Tensor) -> Tensor:
        return self.ln_post(x) @ self.proj


class CLIP(nn.Module):
    """An image and a text encoder with a joint space; parameters start at random, as for training from scratch."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.embed_dim = a.embed_dim
        self.context_length = a.context_length
        self.vocab_size = a.vocab_size
        self.visual = VisionTransformer(a)
        self.transformer = Transformer(a.text_width, a.text_layers, a.text_head_width, a.text_mlp_width, a.activation)
        self.token_embedding = nn.Embedding(a.vocab_size, a.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(a.context_length, a.text_width) * 0.01)
        self.ln_final = nn.LayerNorm(a.text_width)
        self.text_projection = nn.Parameter(torch.randn(a.text_width, a.embed_dim) * a.text_width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, as OpenAI's CLIP calls it."""
        return self.visual.conv1.weight.dtype

    def encode_image(self, images: Tensor, patch_mask: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Global embeddings of images, (B, D), not normalised.

        Args:
            images: (B, 3, H, W).
            patch_mask: (B, N) bool; [cls] attends in every block only to itself and to the patches that are True
                (TagCLIP's class-wise reidentification). Patches see everything, as ever.
            keep: (B, k) indices of the patches that enter the first block, with their positional embeddings; the
                others are dropped. `k` is free, so an image's two complementary parts take two calls.
        """
        return self.visual(images, patch_mask, keep)

    def encode_image_dense(self, images: Tensor, attention_layer: int = -1, self_only: bool = True) -> DenseFeatures:
        """Global embedding, patch embeddings and [cls]-to-patch attention of images from one pass.

        In the last block a patch attends to itself alone (MaskCLIP, TagCLIP), so it keeps what is local to it;
        [cls] attends to everything, as in `encode_image`. `attention_layer` chooses the block whose head-averaged
        attention is returned. Without `self_only` the last block stays as CLIP has it.
        """
        return self.visual.dense(images, attention_layer, self_only)

    def encode_image_attentions(self, images: Tensor) -> PatchAttentions:
        """Patch embeddings as in `encode_image_dense`, and the head-averaged attention weights of every block.

        The last block's weights are its plain ones, before the patches are made to attend to themselves alone.
        """
        return self.visual.attentions(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embeddings of texts, (B, D), not normalised, from the tokens (B, L) of `clip.tokenize`."""
        end = tokens.argmax(dim=-1)  # the end-of-text token has the highest id
        # Attention is causal: what stands after the last end of text changes nothing, so it is not computed.
        tokens = tokens[:, : int(end.max()) + 1] if len(tokens) else tokens
        embeddings = self.encode_token_embeddings(self.token_embedding(tokens))
        return embeddings[torch.arange(len(end), device=end.device), end]

    def encode_token_embeddings(self, x: Tensor) -> Tensor:
        """Run the text encoder on token embeddings (B, L, text width), such as learned prompts.

        Returns:
            (B, L, D), every token's embedding in the joint space; `encode_text` takes the end of text's.
        """
        if x.shape[1] > self.context_length:
            raise ValueError(f"{x.shape[1]} tokens do not fit the context length {self.context_length}")
        x = self.transformer(x + self.positional_embedding[: x.shape[1]], is_causal=True)
        return self.ln_final(x) @ self.text_projection

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities: logits per image (images, texts) and their transpose, logits per text."""
        image = F.normalize(self.encode_image(images), dim=-1)
        text = F.normalize(self.encode_text(tokens), dim=-1)
        logits_per_image = self.logit_scale.exp() * image @ text.T
        return logits_per_image, logits_per_image.T


def build_model(state_dict: Mapping[str, Tensor], activation: str = "quick_gelu", vision_head_width: int | None = None,
                text_head_width: int = 64) -> CLIP:
    """Make a frozen fp32 CLIP of the tensors' own sizes, in eval mode.

    Args:
        state_dict: names to tensors, as OpenAI, open_clip or transformers name them.
        activation: see `Architecture.of` for this and the head widths, which the tensors do not tell.

    Raises:
        WeightsError: tensors are missing, unexpected, of the wrong shape or type, or hold NaN or infinities.
    """
    tensors = to_openai_names(state_dict)
    with torch.device("meta"):  # no time for random numbers that are overwritten at once
        model = CLIP(Architecture.of(tensors, activation, vision_head_width, text_head_width))
    _check_tensors(tensors, model.state_dict())
    # A copy in fp32: released weights are fp16, which CPUs multiply slowly, and the caller's tensors stay his own.
    model.load_state_dict({key: value.to(torch.float32, copy=True) for key, value in tensors.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    problems = {
        "missing": [key for key in expected if key not in tensors],
        "unexpected": [key for key in tensors if key not in expected],
        "wrong shape": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in expected if key in tensors and tensors[key].shape != expected[key].shape
        ],
        "not floating point": [key for key, tensor in tensors.items() if not tensor.is_floating_point()],
    }
    for problem, keys in problems.items():
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise WeightsError(f"not a CLIP of this architecture: {problem}: {', '.join(keys[:3])}{more}")
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"damaged weights: {key} holds NaN or infinite values; get the file again")
