"""Wide features to narrow ones: a projection that is fitted once, to patches of training images."""
from __future__ import annotations

from typing import Callable, Dict, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Reduction(NamedTuple):
    """An affine map from W wide features to D. Patches and globals are centred each on their own mean: in a network
    with a [cls] token they differ by more than images do."""

    patch_mean: Tensor
    """(W,)."""
    global_mean: Tensor
    """(W,)."""
    components: Tensor
    """(W, D)."""

    def patches(self, features: Tensor) -> Tensor:
        """(..., W) patch features to (..., D)."""
        return (features - self.patch_mean) @ self.components

    def globals(self, features: Tensor) -> Tensor:
        """(..., W) global features to (..., D)."""
        return (features - self.global_mean) @ self.components


def _pca(patches: np.ndarray, dim: int, whiten: float, seed: int) -> np.ndarray:
    """The directions of most variance, each divided by its standard deviation to the power `whiten`."""
    from sklearn.decomposition import PCA  # a second to import, and CLIP needs no reduction

    pca = PCA(dim, random_state=seed).fit(patches)  # of wide features by a randomized solver
    return pca.components_.T / np.sqrt(pca.explained_variance_).clip(1e-6) ** whiten


def _random(patches: np.ndarray, dim: int, whiten: float, seed: int) -> np.ndarray:
    """Random directions (Johnson and Lindenstrauss), which keep cosines about as they are; nothing is whitened."""
    from sklearn.random_projection import GaussianRandomProjection

    return GaussianRandomProjection(dim, random_state=seed).fit(patches).components_.T


REDUCTIONS: Dict[str, Callable[[np.ndarray, int, float, int], np.ndarray]] = {"pca": _pca, "random": _random}
"""`--encoder_reduction`: from (n, W) patches, D, the power of whitening and a seed to components (W, D)."""


def fit_reduction(patches: Tensor, globals_: Tensor, dim: int, kind: str = "pca", whiten: float = 0.5,
                  seed: int = 0) -> Reduction:
    """Fit a projection.

    Args:
        patches: (n, W) patch features of training images.
        globals_: (m, W) their global ones.
        dim: D at most; W and n are limits too.
        kind: one of `REDUCTIONS`.
        whiten: 0 keeps the variances, 1 makes all of them 1; between, small directions gain on large ones.
        seed: of a random projection, and of the randomized solver of PCA.
    """
    dim = min(dim, *patches.shape)
    components = REDUCTIONS[kind](patches.double().numpy(), dim, whiten, seed)
    return Reduction(patches.mean(dim=0), globals_.mean(dim=0), torch.from_numpy(components).float())
