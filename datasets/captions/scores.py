"""Scores: how probable each category is in each image, by its captions alone."""
from __future__ import annotations

import numpy as np

from datasets.captions.labels import CaptionNames


def vote_array(names: CaptionNames, num_categories: int) -> np.ndarray:
    """Which caption names what: (images, captions, O) booleans."""
    images = list(names.values())
    votes = np.zeros((len(images), len(images[0]), num_categories), dtype=bool)
    for image, per_caption in enumerate(images):
        for caption, named in enumerate(per_caption):
            votes[image, caption, list(named)] = True
    return votes


def score_images(names: CaptionNames, num_categories: int) -> np.ndarray:
    """(images, O) probabilities: the share of the captions that name the category."""
    return vote_array(names, num_categories).mean(axis=1)
