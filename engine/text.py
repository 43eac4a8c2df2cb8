"""Text embeddings of the categories."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import clip
from clip.model import CLIP
from datasets.names import prompt_name

PROMPTS = ("a photo of a {}.",)


@torch.no_grad()
def encode_categories(clip_model: CLIP, categories: Sequence[str], templates: Sequence[str] = PROMPTS) -> Tensor:
    """Normalised mean of each category's normalised prompt embeddings, (O, D) in float32."""
    device = next(clip_model.parameters()).device
    embeddings = []
    for category in categories:
        tokens = clip.tokenize([template.format(prompt_name(category)) for template in templates]).to(device)
        prompts = F.normalize(clip_model.encode_text(tokens).float(), dim=-1)
        embeddings.append(F.normalize(prompts.mean(dim=0), dim=-1))
    return torch.stack(embeddings)
