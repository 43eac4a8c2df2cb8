"""The model before the first step, and the vocabulary that it reads."""
from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import CLIP, Architecture, tokenize
from datasets.names import prompt_name
from datasets.registry import get_dataset
from engine.features.text_embeddings import load_templates
from mini.clip_training.batches import resize, to_tensor
from mini.clip_training.pictures import Pool
from mini.clip_training.recipe import PATCH_SIZE, Recipe

FIRST_SCENES = 256
"""Scenes that give the principal components of patches."""
_MAX_TOKENS = 16
"""Longer captions are cut in training; they only repeat themselves."""


class Vocabulary:
    """The tokens of some texts, numbered densely: training need not carry the rows that nobody uses.

    The order of ids stays, so the end of text keeps the highest one, as CLIP's text encoder expects.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.token_ids: List[int] = sorted({*_tokenize(texts).flatten().tolist()})
        self._dense = torch.zeros(self.token_ids[-1] + 1, dtype=torch.long)
        self._dense[self.token_ids] = torch.arange(len(self.token_ids))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(n, 16) dense ids."""
        return self._dense[_tokenize(texts)]


def _tokenize(texts: Sequence[str]) -> Tensor:
    return tokenize(list(texts), context_length=_MAX_TOKENS, truncate=True)


def initial_model(recipe: Recipe) -> CLIP:
    """A CLIP with random weights that follow from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return CLIP(Architecture(
        embed_dim=recipe.embed_dim, image_resolution=recipe.resolution, patch_size=PATCH_SIZE,
        vision_width=recipe.width, vision_layers=recipe.vision_layers, text_width=recipe.width,
        text_layers=recipe.text_layers,
    ))


@torch.no_grad()
def init_patch_embedding(model: CLIP, pixels: Tensor) -> None:
    """Set the patch embedding to the principal components of the patches of some images, (n, 3, H, W) normalised.

    The components are scaled to equal variance, up to a floor for the faintest: without this start a small model
    sees little but brightness for thousands of steps.
    """
    size, width = model.visual.patch_size, len(model.visual.conv1.weight)
    patches = F.unfold(pixels, size, stride=size).transpose(1, 2).flatten(0, 1)
    variances, components = torch.linalg.eigh(torch.cov(patches.T.double()))
    variances, components = variances.flip(0)[:width], components.flip(1)[:, :width]
    components = components * components.sum(0).sign()  # eigenvectors come with any sign
    scale = (variances + variances[width // 4]).rsqrt()
    model.visual.conv1.weight.copy_((components * scale).T.view_as(model.visual.conv1.weight))


def start(recipe: Recipe, pool: Pool) -> Tuple[CLIP, Vocabulary]:
    """The model before the first step, over a dense vocabulary of what the captions and the prompts say."""
    model = initial_model(recipe)
    prompts = [template.format(prompt_name(name)) for template in load_templates("single")
               for name in get_dataset("mini").categories]
    vocabulary = Vocabulary([text for texts in pool.captions for text in texts] + prompts)
    table = model.token_embedding.weight.detach()[vocabulary.token_ids]
    model.token_embedding = torch.nn.Embedding.from_pretrained(table, freeze=False)
    first = torch.from_numpy(pool.pixels[:FIRST_SCENES]).permute(0, 3, 1, 2)
    init_patch_embedding(model, to_tensor(resize(first, recipe.resolution)))
    return model, vocabulary


def full_state_dict(model: CLIP, vocabulary: Vocabulary, recipe: Recipe) -> Dict[str, Tensor]:
    """The trained weights in fp16 with the token table of full height, as OpenAI's archives have it."""
    table = initial_model(recipe).token_embedding.weight.detach().clone()
    table[vocabulary.token_ids] = model.token_embedding.weight.detach()
    weights = {**model.state_dict(), "token_embedding.weight": table}
    return {name: value.half() for name, value in weights.items()}
