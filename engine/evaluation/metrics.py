"""Multi-label metrics, in percent (method: conventions)."""
from __future__ import annotations

from typing import Dict, Optional

import numpy as np
from torch import Tensor


def average_precision(scores: Tensor, targets: Tensor, min_positives: int = 1) -> np.ndarray:
    """Non-interpolated all-point AP of every class, in percent.

    Args:
        scores: (n, C), any monotone score.
        targets: (n, C) of 0 and 1.
        min_positives: positives that a class needs to be measured.

    Returns:
        (C,); NaN for a class with fewer.
    """
    from sklearn.metrics import average_precision_score  # a second to import, which a start need not wait for

    truth, ranking = targets.numpy().astype(bool), scores.double().numpy()
    measured = truth.sum(axis=0) >= max(min_positives, 1)
    return np.array([100 * average_precision_score(truth[:, c], ranking[:, c]) if measured[c] else np.nan
                     for c in range(truth.shape[1])])


def mean_ap(per_class: np.ndarray) -> Optional[float]:
    """Mean over the classes that are measured; None where none is, as without labels."""
    return float(np.nanmean(per_class)) if np.isfinite(per_class).any() else None


def above_midpoint(scores: Tensor) -> Tensor:
    """(n, C) bool: scores above the midpoint between the lowest and the highest of their image, as TagCLIP decides."""
    return scores > (scores.amin(dim=1, keepdim=True) + scores.amax(dim=1, keepdim=True)) / 2


def summarise(scores: Tensor, targets: Tensor, predicted: Optional[Tensor] = None,
              min_positives: int = 1) -> Dict[str, float]:
    """mAP, and overall (O) and per-class (C) precision, recall and F1 of the predicted labels.

    A class that is never predicted has precision 0; classes with too few positives are left out, as in the mAP. Where
    all are, as without labels, nothing can be measured and the summary is empty.

    Args:
        scores: (n, C), to be ranked.
        targets: (n, C) of 0 and 1.
        predicted: (n, C) bool; by default `scores` are logits, and labels those above 0.
        min_positives: positives that a class needs to be measured.
    """
    truth, labels = targets.numpy() > 0.5, (scores > 0 if predicted is None else predicted).numpy()
    present = truth.sum(axis=0) >= max(min_positives, 1)
    hits, guesses, positives = ((a.sum(axis=0)[present]) for a in (truth & labels, labels, truth))
    mean = mean_ap(average_precision(scores, targets, min_positives))
    if mean is None:
        return {}
    summary = {"mAP": mean}
    per_class = (_ratio(_ratio(hits, whole).sum(), present.sum()) for whole in (guesses, positives))
    for letter, (precision, recall) in (("O", (_ratio(hits.sum(), whole.sum()) for whole in (guesses, positives))),
                                        ("C", per_class)):
        f1 = _ratio(2 * precision * recall, precision + recall)
        summary.update({f"{letter}P": 100 * float(precision), f"{letter}R": 100 * float(recall),
                        f"{letter}F1": 100 * float(f1)})
    return summary


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)
