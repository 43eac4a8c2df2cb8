"""What trains the model: the optimiser, and the schedule of its learning rate."""
from __future__ import annotations

import argparse
import math
from typing import Callable, Dict

import torch
from torch import nn


def constant(progress: float) -> float:
    """The same rate all the time."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine, from the full rate to zero at the end of the last epoch."""
    return (1 + math.cos(math.pi * progress)) / 2


LR_SCHEDULES: Dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine}
"""`--lr_schedule`: the factor of `--lr` at a progress from 0 (start) to 1 (end of the last epoch)."""


def build_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW over what is trained; our choice.

    Args:
        model: BAC-GCN.
        args: `--lr` and `--weight_decay`.
    """
    return torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], args.lr,
                             weight_decay=args.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, args: argparse.Namespace, epochs_done: float) -> None:
    """The rate of the next batch, by `--lr_schedule`.

    Args:
        optimizer: gets the rate.
        args: `--lr`, `--lr_schedule`, `--lr_warmup` and `--epochs`.
        epochs_done: epochs behind the batch, with the fraction of the one under way.
    """
    warmup = min(1.0, epochs_done / args.lr_warmup) if args.lr_warmup else 1.0
    for group in optimizer.param_groups:
        group["lr"] = args.lr * warmup * LR_SCHEDULES[args.lr_schedule](epochs_done / args.epochs)
