"""Labels from captions and CLIP together: naive Bayes over two sources that err differently (our choice; no label)."""
from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_val_predict
from torch import Tensor

BLIND = 0.15
"""Share of images of which captions are taken to say nothing; there the category is as probable as on average. Anything
from 0.05 to 0.2 is within 0.1 mAP."""

INVERSE_PENALTY = 0.3
"""scikit-learn's C: what keeps the evidence of a category that few captions name close to nothing."""

PROBE_FOLDS = 5

PROBE_PENALTY = 0.03
"""Ridge penalty of the probe an image, for features whose entries have unit variance."""

_EPSILON = 1e-6
"""Least distance of a probability from 0 and 1 before its log-odds are taken."""

Array = TypeVar("Array", np.ndarray, Tensor)


def fuse_labels(caption_scores: Array, clip_scores: Array) -> Array:
    """The probability that a category is in an image, by its captions and by CLIP.

    Args:
        caption_scores: (n, O) probabilities by the captions, classes first.
        clip_scores: (n, C) or (n, C, views) scores of the same images for the C classes, larger for likelier. A view is
            another look at the image, such as the whole and the best tile. Their scale does not matter: only the order
            of the images within a class and a view is used.

    Returns:
        (n, O) probabilities, an array or a tensor as `caption_scores` is: fused for the classes, the rest unchanged.

    Raises:
        ValueError: the shapes do not fit, a caption score is no probability, or a CLIP score is not finite.
    """
    captions, views = np.asarray(caption_scores), np.asarray(clip_scores, dtype=np.float64)
    views = views[..., None] if views.ndim == 2 else views
    _check(captions, views)
    fused = captions.astype(captions.dtype if captions.dtype.kind == "f" else np.float32)
    for category in range(views.shape[1] if len(captions) else 0):
        score = captions[:, category].astype(np.float64)
        prior = score.mean()
        log_odds = (_log_odds((1 - BLIND) * score + BLIND * prior) + clip_log_odds(score, views[:, category])
                    - _log_odds(prior))
        fused[:, category] = 1 / (1 + np.exp(-log_odds))
    return torch.from_numpy(fused) if isinstance(caption_scores, Tensor) else fused


def clip_log_odds(score: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Log-odds of one category by CLIP alone, calibrated on the captions: (n,).

    A logistic regression of the caption score on the log-rank of the image in each view. The share of true positives
    among the images from the best one down to rank r falls about as a power of r, so odds are a power of the rank. A
    view that the captions contradict (a negative weight) is left out.

    Args:
        score: (n,) probabilities by the captions.
        views: (n, views) scores by CLIP.
    """
    count = len(score)
    evidence = -np.log1p(-(rankdata(views, axis=0) - 0.5) / count)  # exponentially distributed, whatever the scores
    evidence -= evidence.mean(axis=0)
    kept = np.arange(evidence.shape[1])
    while len(kept) and 0 < score.sum() < count:
        # Soft targets: each image counts as a positive by its score, and as a negative by the rest.
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(
            np.tile(evidence[:, kept], (2, 1)), np.repeat([1, 0], count),
            sample_weight=np.concatenate([score, 1 - score]))
        if (model.coef_[0] >= 0).all():
            return model.decision_function(evidence[:, kept])
        kept = kept[model.coef_[0] >= 0]
    return np.full(count, _log_odds(score.mean()))


def probe_captions(features: np.ndarray, caption_scores: np.ndarray) -> np.ndarray:
    """What the caption scores of *other* images say of each image by its features: (n, C), a view for `fuse_labels`.

    A cross-fitted ridge regression: an image is predicted by the folds that it is not in, so that its own captions
    do not come back as CLIP's opinion. Zeros where there is a single image.

    Args:
        features: (n, D).
        caption_scores: (n, C) of the classes.
    """
    count = len(features)
    if count < 2:
        return np.zeros_like(caption_scores)
    centred = features - features.mean(axis=0)
    return cross_val_predict(Ridge(PROBE_PENALTY * count), centred / max(centred.std(), _EPSILON), caption_scores,
                             cv=KFold(min(PROBE_FOLDS, count))).reshape(count, -1)


def _check(captions: np.ndarray, views: np.ndarray) -> None:
    if captions.ndim != 2 or views.ndim != 3 or len(views) != len(captions) or views.shape[1] > captions.shape[1]:
        raise ValueError(f"caption scores {captions.shape} and CLIP scores {views.shape} do not fit: (n, O) and "
                         "(n, C) or (n, C, views) with C <= O are expected")
    if not ((captions >= 0) & (captions <= 1)).all():  # false for NaN
        raise ValueError("a caption score is no probability")
    if not np.isfinite(views).all():
        raise ValueError("a CLIP score is not finite")


def _log_odds(probability: np.ndarray | float) -> np.ndarray:
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    return np.log(clipped) - np.log1p(-clipped)

