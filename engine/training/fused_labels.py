"""`--labels fused`: what CLIP sees in the training images joins what their captions say."""
from __future__ import annotations

import argparse
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.split_file import ImageList
from engine.features.extraction import FeatureSource
from engine.features.feature_set import FeatureSet
from engine.features.tiles import TileGrid, count_tiles, tile_embeddings
from engine.process.distributed import sum_over_processes, world
from engine.training.training_labels import PseudoLabels
from models.encoder import FrozenEncoder
from models.kernel import SimilarityKernel


def fuse_with_clip(pseudo: PseudoLabels, images: ImageList, store: FeatureSource, encoder: FrozenEncoder,
                   text_embeddings: Optional[Tensor], num_classes: int, args: argparse.Namespace) -> PseudoLabels:
    """With `--labels fused` the pseudo-labels of captions and CLIP together, else those of the captions as they are.

    Args:
        pseudo: what the captions say.
        images: the training images.
        store: their features.
        encoder: the frozen encoder.
        text_embeddings: (O, D), classes first; None without a text tower.
        num_classes: C.
        args: `--labels`, `--k` of the kernel, and `--tiles` or `--zoom`, which make tiles another view.
    """
    if args.labels != "fused":
        return pseudo
    from models.fusion import fuse_labels  # scikit-learn takes a second to import

    caption_scores = pseudo.targets[:, :num_classes]
    if text_embeddings is None:
        views = _probe(F.normalize(store.plain_globals(), dim=-1), caption_scores)[..., None]
    else:
        text = F.normalize(text_embeddings[:num_classes].float(), dim=-1)
        views = clip_views(caption_scores, images, store, encoder, text, args)
    return pseudo._replace(targets=fuse_labels(pseudo.targets, views))


def clip_views(caption_scores: Tensor, images: ImageList, store: FeatureSource, encoder: FrozenEncoder, text: Tensor,
               args: argparse.Namespace) -> Tensor:
    """How much each class is in each image by CLIP, (n, C, views); other arguments as `fuse_with_clip`.

    The views are the cosine of [cls], the mean cosine of the K best patches, what the captions of other images say by
    the three global embeddings (and those of the tiles, with `--tiles`), and with `--tiles` or `--zoom` the best cosine
    of a tile's [cls]. The cosines of [cls] are taken less their mean over the classes: images differ in their cosines
    to any text.

    Args:
        caption_scores: (n, C) of the classes.
        text: (C, D), of unit length.
    """
    globals_, best_patches = _read_store(store, text, args)
    views: List[Tensor] = [_centred(globals_[:, 0] @ text.cpu().T), best_patches,
                           _probe(globals_.flatten(1), caption_scores)]
    tiles = globals_[:, 3:]
    if args.zoom and not tiles.shape[1]:
        tiles = F.normalize(tile_embeddings(encoder, images, TileGrid(args.zoom), args).float(), dim=-1)
    if tiles.shape[1]:
        views.append(_centred(tiles @ text.cpu().T).amax(dim=1))
    return torch.stack(views, dim=-1)


def _probe(features: Tensor, caption_scores: Tensor) -> Tensor:
    """(n, C): what the captions of other images say by (n, F) features. Without a text tower it is the only view."""
    from models.fusion import probe_captions

    return torch.from_numpy(probe_captions(features.numpy(), caption_scores.numpy()))


def _centred(cosines: Tensor) -> Tensor:
    return cosines - cosines.mean(dim=-1, keepdim=True)


@torch.no_grad()
def _read_store(store: FeatureSource, text: Tensor, args: argparse.Namespace) -> Tuple[Tensor, Tensor]:
    """Normalised global embeddings (n, 3 + T, D), and the mean cosine of the K best patches (n, C), at the start."""
    kernel = SimilarityKernel(text, args.k)
    globals_ = torch.zeros(len(store), 3 + count_tiles(args), text.shape[1], device=text.device)
    best = torch.zeros(len(store), len(text), device=text.device)
    images = FeatureSet([store], torch.zeros(len(store), 0))
    for batch in images.batches(args.batch_size, device=text.device, world=world()):
        rows = slice(int(batch.rows[0]), int(batch.rows[-1]) + 1)
        globals_[rows] = F.normalize(batch.features.global_embeddings.to(text.device), dim=-1)
        maps = kernel(batch.features.patch_embeddings.to(text.device)).maps
        best[rows] = maps.topk(min(args.k, maps.shape[-1]), dim=-1).values.mean(dim=-1)
    return sum_over_processes(globals_).cpu(), sum_over_processes(best).cpu()
