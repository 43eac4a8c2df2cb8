"""Everything that decides the weights of the mini CLIP."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Tuple

PATCH_SIZE = 16


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 7
    num_scenes: int = 24000
    num_portraits: int = 24000
    steps: int = 15000
    learning_rate: float = 7e-4
    mixed_steps: int = 9000
    """After the steps on scenes alone, those on scenes and portraits, with a schedule of their own."""
    mixed_learning_rate: float = 5e-4
    batch_size: int = 64
    weight_decay: float = 0.05
    warmup: int = 100
    resolution: int = 128
    early_resolution: int = 96
    early_share: float = 0.85
    """Share of the steps at the early resolution, which are twice as fast."""
    width: int = 128
    vision_layers: int = 3
    text_layers: int = 2
    embed_dim: int = 128
    instance_weight: float = 1.0
    blackout: float = 0.1
    """Share of the images of a batch in which random patches are black (random erasing)."""


class Phase(NamedTuple):
    """Steps with a learning rate that rises, then falls to zero as a cosine."""

    steps: int
    learning_rate: float
    pictures: int
    """So many of the pool are shown."""
    shuffle_first: bool
    """Shuffle the first pass too. Else it takes the pictures in order, so that the first steps need only the first."""


def phases(recipe: Recipe) -> Tuple[Phase, Phase]:
    """Scenes alone, then scenes and portraits."""
    return (Phase(recipe.steps, recipe.learning_rate, recipe.num_scenes, shuffle_first=False),
            Phase(recipe.mixed_steps, recipe.mixed_learning_rate, recipe.num_scenes + recipe.num_portraits,
                  shuffle_first=True))
