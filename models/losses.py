"""Losses of the final logits against the pseudo-labels (the paper leaves the form open)."""
from __future__ import annotations

from typing import Callable, Dict

import torch
import torch.nn.functional as F
from torch import Tensor


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy on soft targets."""
    return mean_over_known(F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none"), targets)


def asymmetric_loss(logits: Tensor, targets: Tensor, gamma: float = 4.0, margin: float = 0.05) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021) on soft targets: easy negatives weigh little."""
    known = targets.nan_to_num()
    shifted = (torch.sigmoid(logits) - margin).clamp_min(0)
    positive = -known * F.logsigmoid(logits)
    negative = -(1 - known) * shifted.pow(gamma) * torch.log1p(-shifted.clamp_max(1 - 1e-6))
    return mean_over_known(positive + negative, targets)


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Hinge on every pair of categories of an image, weighted by how much more the first is a label."""
    hinge = F.relu(1 - logits[:, :, None] + logits[:, None, :])
    weight = F.relu(targets[:, :, None] - targets[:, None, :]).nan_to_num()
    return (hinge * weight).sum() / weight.sum().clamp_min(1)


def mean_over_known(loss: Tensor, targets: Tensor) -> Tensor:
    """Mean of (B, O) losses over the entries whose target is a number."""
    unknown = targets.isnan()
    return loss.masked_fill(unknown, 0).sum() / (~unknown).sum().clamp_min(1)


LOSSES: Dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": bce_loss, "asymmetric": asymmetric_loss, "ranking": ranking_loss}
"""`--loss`: the mean loss of (B, O) logits against (B, O) soft targets in [0, 1]; NaN where nothing is known, which
adds no loss."""


def pseudo_label_loss(logits: Tensor, targets: Tensor, kind: str = "bce") -> Tensor:
    """Mean loss of (B, O) logits against (B, O) soft targets in [0, 1]; `kind` is one of LOSSES."""
    return LOSSES[kind](logits, targets)
