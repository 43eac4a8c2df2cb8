"""Photos in batches: decoded, transformed and made into thumbnails by worker processes, a few batches ahead."""
from __future__ import annotations

import io
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.files import DataError
from datasets.images import read_image
from engine.pictures.drawings import fit

THUMBNAIL = 256
"""Pixels of a thumbnail's longer side: about 10 kB each."""


class Thumbnail(NamedTuple):
    """A small picture of a photo."""

    jpeg: bytes
    width: int
    height: int


class LoadedPhoto(NamedTuple):
    """What a worker makes of a photo, less its pixels."""

    row: int
    """Its place in the list."""
    fault: str
    """Why it cannot be read; else empty."""
    thumbnail: Optional[Thumbnail]
    """Where thumbnails are asked for."""


class PhotoBatch(NamedTuple):
    """Consecutive photos."""

    photos: List[LoadedPhoto]
    groups: List[Tuple[List[int], Tensor]]
    """Places in `photos` of those of one size, and their pixels (n, 3, H, W)."""


class PhotoDataset(Dataset):
    """Item i is photo i and its pixels; one that cannot be read has a fault in place of pixels."""

    def __init__(self, paths: Sequence[str], transform: Callable[[Any], Tensor], thumbnails: bool) -> None:
        self.paths = paths
        self.transform = transform
        self.thumbnails = thumbnails

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tuple[LoadedPhoto, Optional[Tensor]]:
        try:
            photo = read_image(self.paths[index], getattr(self.transform, "min_side", None))
        except DataError as error:
            return LoadedPhoto(index, str(error), None), None
        thumbnail = make_thumbnail(photo) if self.thumbnails else None
        return LoadedPhoto(index, "", thumbnail), self.transform(photo)


def make_thumbnail(photo: Image.Image) -> Thumbnail:
    """The photo as a JPEG of at most `THUMBNAIL` pixels."""
    small, buffer = fit(photo, THUMBNAIL), io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return Thumbnail(buffer.getvalue(), *small.size)


def _collate(items: List[Tuple[LoadedPhoto, Optional[Tensor]]]) -> PhotoBatch:
    places: Dict[Tuple[int, ...], List[int]] = {}
    for place, (_, pixels) in enumerate(items):
        if pixels is not None:
            places.setdefault(tuple(pixels.shape), []).append(place)
    groups = [(rows, torch.stack([pixels for row in rows if (pixels := items[row][1]) is not None]))
              for rows in places.values()]
    return PhotoBatch([photo for photo, _ in items], groups)


def load_photos(paths: Sequence[str], transform: Callable[[Any], Tensor], batch_size: int, num_workers: int,
                thumbnails: bool) -> Iterator[PhotoBatch]:
    """The photos in order, a batch at a time; what waits in memory does not depend on how many there are.

    Args:
        paths: the files.
        transform: from the RGB PIL image to (3, H, W).
        batch_size: photos a batch.
        num_workers: processes that decode, at most one a core.
        thumbnails: make thumbnails too.
    """
    return iter(DataLoader(PhotoDataset(paths, transform, thumbnails), batch_size, collate_fn=_collate,
                           num_workers=min(num_workers, os.cpu_count() or 1)))
