"""`--labels fused`: what CLIP sees in the training images joins what their captions say."""
from __future__ import annotations

import argparse
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.split_file import ImageList
from engine.features.extraction import FeatureSource
from engine.features.feature_set import FeatureSet
from engine.features.tiles import tile_embeddings
from engine.process.distributed import sum_over_processes, world
from engine.training.training_labels import PseudoLabels
from models.encoder import FrozenEncoder
from models.fusion import fuse_labels
from models.kernel import SimilarityKernel


def fuse_with_clip(pseudo: PseudoLabels, images: ImageList, store: FeatureSource, encoder: FrozenEncoder,
                   class_embeddings: Tensor, args: argparse.Namespace) -> PseudoLabels:
    """With `--labels fused` the pseudo-labels of captions and CLIP together, else those of the captions as they are.

    Args:
        pseudo: what the captions say.
        images: the training images.
        store: their features.
        encoder: the frozen encoder.
        class_embeddings: (C, D) text embeddings.
        args: `--labels`, `--k` of the kernel, and `--zoom`, which makes tiles another view.
    """
    if args.labels != "fused":
        return pseudo
    return pseudo._replace(targets=fuse_labels(pseudo.targets, clip_views(images, store, encoder, class_embeddings,
                                                                          args)))


def clip_views(images: ImageList, store: FeatureSource, encoder: FrozenEncoder, class_embeddings: Tensor,
               args: argparse.Namespace) -> Tensor:
    """How much each class is in each image by CLIP without training, (n, C, views); arguments as `fuse_with_clip`.

    The views are the cosine of [cls], the mean cosine of the K best patches, and with `--zoom` the best cosine of a
    tile's [cls]. Those of [cls] are taken less their mean over the classes: images differ in their cosines to any text.
    """
    text = F.normalize(class_embeddings.float(), dim=-1).cpu()
    views: List[Tensor] = [_centred(F.normalize(store.plain_globals(), dim=-1) @ text.T),
                           _kernel_start(store, class_embeddings, args)]
    if args.zoom:
        tiles = F.normalize(tile_embeddings(encoder, images, args.zoom, args), dim=-1)
        views.append(_centred(tiles @ text.T).amax(dim=1))
    return torch.stack(views, dim=-1)


def _centred(cosines: Tensor) -> Tensor:
    return cosines - cosines.mean(dim=-1, keepdim=True)


@torch.no_grad()
def _kernel_start(store: FeatureSource, class_embeddings: Tensor, args: argparse.Namespace) -> Tensor:
    """Mean cosine of the K best patches of each class, as the kernel sees them before training: (n, C)."""
    device = class_embeddings.device
    kernel = SimilarityKernel(class_embeddings, args.k)
    best = torch.zeros(len(store), len(class_embeddings), device=device)
    images = FeatureSet([store], torch.zeros(len(store), 0))
    for batch in images.batches(args.batch_size, device=device, world=world()):
        maps = kernel(batch.features.patch_embeddings.to(device)).maps
        best[batch.rows[0]:batch.rows[-1] + 1] = maps.topk(min(args.k, maps.shape[-1]), dim=-1).values.mean(dim=-1)
    return sum_over_processes(best).cpu()
