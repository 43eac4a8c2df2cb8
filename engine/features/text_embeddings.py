"""Text embeddings of the categories."""
from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import clip
from clip.model import CLIP
from datasets.files import read_json
from datasets.names import prompt_name

PROMPT_SETS = {"single": ("single",), "ensemble": ("imagenet", "scene")}
"""`--prompts`: the lists of prompts.json that make a set. One template, or the 80 of ImageNet (OpenAI) with five that
end "in the scene" (ViLD)."""


def load_templates(prompts: str) -> List[str]:
    """The templates of a prompt set or of a list of prompts.json, with {} for the category."""
    lists = read_json(Path(str(resources.files("datasets").joinpath("prompts.json"))))
    return [template for name in PROMPT_SETS.get(prompts, (prompts,)) for template in lists[name]]


def encode_categories(clip_model: CLIP, categories: Sequence[str], prompts: str = "single") -> Tensor:
    """`encode_words` of what stands for each category in a prompt, (O, D)."""
    return encode_words(clip_model, [prompt_name(category) for category in categories], prompts)


@torch.no_grad()
def encode_words(clip_model: CLIP, words: Sequence[str], prompts: str = "single") -> Tensor:
    """Normalised mean of each word's normalised prompt embeddings, (O, D) in float32.

    Args:
        clip_model: the frozen CLIP.
        words: O words or phrases, put into the prompts as they are.
        prompts: one of `PROMPT_SETS`.
    """
    device = next(clip_model.parameters()).device
    templates = load_templates(prompts)
    embeddings = []
    for word in words:
        texts = [template.format(word) for template in templates]
        tokens = clip.tokenize(texts, clip_model.context_length).to(device)
        prompt_embeddings = F.normalize(clip_model.encode_text(tokens).float(), dim=-1)
        embeddings.append(F.normalize(prompt_embeddings.mean(dim=0), dim=-1))
    return torch.stack(embeddings)
