"""BAC-GCN from the flags of a train script."""
from __future__ import annotations

import argparse
from typing import Optional

import torch
from torch import Tensor

from engine.features.feature_set import FeatureSet
from models.bac_gcn import BACGCN
from models.gcn import CLIPGCN
from models.graph import node_adjacency
from models.kernel import KERNEL_STARTS


def start_embeddings(args: argparse.Namespace, text_embeddings: Optional[Tensor], data: FeatureSet) -> Tensor:
    """Where w_o and the classifier start, (O, D), by `--kernel_start`.

    Args:
        args: the flags of a train script.
        text_embeddings: (O, D); None without a text tower. Then what no caption names starts in a random direction.
        data: the training images and their pseudo-labels.
    """
    if args.kernel_start == "text" and text_embeddings is not None:
        return text_embeddings
    globals_ = data.stores[0].plain_globals()
    if text_embeddings is None:
        text_embeddings = torch.randn(data.targets.shape[1], globals_.shape[1],
                                      generator=torch.Generator().manual_seed(0))
    return KERNEL_STARTS[args.kernel_start](text_embeddings.cpu(), globals_, data.targets)


def build_model(args: argparse.Namespace, text_embeddings: Tensor, graph: Tensor, num_classes: int) -> BACGCN:
    """BAC-GCN, or the ablation of it that the flags ask for.

    Args:
        args: the flags of a train script.
        text_embeddings: (O, D), or whatever else w_o and the classifier start from.
        graph: (O, O) caption graph.
        num_classes: C.
    """
    gcn = None
    if not args.no_gcn:
        num_globals = 1 if args.no_masked_globals else 2
        adjacency = torch.eye(num_globals + len(graph)) if args.adjacency == "identity" else node_adjacency(
            graph, num_classes, num_globals, args.edge_threshold, not args.no_class_background_edges,
            args.global_edge, args.normalisation, args.self_share)
        dim = text_embeddings.shape[1]
        gcn = CLIPGCN(dim, adjacency, args.gcn_width or dim, args.gcn_depth,
                      learned_adjacency=args.adjacency == "learned", residual=not args.no_residual,
                      activation=args.gcn_activation, layer=args.gcn_layer)
    return BACGCN(text_embeddings, args.k, gcn, not args.frozen_kernel, args.logit_scale, args.logits,
                  tiles=args.tiles ** 2, small_tiles=args.small_tiles ** 2)
