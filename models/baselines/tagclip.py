"""TagCLIP (Lin et al., AAAI 2024): training-free tags from the patches and the attention of a frozen CLIP.

Three steps: patches are classified (self-only last block), their scores are smoothed along the attention that several
layers agree on (DMAR: dual-masking attention refinement), and classes that may be present are looked at again in
their own crop (CWR: class-wise reidentification).

A published script accompanies the paper. It rounds the maps down to whole numbers of 0..255 before it looks for
regions, cuts boxes that touch the right or lower border one patch short, and gives up on all remaining classes of an
image at the first box that is thereby empty. `published_behaviour` reproduces all three; without it maps are not
rounded, boxes reach the border and every class gets its turn.
"""
from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from clip.model import CLIP
from models.baselines.zero_shot import zero_shot_scores
from models.masks import min_max

Box = Tuple[int, int, int, int]
"""Top, bottom, left, right in patches; bottom and right are the first ones outside."""

_EIGHT_NEIGHBOURS = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
"""Neighbours within a map of a stack of maps, none across."""


def agreed_attention(attentions: Tensor) -> Tensor:
    """The attention between patches that several layers agree on, A.

    A = V * mean of the three layers before the last; V is 1 where enough layers exceed their own mean: a third of
    them, which are the paper's 4 of 12 (thirds for other depths are our choice). Rows are not normalised again.

    Args:
        attentions: (layers, N, N) head-averaged attention of every layer, without [cls].
    """
    layers = len(attentions)
    votes = (attentions > attentions.mean(dim=(1, 2), keepdim=True)).sum(dim=0)
    agreed = votes >= -(-layers // 3)
    return attentions[max(layers - 4, 0):max(layers - 1, 1)].mean(dim=0) * agreed


def box_columns(refined: Tensor, grid: Tuple[int, int], published: bool) -> Tensor:
    """The patches inside the boxes of each category's regions, (N, O) bool.

    A region is a connected part (8 neighbours) of the patches whose min-max-normalised score exceeds the map's mean;
    as published, both are first scaled to 0..255 and rounded down.

    Args:
        refined: (N, O) scores R = A P.
        grid: rows and columns of the patches.
        published: see the module.
    """
    rows, columns = grid
    maps = min_max(refined.T)
    means = maps.mean(dim=1, keepdim=True)
    if published:
        maps, means = (255 * maps).floor(), (255 * means).floor()
    above = (maps > means).view(-1, rows, columns).cpu().numpy()
    inside = np.zeros(above.shape, dtype=bool)
    for category, y, x in ndimage.find_objects(ndimage.label(above, _EIGHT_NEIGHBOURS)[0]):
        top, bottom, left, right = _clamped((y.start, y.stop, x.start, x.stop), grid, published)
        inside[category, top:bottom, left:right] = True
    if not published:
        inside[~inside.any(axis=(1, 2))] = True  # a constant map has no region to confine it to
    return torch.from_numpy(inside.reshape(len(inside), -1).T.copy()).to(refined.device)


def dual_masking_refinement(probabilities: Tensor, attention: Tensor, grid: Tuple[int, int],
                            published: bool = False) -> Tensor:
    """DMAR: R_c = (A with the columns outside c's boxes zeroed) P_c for every category c at once, (N, O).

    Args:
        probabilities: (N, O) softmax of the patches over the categories, P.
        attention: (N, N), A of `agreed_attention`.
        grid: rows and columns of the patches, row by row.
        published: see the module.
    """
    # Zeroing columns of A for one category is zeroing that category's rows of P.
    return attention @ (probabilities * box_columns(attention @ probabilities, grid, published))


def _clamped(box: Box, grid: Tuple[int, int], published: bool) -> Box:
    if not published:
        return box
    (top, bottom, left, right), (rows, columns) = box, grid
    return top, min(bottom, rows - 1), left, min(right, columns - 1)


class View(NamedTuple):
    """The crop in which one class is looked at again."""

    category: int
    image: Tensor
    """(3, R, R) at the encoder's resolution."""
    patches: Tensor
    """(patches of an R x R image,) bool, True where [cls] may look."""


def reidentification_views(image: Tensor, refined: Tensor, scores: Tensor, patch_size: int, resolution: int,
                           published: bool = False) -> List[View]:
    """CWR: a crop for each class whose score exceeds the midpoint of the range of all refined scores.

    The crop is the box around the patches whose min-max-normalised R_c exceeds 0.5.

    Args:
        image: (3, H, W).
        refined: (N, O), R.
        scores: (C,) maximum of R over the patches, the first C of the O categories.
        patch_size: side of a patch in pixels.
        resolution: side of the crops after resizing.
        published: see the module.
    """
    grid = image.shape[1] // patch_size, image.shape[2] // patch_size
    views = []
    for category in (scores > (refined.min() + refined.max()) / 2).nonzero()[:, 0].tolist():
        mask = (min_max(refined[:, category]) > 0.5).view(grid)
        box = _bounding_box(mask)
        top, bottom, left, right = _clamped(box, grid, published) if box else (0, 0, 0, 0)
        if top == bottom or left == right:
            if published:
                break
            continue
        side = resolution // patch_size
        patches = F.interpolate(mask[None, None, top:bottom, left:right].float(), (side, side), mode="nearest")
        pixels = image[:, top * patch_size:bottom * patch_size, left * patch_size:right * patch_size]
        crop = F.interpolate(pixels[None], (resolution, resolution), mode="bilinear", align_corners=False)
        views.append(View(category, crop[0], patches.flatten() > 0))
    return views


def _bounding_box(mask: Tensor) -> Optional[Box]:
    ys, xs = mask.nonzero(as_tuple=True)
    return (int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1) if len(ys) else None


class ScoredMaps(NamedTuple):
    """What TagCLIP makes of a batch of images."""

    scores: Tensor
    """(B, C) in 0..1."""
    refined: Tensor
    """(B, N, O), R: the classes, then the backgrounds."""


class TagCLIP:
    """Scores of images at their native size.

    Args:
        clip_model: the frozen CLIP.
        text_embeddings: (O, D) of the classes, then the backgrounds, which join the softmax.
        num_classes: C.
        published_behaviour: repeat what the published script does otherwise, see the module.
        crop_batch_size: crops a pass of the encoder.
    """

    def __init__(self, clip_model: CLIP, text_embeddings: Tensor, num_classes: int, published_behaviour: bool = False,
                 crop_batch_size: int = 32) -> None:
        self.clip = clip_model
        self.text_embeddings = text_embeddings
        self.num_classes = num_classes
        self.published = published_behaviour
        self.crop_batch_size = crop_batch_size

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Scores (B, C) in 0..1 of normalised images (B, 3, H, W), whose sides are multiples of the patch size."""
        return self.scores_and_maps(images).scores

    @torch.no_grad()
    def scores_and_maps(self, images: Tensor) -> ScoredMaps:
        """The scores, and the refined maps that they are the maxima of before reidentification."""
        visual = self.clip.visual
        grid = visual.grid(*images.shape[2:])
        embeddings, attentions = self.clip.encode_image_attentions(images)
        scores, maps, views = [], [], []
        for row, image in enumerate(images):
            refined = dual_masking_refinement(zero_shot_scores(embeddings[row], self.text_embeddings),
                                              agreed_attention(attentions[:, row, 1:, 1:]), grid, self.published)
            maps.append(refined)
            scores.append(refined[:, :self.num_classes].amax(dim=0))
            views += [(row, view) for view in reidentification_views(
                image, refined, scores[-1], visual.patch_size, visual.input_resolution, self.published)]
        return ScoredMaps(self._reidentified(torch.stack(scores), views), torch.stack(maps))

    def _reidentified(self, scores: Tensor, views: List[Tuple[int, View]]) -> Tensor:
        """Average the score of each class that has a view with its probability in the view."""
        for start in range(0, len(views), self.crop_batch_size):
            chunk = views[start:start + self.crop_batch_size]
            crops = torch.stack([view.image for _, view in chunk])
            patches = torch.stack([view.patches for _, view in chunk])
            probabilities = zero_shot_scores(self.clip.encode_image(crops, patch_mask=patches), self.text_embeddings)
            rows = torch.tensor([row for row, _ in chunk])
            categories = torch.tensor([view.category for _, view in chunk])
            own = probabilities[torch.arange(len(chunk)), categories]
            scores[rows, categories] = (scores[rows, categories] + own) / 2
        return scores
