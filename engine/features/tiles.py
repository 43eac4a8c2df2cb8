"""Half-size tiles of images, which show small things at twice the size."""
from __future__ import annotations

import argparse
import os
from typing import Any, Callable, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from datasets.files import FileState
from datasets.images import read_image
from datasets.split_file import ImageList
from engine.features.stored_rows import stored_rows
from models.encoder import FrozenEncoder


class Tiles(ImageList):
    """Each image as zoom x zoom tiles of half its sides, evenly spaced: item i is tile i % zoom^2 of an image."""

    def __init__(self, images: ImageList, zoom: int) -> None:
        self.images = images
        self.zoom = zoom
        self.folder = images.folder
        self.transform = images.transform
        self.image_ids = [f"{image_id} tile {tile} of {zoom}x{zoom}"
                          for image_id in images.image_ids for tile in range(zoom * zoom)]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Tuple[Any, int]:
        image = read_image(self.path(index))
        row, column = divmod(index % self.zoom ** 2, self.zoom)
        # Tile corners run from 0 to half a side; a single tile is the centre.
        top, left = (0.5 * place / (self.zoom - 1) if self.zoom > 1 else 0.25 for place in (row, column))
        width, height = image.size
        box = (left * width, top * height, (left + 0.5) * width, (top + 0.5) * height)
        return self.transform(image.crop(tuple(round(side) for side in box))), index

    def files(self) -> Sequence[Optional[FileState]]:
        """The files that the tiles are cut from."""
        return [file for file in self.images.files() for _ in range(self.zoom ** 2)]

    def file(self, index: int) -> FileState:
        """The file that tile `index` is cut from."""
        return self.images.file(index // self.zoom ** 2)


def tile_embeddings(encoder: FrozenEncoder, images: ImageList, zoom: int, args: argparse.Namespace) -> Tensor:
    """Plain global features of the zoom x zoom tiles of each image, (n, zoom^2, D), computed once and kept."""
    tiles = Tiles(images, zoom)

    @torch.no_grad()
    def compute(rows: range, advance: Callable[[int], object]) -> Tensor:
        loader = DataLoader(Subset(tiles, range(rows.start * zoom**2, rows.stop * zoom**2)), args.encode_batch_size,
                            num_workers=min(args.num_workers, os.cpu_count() or 1))
        embeddings = torch.cat([encoder.encode_whole(batch.to(encoder.device)).cpu() for batch, _ in loader])
        advance(len(rows))
        return embeddings.view(len(rows), zoom**2, -1)

    meta = {"tiles": zoom, **encoder.identity(), "transform": repr(images.transform)}
    return stored_rows(compute, images, (zoom**2, encoder.embed_dim), "float16", "tiles (train)", meta, args)
