"""BAC-GCN: masked globals and kernel-pooled locals, refined by the CLIP-GCN, scored against the categories."""
from __future__ import annotations

import math
from typing import List, NamedTuple, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernel import SimilarityKernel

LOGITS = ("both", "local", "global")
LOGIT_STARTS = ("prior", "fitted")


class Prediction(NamedTuple):
    """What BAC-GCN says of a batch of images."""

    logits: Tensor
    """(B, O) final logits: the sum of the global and the local logits (or the one part that was asked for)."""
    maps: Tensor
    """(B, O, N) similarity maps of the kernel."""


LABEL_STEP = 1e-4
"""Between two values of a pseudo-label: files of scores have four digits."""

SCALES = (1.0, 1000.0)
"""The least and the largest scale of a fitted start: where cosines tell nothing, the least loss is at none at all, from
which no training starts."""


class BACGCN(nn.Module):
    """The trainable part of the method, on top of the features of the frozen encoder.

    Args:
        text_embeddings: (O, D) embeddings of the categories' prompts, or what `KERNEL_STARTS` makes of them.
        k: patches that the kernel averages per category.
        gcn: any module that maps (B, G + O, D) nodes, the globals first, to as many, such as `CLIPGCN`; None scores
            the nodes as they are.
        learned_kernel: train w_o, or keep it where it starts.
        logit_scale: factor of the cosine similarities at the start; it is learned.
        logits: "both" as in the paper, or "local" or "global" alone.
        tiles: images come with so many tiles. A second kernel finds the tile that looks most like each category, and
            its local features go through the same GCN and add their logits. An extension of ours, not in the paper.
        small_tiles: and with so many smaller ones, which have a kernel of their own.
    """

    def __init__(self, text_embeddings: Tensor, k: int, gcn: Optional[nn.Module] = None, learned_kernel: bool = True,
                 logit_scale: float = 10.0, logits: str = "both", tiles: int = 0, small_tiles: int = 0) -> None:
        super().__init__()
        if logits not in LOGITS:
            raise ValueError(f"logits is {logits!r}; choose one of {', '.join(LOGITS)}")
        self.kernel = SimilarityKernel(text_embeddings, k, learned_kernel)
        self.tile_counts = tiles, small_tiles
        self.tile_kernel, self.small_tile_kernel = (
            SimilarityKernel(text_embeddings, 1, learned_kernel) if count else None for count in self.tile_counts)
        self.classifier = nn.Parameter(F.normalize(text_embeddings.float(), dim=-1))
        self.gcn = gcn
        self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))
        self.bias = nn.Parameter(torch.zeros(len(text_embeddings)))
        self.parts = logits

    def forward(self, patch_embeddings: Tensor, global_embeddings: Tensor,
                tile_embeddings: Optional[Tensor] = None) -> Prediction:
        """Score images by their features.

        Args:
            patch_embeddings: (B, N, D), P.
            global_embeddings: (B, G, D): g_H and g_Hc, or one plain global embedding.
            tile_embeddings: (B, T, D), the plain global embeddings of the image's tiles, the small ones last; for a
                model with tiles.
        """
        local = self.kernel(patch_embeddings)
        refined_globals, refined_locals = self._refine(global_embeddings, local.features)
        cosines = []
        if self.parts != "local":
            cosines.append((refined_globals @ F.normalize(self.classifier, dim=-1).T).mean(dim=1))
        if self.parts != "global":
            cosines.append(_own_cosines(refined_locals, self.kernel))
            cosines += self._tile_cosines(global_embeddings, tile_embeddings)
        return Prediction(self.bias + self.log_scale.exp() * torch.stack(cosines).sum(dim=0), local.maps)

    def _tile_cosines(self, globals_: Tensor, tiles: Optional[Tensor]) -> List[Tensor]:
        """(B, O) of the best tile of each size; [] without tiles."""
        if not any(self.tile_counts):
            return []
        assert tiles is not None, "a model with tiles needs those of the images"
        of_sizes = zip((self.tile_kernel, self.small_tile_kernel), tiles.split(self.tile_counts, dim=1))
        return [_own_cosines(self._refine(globals_, kernel(of_size).features)[1], kernel)
                for kernel, of_size in of_sizes if kernel is not None]

    def _refine(self, globals_: Tensor, locals_: Tensor) -> Tuple[Tensor, Tensor]:
        """Global (B, G, D) and local (B, O, D) nodes after the GCN, of unit length."""
        nodes = torch.cat([F.normalize(globals_, dim=-1), F.normalize(locals_, dim=-1)], dim=1)
        nodes = F.normalize(nodes if self.gcn is None else self.gcn(nodes), dim=-1)
        return nodes[:, :globals_.shape[1]], nodes[:, globals_.shape[1]:]

    @torch.no_grad()
    def calibrate(self, mean_logits: Tensor, prior: Tensor) -> None:
        """Move the biases so that the mean logit of every category is the log-odds of its pseudo-labels.

        CLIP's cosines share a large offset and most categories are rare; without this the first epochs go into
        learning both. Our choice. Both arguments are (O,): means over (a sample of) the training images.
        """
        self.bias.add_(torch.logit(prior, eps=1e-3) - mean_logits)

    def fit_start(self, logits: Tensor, targets: Tensor) -> None:
        """Move the scale and the biases to the least cross-entropy with everything else as it is.

        The fit is convex and takes the place of `calibrate`. Our choice.

        Args:
            logits: (n, O) logits of (a sample of) the training images before any training.
            targets: (n, O) their pseudo-labels.
        """
        from scipy.optimize import minimize  # slow to import, and the other start does without

        cosines = ((logits - self.bias) / self.log_scale.exp()).detach().double().cpu()
        targets = targets.clamp(LABEL_STEP / 2, 1 - LABEL_STEP / 2).double().cpu()  # or a class may have no least loss

        def loss(values: np.ndarray) -> Tuple[float, np.ndarray]:
            scale_and_bias = torch.tensor(values, requires_grad=True)
            fitted = scale_and_bias[0] * cosines + scale_and_bias[1:]
            value = F.binary_cross_entropy_with_logits(fitted, targets, reduction="sum") / len(targets)
            return value.item(), torch.autograd.grad(value, scale_and_bias)[0].numpy()

        start = np.concatenate([[self.log_scale.exp().item()], self.bias.detach().double().cpu().numpy()])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[SCALES] + [(None, None)] * len(self.bias),
                         options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-7}).x
        with torch.no_grad():
            self.log_scale.fill_(math.log(found[0]))
            self.bias.copy_(torch.from_numpy(found[1:]))


def _own_cosines(locals_: Tensor, kernel: SimilarityKernel) -> Tensor:
    """(B, O) of each local node (B, O, D) of unit length to the kernel of its category."""
    return (locals_ * F.normalize(kernel.weight, dim=-1)).sum(dim=-1)
