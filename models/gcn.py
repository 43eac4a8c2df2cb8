"""The CLIP-GCN: graph convolutions over global, class and background nodes."""
from __future__ import annotations

from typing import Callable, Dict

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: Dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "leaky_relu": F.leaky_relu}


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
    """

    def __init__(self, dim: int, adjacency: Tensor, hidden: int, depth: int = 2, learned_adjacency: bool = False,
                 residual: bool = True, activation: str = "gelu") -> None:
        super().__init__()
        if learned_adjacency:
            self.adjacency = nn.Parameter(adjacency.clone())
        else:
            self.register_buffer("adjacency", adjacency.clone())
        widths = [dim] + [hidden] * (depth - 1) + [dim]
        layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
        if residual:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)
        self.residual = residual
        self.activation = ACTIVATIONS[activation]

    def forward(self, nodes: Tensor) -> Tensor:
        """Map (B, M, D) node features to (B, M, D)."""
        features = nodes
        for number, layer in enumerate(self.layers):
            features = layer(self.adjacency @ (self.activation(features) if number else features))
        return nodes + features if self.residual else features
