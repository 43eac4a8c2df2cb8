"""TaI-DPT (Guo et al., CVPR 2023): prompts learned from texts in place of images, on a frozen CLIP.

A caption's end-of-text embedding stands for an image's global embedding, its tokens stand for patches. Two learned
contexts make two embeddings of every class: one is compared with what is global, the other with what is local.
"""
from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clip
from clip.model import CLIP

SCORE_SCALE = 4.0
"""Factor of the cosines in both scores; with it the margin of 1 in the loss is a cosine of 0.25."""

TEXT_SCALE = 50.0
"""Inverse temperature of the softmax over the tokens of a text, as the authors have it."""


class Content(NamedTuple):
    """What a batch of texts or images holds."""

    global_embeddings: Tensor
    """(B, D) end-of-text or [cls] embeddings."""
    local_embeddings: Tensor
    """(B, L, D) of tokens or patches."""
    valid: Optional[Tensor] = None
    """(B, L) bool, False where a text has ended already; None where all are valid."""


class Scores(NamedTuple):
    """Both scores of each class, (B, C)."""

    global_scores: Tensor
    local_scores: Tensor

    @property
    def merged(self) -> Tensor:
        """What is ranked at test time: 0.5 / 0.5."""
        return (self.global_scores + self.local_scores) / 2


class DualPrompts(nn.Module):
    """Two learned contexts before the name of each class. CLIP itself is given with each call and stays frozen.

    Args:
        clip_model: the frozen CLIP.
        words: what stands for each of the C classes in a prompt.
        num_context: learned tokens a context, shared by all classes.
    """

    _start: Tensor
    _names: Tensor
    _ends: Tensor

    def __init__(self, clip_model: CLIP, words: Sequence[str], num_context: int = 16) -> None:
        super().__init__()
        width = clip_model.token_embedding.embedding_dim
        placeholder = " ".join(["x"] * num_context)
        device = clip_model.token_embedding.weight.device
        tokens = clip.tokenize([f"{placeholder} {name}." for name in words],
                               clip_model.context_length).to(device)
        self.contexts = nn.Parameter(0.02 * torch.randn(2, num_context, width, device=device))
        # Not in the state dict: they are the frozen CLIP's.
        self.register_buffer("_ends", tokens.argmax(dim=-1), persistent=False)
        embedded = clip_model.token_embedding(tokens[:, :int(self._ends.max()) + 1]).detach()
        self.register_buffer("_start", embedded[:, :1], persistent=False)
        self.register_buffer("_names", embedded[:, 1 + num_context:], persistent=False)

    def forward(self, clip_model: CLIP) -> Tensor:
        """Normalised class embeddings, (2, C, D): for what is global and for what is local."""
        rows = torch.arange(len(self._ends), device=self._ends.device)
        embeddings = []
        for context in self.contexts:
            prompts = torch.cat([self._start, context.expand(len(rows), -1, -1), self._names], dim=1)
            embeddings.append(clip_model.encode_token_embeddings(prompts)[rows, self._ends])
        return F.normalize(torch.stack(embeddings), dim=-1)


@torch.no_grad()
def text_content(clip_model: CLIP, tokens: Tensor) -> Content:
    """What texts hold, from the tokens (B, L) of `clip.tokenize`; tokens after the end of text are not valid."""
    ends = tokens.argmax(dim=-1)
    length = int(ends.max()) + 1
    embeddings = clip_model.encode_token_embeddings(clip_model.token_embedding(tokens[:, :length]))
    rows, places = (torch.arange(count, device=tokens.device) for count in (len(tokens), length))
    return Content(embeddings[rows, ends], embeddings, places <= ends[:, None])


def class_scores(class_embeddings: Tensor, content: Content, scale: float) -> Scores:
    """Global score 4 cos(g, t); local score 4 sum_j softmax_j(scale q_j) q_j with q_j = cos(token or patch j, t').

    Args:
        class_embeddings: (2, C, D), normalised.
        content: of B texts or images.
        scale: inverse temperature of the softmax over tokens (`TEXT_SCALE`) or patches.
    """
    global_scores = F.normalize(content.global_embeddings, dim=-1) @ class_embeddings[0].T
    cosines = F.normalize(content.local_embeddings, dim=-1) @ class_embeddings[1].T  # (B, L, C)
    weights = scale * cosines
    if content.valid is not None:
        weights = weights.masked_fill(~content.valid[:, :, None], -torch.inf)
    local_scores = (weights.softmax(dim=1) * cosines).sum(dim=1)
    return Scores(SCORE_SCALE * global_scores, SCORE_SCALE * local_scores)


def pair_ranking_loss(scores: Tensor, positive: Tensor) -> Tensor:
    """Sum over (positive, negative) pairs of max(0, 1 - s_pos + s_neg), mean over the batch; both are (B, C)."""
    hinge = F.relu(1 - scores[:, :, None] + scores[:, None, :])
    pairs = positive[:, :, None] & ~positive[:, None, :]
    return (hinge * pairs).sum() / len(scores)
