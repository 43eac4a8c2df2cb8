"""The reduction of wide features: what it keeps, what it whitens, and what the seed changes."""
from __future__ import annotations

import pytest
import torch

from models.backbones.reduction import REDUCTIONS, fit_reduction

SCALES = torch.tensor([9.0, 4.0, 1.0, 0.1, 0.1, 0.1])
TURN = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]


def wide(count: int, shift: float = 3.0) -> torch.Tensor:
    """(count, 6) features that vary along three directions, off the centre."""
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(count)) * SCALES @ TURN + shift


@pytest.mark.parametrize(("whiten", "expected"), [(0.0, [81.0, 16.0, 1.0]), (0.5, [9.0, 4.0, 1.0]), (1.0, [1.0] * 3)])
def test_pca_keeps_the_largest_directions_and_whitens_to_a_power(whiten, expected):
    patches = wide(2000)
    reduction = fit_reduction(patches, wide(50, -1.0), 3, whiten=whiten)
    reduced = reduction.patches(patches)
    assert reduced.shape == (2000, 3) and reduced.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(reduced.var(dim=0), torch.tensor(expected), rtol=0.1, atol=0)
    assert reduction.globals(wide(50, -1.0)).mean(dim=0).abs().max() < 1e-3, "globals have a mean of their own"


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_the_seed_tells_all_and_the_width_is_a_limit(kind):
    one, again, other = (fit_reduction(wide(100), wide(9), 2, kind, seed=seed).components for seed in (0, 0, 1))
    assert torch.equal(one, again) and one.shape == (6, 2)
    assert torch.equal(one, other) == (kind == "pca"), "so few patches are decomposed without chance"
    assert fit_reduction(wide(100), wide(9), 256, kind).components.shape == (6, 6)
    assert fit_reduction(wide(4), wide(9), 256, kind).components.shape == (6, 4)
