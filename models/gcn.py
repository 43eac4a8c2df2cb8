"""The CLIP-GCN: graph convolutions over global, class and background nodes."""
from __future__ import annotations

from typing import Callable, Dict, Type

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: Dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "leaky_relu": F.leaky_relu}


class GraphConvolution(nn.Linear):
    """A X W + b, with A the adjacency (Kipf and Welling, ICLR 2017)."""

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:  # type: ignore[override]
        """Map (B, M, D) node features to (B, M, D') over an (M, M) adjacency."""
        return super().forward(adjacency @ nodes)


class GraphSAGE(nn.Module):
    """[X, A X] W + b: weights apart for a node's own feature (Hamilton et al., NeurIPS 2017).

    So it is not lost among many neighbours.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * dim_in, dim_out)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Map (B, M, D) node features to (B, M, D') over an (M, M) adjacency."""
        return self.linear(torch.cat([nodes, adjacency @ nodes], dim=-1))


GCN_LAYERS: Dict[str, Type[nn.Module]] = {
    "convolution": GraphConvolution, "sage": GraphSAGE}
"""`--gcn_layer`: made of (D, D'), called with (nodes, adjacency)."""


class CLIPGCN(nn.Module):
    """X + GCN(X) with one fixed (or learned) adjacency for all images.

    The last layer starts at zero, so that training starts from the frozen features. Depth, width, activation
    and the residual are our choice; the paper gives none of them.

    Args:
        dim: D, size of a node's feature.
        adjacency: (M, M) normalised adjacency, M = G + O.
        hidden: width of the layers in between.
        depth: number of graph convolutions.
        learned_adjacency: train the adjacency too, from this start.
        residual: False drops the input from the output (the last layer then starts at random).
        activation: one of `ACTIVATIONS`, between the layers.
        layer: one of `GCN_LAYERS`.
    """

    def __init__(self, dim: int, adjacency: Tensor, hidden: int, depth: int = 2, learned_adjacency: bool = False,
                 residual: bool = True, activation: str = "gelu", layer: str = "convolution") -> None:
        super().__init__()
        if learned_adjacency:
            self.adjacency = nn.Parameter(adjacency.clone())
        else:
            self.register_buffer("adjacency", adjacency.clone())
        widths = [dim] + [hidden] * (depth - 1) + [dim]
        layers = [GCN_LAYERS[layer](a, b) for a, b in zip(widths, widths[1:])]
        if residual:
            for weight in layers[-1].parameters():
                nn.init.zeros_(weight)
        self.layers = nn.ModuleList(layers)
        self.residual = residual
        self.activation = ACTIVATIONS[activation]

    def forward(self, nodes: Tensor) -> Tensor:
        """Map (B, M, D) node features to (B, M, D)."""
        features = nodes
        for number, layer in enumerate(self.layers):
            features = layer(self.activation(features) if number else features, self.adjacency)
        return nodes + features if self.residual else features
