"""TagCLIP on a test split: images at their native size, batched where sizes agree."""
from __future__ import annotations

import argparse
import math
import os
from collections import defaultdict
from typing import Callable, DefaultDict, List, Sequence, Tuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from datasets.files import DataError
from datasets.images import ImageTransform, image_transform
from datasets.registry import DatasetSpec
from datasets.split_file import ImageList
from datasets.tagclip_words import published_words
from engine.evaluation.evaluation_set import EvaluationSet
from engine.features.stored_rows import stored_rows
from engine.features.text_embeddings import encode_words
from models.baselines.tagclip import TagCLIP
from models.encoder import weights_digest

ATTENTION_BUDGET = 2**27
"""Attention weights of a batch, summed over layers: 512 MB in fp32, and as much again while they are computed."""

MAX_WAITING = 64
"""Images that wait in memory for others of their size."""


class _LimitPatches:
    """Scale an image down where it has more than `limit` patches."""

    def __init__(self, patch_size: int, limit: int) -> None:
        self.patch_size = patch_size
        self.limit = limit

    def __repr__(self) -> str:
        return f"LimitPatches({self.patch_size}, {self.limit})"

    def __call__(self, image: Image.Image) -> Image.Image:
        area = math.prod(math.ceil(side / self.patch_size) for side in image.size)
        if area <= self.limit:
            return image
        # Rounded down to whole patches, so that rounding cannot lead above the limit again.
        scale = math.sqrt(self.limit * self.patch_size**2 / math.prod(image.size))
        width, height = (max(int(side * scale) // self.patch_size, 1) * self.patch_size for side in image.size)
        return image.resize((width, height), Image.BICUBIC)


def native_transform(patch_size: int, max_patches: int) -> ImageTransform:
    """Both sides rounded up to a multiple of the patch; larger images are scaled down to at most `max_patches`."""
    return ImageTransform([_LimitPatches(patch_size, max_patches), *image_transform(patch_size, "native").transforms])


def prompt_words(spec: DatasetSpec, source: str) -> Sequence[str]:
    """What stands in the prompts: words for the classes, then backgrounds, which join the softmax.

    Args:
        spec: the dataset.
        source: `--prompt_words`, "published" or "ours".

    Raises:
        DataError: the authors publish no words for the dataset.
    """
    if source == "ours":
        return spec.prompt_names(spec.categories)
    words = published_words(spec.name)
    if words is None:
        raise DataError(f"--prompt_words published: TagCLIP's authors publish none for {spec.name}; leave it out, or "
                        "say --prompt_words ours")
    return words


def tagclip_scores(test: EvaluationSet) -> Tensor:
    """Scores of the test images, (n, C)."""
    args, clip_model = test.args, test.clip_model
    transform = native_transform(clip_model.visual.patch_size, args.max_patches)
    images = test.images.with_transform(transform)
    words = prompt_words(test.spec, args.prompt_words)
    tagger = TagCLIP(clip_model, encode_words(clip_model, words, args.prompts), test.num_classes,
                     args.published_behaviour, args.encode_batch_size)
    meta = {"method": "tagclip", "weights": weights_digest(clip_model), "transform": repr(transform),
            "words": words, "classes": test.num_classes, "prompts": args.prompts,
            "published_behaviour": args.published_behaviour}

    def compute(rows: range, advance: Callable[[int], object]) -> Tensor:
        return _score_by_size(tagger, images, rows, args, test.device, advance)

    return stored_rows(compute, images, (test.num_classes,), "float32", "TagCLIP", meta, args)


def _score_by_size(tagger: TagCLIP, images: ImageList, rows: range, args: argparse.Namespace, device: torch.device,
                   advance: Callable[[int], object]) -> Tensor:
    """Scores of some images, (rows, C): they wait for others of their size, within limits."""
    scores = torch.empty(len(rows), tagger.num_classes)
    waiting: DefaultDict[Tuple[int, ...], List[Tuple[int, Tensor]]] = defaultdict(list)

    def score(shape: Tuple[int, ...]) -> None:
        places, batch = zip(*waiting.pop(shape))
        scores[list(places)] = tagger(torch.stack(batch).to(device)).cpu()
        advance(len(places))

    loader = DataLoader(Subset(images, rows), batch_size=None, num_workers=min(args.num_workers, os.cpu_count() or 1))
    for image, row in loader:
        shape = tuple(image.shape)
        waiting[shape].append((row - rows.start, image))
        if len(waiting[shape]) >= min(batch_limit(tagger, shape), args.encode_batch_size):
            score(shape)
        elif sum(map(len, waiting.values())) >= MAX_WAITING:
            score(max(waiting, key=lambda size: len(waiting[size])))
    for shape in list(waiting):
        score(shape)
    return scores


def batch_limit(tagger: TagCLIP, shape: Tuple[int, ...]) -> int:
    """How many images of a shape (3, H, W) fit the budget; one always does."""
    rows, columns = tagger.clip.visual.grid(*shape[1:])
    layers = len(tagger.clip.visual.transformer.blocks)
    return max(1, ATTENTION_BUDGET // (layers * (rows * columns + 1) ** 2))
