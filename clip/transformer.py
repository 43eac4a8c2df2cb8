"""The transformer of both of CLIP's encoders, with the kinds of attention that dense features ask for."""
from __future__ import annotations

import math
from typing import Callable, Dict, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), the activation that OpenAI trained with, as a scaled SiLU.

    Overwrites `x` unless a gradient is asked for: new memory for each step costs more than the step.
    """
    if x.requires_grad:
        return F.silu(x * 1.702) * (1 / 1.702)
    return F.silu(x.mul_(1.702), inplace=True).mul_(1 / 1.702)


ACTIVATIONS: Dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}
"""By name; they may overwrite their argument."""


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`.

    Where only token 0 asks, its query is carried through the key projection, and the weights through the value
    projection, instead of projecting every token: q . (W_k x) = (W_k^T q) . x. The bias of the keys shifts all
    logits of a query alike and cancels in the softmax; the weights sum to 1, so the bias of the values is added once.
    """

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = width // head_width
        self.head_width = head_width
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
        return (query @ key.transpose(-1, -2) * self.head_width**-0.5).softmax(dim=-1)

    def cls_weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Softmax attention of every head from token 0, (B, heads, L), to the tokens where `mask` (B, L) is True."""
        query_weight, key_weight, _ = self.in_proj_weight.chunk(3)
        query = F.linear(x[:, 0], query_weight, self.in_proj_bias.chunk(3)[0])
        query = torch.einsum("bhd,hdw->bhw", query.unflatten(-1, (self.heads, self.head_width)),
                             key_weight.unflatten(0, (self.heads, self.head_width)))
        logits = (query * self.head_width**-0.5) @ x.transpose(1, 2)  # scaled first: sums stay in the range of fp16
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None], -math.inf)
        return logits.softmax(dim=-1)

    def cls_output(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The first row of `forward`, (B, W)."""
        value_weight = self.in_proj_weight.chunk(3)[2].unflatten(0, (self.heads, self.head_width))
        mixed = torch.einsum("bhw,hdw->bhd", self.cls_weights(x, mask) @ x, value_weight).flatten(1)
        return self.out_proj(mixed + self.in_proj_bias.chunk(3)[2])

    def self_only(self, x: Tensor) -> Tensor:
        """Every token attends to itself alone, so attention is its value projection: (B, L, W) to (B, L, W)."""
        return self.out_proj(F.linear(x, self.in_proj_weight.chunk(3)[2], self.in_proj_bias.chunk(3)[2]))

    def _split_heads(self, x: Tensor, parts: int) -> Tensor:
        """(B, L, parts * W) to (parts, B, heads, L, head width)."""
        return x.unflatten(-1, (parts, self.heads, self.head_width)).permute(2, 0, 3, 1, 4)


class MLP(nn.Module):
    """The block's feed-forward network."""

    def __init__(self, width: int, hidden_width: int, activation: str) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden_width)
        self.activation = ACTIVATIONS[activation]
        self.c_proj = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., W) to tokens, each by itself."""
        return self.c_proj(self.activation(self.c_fc(x)))


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block. The variants differ only in who attends to whom."""

    def __init__(self, width: int, head_width: int, mlp_width: int, activation: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, head_width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, L, W) to tokens; `mask` and `is_causal` as `Attention` has them."""
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

    def __init__(self, width: int, layers: int, head_width: int, mlp_width: int, activation: str) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, head_width, mlp_width, activation) for _ in range(layers))
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
        """The blocks, the first one first."""
        return cast("list[ResidualAttentionBlock]", list(self.resblocks))

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        """Tokens (B, L, W) to tokens; `is_causal` hides from each what stands behind it."""
        for block in self.blocks:
            x = block(x, is_causal=is_causal)
        return x
