"""From caption counts to the adjacency over global, class and background nodes."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

NORMALISATIONS = ("row", "symmetric", "none")
ADJACENCIES = ("cooccurrence", "identity", "learned")


def caption_graph(counts: Tensor, co_occurrence: Tensor) -> Tensor:
    """A[i, j] = P(i given j) over the (image, prompt) label lists (method: graph; the authors' figure).

    Args:
        counts: (O,) lists that name each category.
        co_occurrence: (O, O) lists that name both.

    Returns:
        (O, O) with a unit diagonal. A category that no caption names has no edge.
    """
    graph = co_occurrence.float() / counts.float().clamp_min(1)
    return graph.fill_diagonal_(1.0)


def node_adjacency(
    graph: Tensor,
    num_classes: int,
    num_globals: int,
    threshold: float = 0.0,
    class_background_edges: bool = True,
    global_edge: float = 1.0,
    normalisation: str = "row",
    self_share: Optional[float] = None,
) -> Tensor:
    """Adjacency over the nodes [globals, classes, backgrounds]; row i weighs what node i receives.

    Args:
        graph: (O, O) caption graph, classes first.
        num_classes: C; the rest of the categories are backgrounds.
        num_globals: G global nodes.
        threshold: edges of the caption graph below it are cut.
        class_background_edges: keep the edges between classes and backgrounds.
        global_edge: weight of the edges between each global node and every local node.
        normalisation: "row" (each row sums to one), "symmetric" (D^-1/2 A D^-1/2 with D the row sums) or "none".
        self_share: if given, what a node keeps of itself, whatever the number of its neighbours; the rest comes from
            them by the weights of the edges (re-weighting as in ML-GCN, Chen et al., CVPR 2019). It replaces the
            normalisation. With a row's sum of one and unit edges, a global node keeps 2% of itself among 44 neighbours.

    Returns:
        (G + O, G + O), self-loops included. Our choice: the paper states which edges exist, not their weights.
    """
    graph = torch.where(graph < threshold, torch.zeros_like(graph), graph)
    if not class_background_edges:
        graph[:num_classes, num_classes:] = 0
        graph[num_classes:, :num_classes] = 0
    graph.fill_diagonal_(1.0)
    size = num_globals + len(graph)
    adjacency = torch.eye(size)
    adjacency[num_globals:, num_globals:] = graph
    adjacency[:num_globals, num_globals:] = global_edge
    adjacency[num_globals:, :num_globals] = global_edge
    if self_share is not None:
        neighbours = adjacency.fill_diagonal_(0)
        received = neighbours.sum(dim=1, keepdim=True)
        return torch.where(received > 0, (1 - self_share) * neighbours / received.clamp_min(1e-12)
                           + self_share * torch.eye(size), torch.eye(size))
    degree = adjacency.sum(dim=1)
    if normalisation == "row":
        return adjacency / degree[:, None]
    if normalisation == "symmetric":
        return adjacency / (degree[:, None] * degree[None, :]).sqrt()
    return adjacency
