"""What the model says of a set of images."""
from __future__ import annotations

import argparse
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from datasets.progress import bar
from engine.features.feature_set import FeatureSet, spread_rows
from engine.features.frozen_encoder import encoder_of
from engine.process.distributed import sum_over_processes, world
from models.bac_gcn import BACGCN
from models.baselines.zero_shot import zero_shot_scores
from models.encoder import Features


class ModelInputs(NamedTuple):
    """What `BACGCN.forward` takes."""

    patch_embeddings: Tensor
    """(B, N, D)."""
    global_embeddings: Tensor
    """(B, 2, D), g_H and g_Hc; or (B, 1, D), the plain one."""
    tile_embeddings: Optional[Tensor]
    """(B, T, D), with `--tiles`."""


def model_inputs(features: Features, masked_globals: bool, device: torch.device) -> ModelInputs:
    """The features that the model reads: g_H and g_Hc, or the plain global embedding alone; and those of tiles."""
    globals_, tiles = features.global_embeddings[:, :3], features.global_embeddings[:, 3:]
    picked = globals_[:, 1:] if masked_globals else globals_[:, :1]
    return ModelInputs(features.patch_embeddings.to(device), picked.to(device),
                       tiles.to(device) if tiles.shape[1] else None)


def calibrate(model: BACGCN, data: FeatureSet, args: argparse.Namespace, device: torch.device,
              sample: int = 2048) -> None:
    """Start the biases, and with `--logit_start fitted` the scale, from `sample` training images."""
    some = data.select(spread_rows(len(data.stores[0]), sample))
    logits, targets = predict(model, some, args, device).to(device), some.targets.to(device)
    if args.logit_start == "fitted":
        model.fit_start(logits, targets)
    else:
        model.calibrate(logits.mean(dim=0), targets.mean(dim=0))


@torch.no_grad()
def predict(model: BACGCN, data: FeatureSet, args: argparse.Namespace, device: torch.device) -> Tensor:
    """Final logits of all images in order, (n, O), on the CPU."""
    model.eval()
    logits = torch.zeros(len(data), len(model.bias), device=device)
    for batch in bar("scoring", "batch", data.num_batches(args.batch_size, world()), keep=False,
                     over=data.batches(args.batch_size, device=device, world=world())):
        inputs = model_inputs(batch.features, not args.no_masked_globals, device)
        logits[batch.rows[0]:batch.rows[-1] + 1] = model(*inputs).logits
    return sum_over_processes(logits).cpu()


def untrained_scores(globals_: Tensor, starts: Tensor, args: argparse.Namespace) -> Tensor:
    """(n, C) scores without any training: CLIP zero-shot, or without a text tower the cosines to caption prototypes.

    Args:
        globals_: (n, D) plain global features.
        starts: (C, D) text embeddings, or prototypes.
        args: `--encoder`.
    """
    return zero_shot_scores(globals_, starts, softmax=encoder_of(args) == "clip")
