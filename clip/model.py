"""CLIP with a vision transformer (Radford et al., 2021), under OpenAI's parameter names.

Beside `encode_image` and `encode_text` the model gives what dense, training-free and caption-driven methods ask of
a frozen CLIP: patch embeddings in the joint space, attention weights, attention restricted to a patch mask, and
passes over a subset of the patches. Images are (B, 3, H, W) and normalised as `clip.preprocess` does; H and W may be
any multiples of the patch size. Patches are counted row by row.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64  # every CLIP ViT splits its width into heads of 64
BOOKKEEPING_KEYS = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's archives; shapes tell them


class WeightsError(ValueError):
    """Weights that cannot be used. The message is one line: the file, what is wrong, what to do."""


class DenseFeatures(NamedTuple):
    """What one pass over B images of N patches tells, in the joint space of width D and not normalised."""

    global_embedding: Tensor  # (B, D), the same as `encode_image`
    patch_embeddings: Tensor  # (B, N, D), by default every patch attends only to itself in the last block
    cls_attention: Tensor  # (B, N), what [cls] gives to the patches; with its share for itself a row sums to 1


class PatchAttentions(NamedTuple):
    """Patch embeddings and the attention weights of all blocks."""

    patch_embeddings: Tensor  # (B, N, D), as in `DenseFeatures`
    attentions: Tensor  # (layers, B, N + 1, N + 1), rows are queries and sum to 1, token 0 is [cls]


@dataclass(frozen=True)
class Architecture:
    """Sizes of a CLIP; the defaults are those of ViT-B/16."""

    embed_dim: int = 512
    image_resolution: int = 224
    patch_size: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    context_length: int = 77
    vocab_size: int = 49408
    text_width: int = 512
    text_layers: int = 12

    @classmethod
    def of(cls, state_dict: Mapping[str, Tensor]) -> Architecture:
        """Read the sizes off the shapes of a state dict with OpenAI's names.

        Raises:
            WeightsError: the tensors are not those of a CLIP with a vision transformer.
        """
        if any(key.startswith(("visual.attnpool.", "visual.layer1.")) for key in state_dict):
            raise WeightsError("a CLIP ResNet; only vision transformers have patch tokens, use one such as ViT-B/16")
        if any(key.startswith(("vision_model.", "text_model.")) for key in state_dict):
            raise WeightsError("transformers' parameter names; OpenAI's are needed (visual.conv1.weight, ...)")
        try:
            vision_width, _, patch_size, _ = state_dict["visual.conv1.weight"].shape
            tokens, _ = state_dict["visual.positional_embedding"].shape
            context_length, text_width = state_dict["positional_embedding"].shape
            vocab_size, _ = state_dict["token_embedding.weight"].shape
            _, embed_dim = state_dict["text_projection"].shape
        except KeyError as error:
            raise WeightsError(f"not a CLIP: {error.args[0]} is missing") from None
        except ValueError:
            raise WeightsError("not a CLIP: an embedding or projection has the wrong number of dimensions") from None
        for width in (vision_width, text_width):
            if width % HEAD_WIDTH:
                raise WeightsError(f"not a CLIP: width {width} is no multiple of the head width {HEAD_WIDTH}")
        grid = math.isqrt(tokens - 1)
        if grid * grid != tokens - 1:
            raise WeightsError(f"not a CLIP: {tokens} positions are not [cls] and a square grid of patches")
        return cls(
            embed_dim=embed_dim,
            image_resolution=grid * patch_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=_count_blocks(state_dict, "visual.transformer.resblocks."),
            context_length=context_length,
            vocab_size=vocab_size,
            text_width=text_width,
            text_layers=_count_blocks(state_dict, "transformer.resblocks."),
        )


def _count_blocks(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    count = len({key[len(prefix):].split(".")[0] for key in state_dict if key.startswith(prefix)})
    if count == 0:
        raise WeightsError(f"not a CLIP: no {prefix}*")
    return count


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`.

    Where only token 0 asks, its query is carried through the key projection, and the weights through the value
    projection, instead of projecting every token: q . (W_k x) = (W_k^T q) . x. The bias of the keys shifts all
    logits of a query alike and cancels in the softmax; the weights sum to 1, so the bias of the values is added once.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, L, W) to tokens; `mask` (B, 1, L, L) is True where a query (row) may see a key."""
        query, key, value = self._split_heads(F.linear(x, self.in_proj_weight, self.in_proj_bias), 3)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """Softmax attention of every head between all tokens, (B, heads, L, L)."""
        rows = 2 * x.shape[-1]
        query, key = self._split_heads(F.linear(x, self.in_proj_weight[:rows], self.in_proj_bias[:rows]), 2)
        return (query @ key.transpose(-1, -2) * HEAD_WIDTH**-0.5).softmax(dim=-1)

    def cls_weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Softmax attention of every head from token 0, (B, heads, L), to the tokens where `mask` (B, L) is True."""
        query_weight, key_weight, _ = self.in_proj_weight.chunk(3)
        query = F.linear(x[:, 0], query_weight, self.in_proj_bias.chunk(3)[0]).unflatten(-1, (self.heads, HEAD_WIDTH))
        query = torch.einsum("bhd,hdw->bhw", query, key_weight.unflatten(0, (self.heads, HEAD_WIDTH)))
        logits = (query * HEAD_WIDTH**-0.5) @ x.transpose(1, 2)  # scaled first: the sums stay in the range of fp16
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None], -math.inf)
        return logits.softmax(dim=-1)

    def cls_output(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The first row of `forward`, (B, W)."""
        value_weight = self.in_proj_weight.chunk(3)[2].unflatten(0, (self.heads, HEAD_WIDTH))
        mixed = torch.einsum("bhw,hdw->bhd", self.cls_weights(x, mask) @ x, value_weight).flatten(1)
        return self.out_proj(mixed + self.in_proj_bias.chunk(3)[2])

    def self_only(self, x: Tensor) -> Tensor:
        """Every token attends to itself alone, so attention is its value projection: (B, L, W) to (B, L, W)."""
        return self.out_proj(F.linear(x, self.in_proj_weight.chunk(3)[2], self.in_proj_bias.chunk(3)[2]))

    def _split_heads(self, x: Tensor, parts: int) -> Tensor:
        """(B, L, parts * W) to (parts, B, heads, L, HEAD_WIDTH)."""
        return x.unflatten(-1, (parts, self.heads, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)


class MLP(nn.Module):
    """The block's feed-forward network, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(quick_gelu(self.c_fc(x)))


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), the activation that CLIP was trained with, as a scaled SiLU."""
    return F.silu(x * 1.702) * (1 / 1.702)


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block. The variants differ only in who attends to whom."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self._feed_forward(x + self.attn(self.ln_1(x), mask, is_causal))

    def cls_output(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The first token of `forward`, (B, W), at the cost of that token."""
        return self._feed_forward(x[:, 0] + self.attn.cls_output(self.ln_1(x), mask))

    def self_only(self, x: Tensor) -> Tensor:
        """`forward` where every token attends to itself alone."""
        return self._feed_forward(x + self.attn.self_only(self.ln_1(x)))

    def attention(self, x: Tensor) -> Tensor:
        """Head-averaged attention weights between all tokens, (B, L, L)."""
        return self.attn.weights(self.ln_1(x)).mean(dim=1)

    def cls_attention(self, x: Tensor) -> Tensor:
        """Head-averaged attention weights of token 0, (B, L)."""
        return self.attn.cls_weights(self.ln_1(x)).mean(dim=1)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks over tokens (B, L, W). Residual branches start smaller the deeper the stack, as in CLIP."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width) for _ in range(layers))
        residual_std = width**-0.5 * (2 * layers) ** -0.5
        for block in self.blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=residual_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=residual_std)
            for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                nn.init.zeros_(layer.bias)

    @property
    def blocks(self) -> list[ResidualAttentionBlock]:
        return cast("list[ResidualAttentionBlock]", list(self.resblocks))

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        for block in self.blocks:
            x = block(x, is_causal=is_causal)
        return x


class VisionTransformer(nn.Module):
    """CLIP's image encoder: patches and [cls] through a transformer, then into the joint space."""

    def __init__(self, resolution: int, patch_size: int, width: int, layers: int, embed_dim: int) -> None:
        super().__init__()
        self.input_resolution = resolution
        self.patch_size = patch_size
        tokens = (resolution // patch_size) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)

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
        a = architecture
        self.embed_dim = a.embed_dim
        self.context_length = a.context_length
        self.vocab_size = a.vocab_size
        self.visual = VisionTransformer(
            a.image_resolution, a.patch_size, a.vision_width, a.vision_layers, a.embed_dim,
        )
        self.transformer = Transformer(a.text_width, a.text_layers)
        self.token_embedding = nn.Embedding(a.vocab_size, a.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(a.context_length, a.text_width) * 0.01)
        self.ln_final = nn.LayerNorm(a.text_width)
        self.text_projection = nn.Parameter(torch.randn(a.text_width, a.embed_dim) * a.text_width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @property
    def dtype(self) -> torch.dtype:
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


def build_model(state_dict: Mapping[str, Tensor]) -> CLIP:
    """Make a frozen fp32 CLIP of the tensors' own architecture, in eval mode.

    Raises:
        WeightsError: tensors are missing, unexpected, of the wrong shape or type, or hold NaN or infinities.
    """
    tensors = {key: value for key, value in state_dict.items() if key not in BOOKKEEPING_KEYS}
    with torch.device("meta"):  # no time for random numbers that are overwritten at once
        model = CLIP(Architecture.of(tensors))
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
