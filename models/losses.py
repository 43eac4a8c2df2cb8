"""Losses of the final logits against the pseudo-labels (the paper leaves the form open)."""
from __future__ import annotations

from typing import Callable, Dict

import torch
import torch.nn.functional as F
from torch import Tensor


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy on soft targets."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def asymmetric_loss(logits: Tensor, targets: Tensor, gamma: float = 4.0, margin: float = 0.05) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021) on soft targets: easy negatives weigh little."""
    shifted = (torch.sigmoid(logits) - margin).clamp_min(0)
    positive = -targets * F.logsigmoid(logits)
    negative = -(1 - targets) * shifted.pow(gamma) * torch.log1p(-shifted.clamp_max(1 - 1e-6))
    return (positive + negative).mean()


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Hinge on every pair of categories of an image, weighted by how much more the first is a label."""
    hinge = F.relu(1 - logits[:, :, None] + logits[:, None, :])
    weight = F.relu(targets[:, :, None] - targets[:, None, :])
    return (hinge * weight).sum() / weight.sum().clamp_min(1)


LOSSES: Dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": bce_loss, "asymmetric": asymmetric_loss, "ranking": ranking_loss}
"""`--loss`: the mean loss of (B, O) logits against (B, O) soft targets in [0, 1]."""


def pseudo_label_loss(logits: Tensor, targets: Tensor, kind: str = "bce") -> Tensor:
    """Mean loss of (B, O) logits against (B, O) soft targets in [0, 1]; `kind` is one of LOSSES."""
    return LOSSES[kind](logits, targets)
