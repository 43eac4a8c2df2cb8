"""Tiles of images, which show small things at twice or three times the size: their images and global features."""
from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Protocol, Sequence, Tuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from datasets.files import FileState
from datasets.images import ImageTransform, read_image
from datasets.split_file import ImageList
from engine.features.feature_store import PackedFeatures, unpack
from engine.features.stored_rows import stored_rows
from models.encoder import Features, FrozenEncoder


@dataclass(frozen=True)
class TileGrid:
    """Evenly spaced tiles of one size."""

    per_side: int
    parts: int = 2
    """A tile has this part of the sides of the image: half of them, a third."""

    @property
    def count(self) -> int:
        """Tiles of an image."""
        return self.per_side ** 2

    def cut(self, photo: Image.Image, tile: int) -> Image.Image:
        """Tile 0..count - 1 of a photo, row by row; at least a pixel."""
        row, column = divmod(tile, self.per_side)
        width, height = photo.size
        (left, right), (top, bottom) = self._pixels(column, width), self._pixels(row, height)
        return photo.crop((left, top, right, bottom))

    def _pixels(self, place: int, length: int) -> Tuple[int, int]:
        """From where to where a tile reaches: the first from the start, the last to the end; one alone is central."""
        side = 1 / self.parts
        start = (1 - side) * (place / (self.per_side - 1) if self.per_side > 1 else 0.5)
        low = min(round(start * length), length - 1)
        return low, max(round((start + side) * length), low + 1)


def tile_grids(args: argparse.Namespace) -> Tuple[TileGrid, ...]:
    """The tiles that `--tiles` and `--small_tiles` ask for; () without either."""
    # eval.py has them from a checkpoint alone
    grids = TileGrid(getattr(args, "tiles", 0)), TileGrid(getattr(args, "small_tiles", 0), parts=3)
    return tuple(grid for grid in grids if grid.count)


def count_tiles(args: argparse.Namespace) -> int:
    """T, all tiles of an image."""
    return sum(grid.count for grid in tile_grids(args))


class TileTransform(ImageTransform):
    """From a photo to its T tiles, (T, 3, S, S), behind the whole photo where that is asked for.

    Args:
        transform: from a photo to (3, S, S).
        grids: the tiles.
        whole: the photo itself comes first.
    """

    def __init__(self, transform: Callable[[Image.Image], Tensor], grids: Sequence[TileGrid],
                 whole: bool = False) -> None:
        super().__init__([transform])
        self.grids = grids
        self.whole = whole

    def __call__(self, photo: Image.Image) -> Tensor:
        tiles = [grid.cut(photo, tile) for grid in self.grids for tile in range(grid.count)]
        return torch.stack([super(TileTransform, self).__call__(view) for view in ([photo] * self.whole + tiles)])


class Tiles(ImageList):
    """Each image as zoom x zoom tiles of half its sides, evenly spaced: item i is tile i % zoom^2 of an image."""

    def __init__(self, images: ImageList, zoom: int) -> None:
        self.images = images
        self.grid = TileGrid(zoom)
        self.folder = images.folder
        self.transform = images.transform
        self.image_ids = [f"{image_id} tile {tile} of {zoom}x{zoom}"
                          for image_id in images.image_ids for tile in range(zoom * zoom)]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Tuple[Any, int]:
        photo = read_image(self.path(index))
        return self.transform(self.grid.cut(photo, index % self.grid.count)), index

    def files(self) -> Sequence[Optional[FileState]]:
        """The files that the tiles are cut from."""
        return [file for file in self.images.files() for _ in range(self.grid.count)]

    def file(self, index: int) -> FileState:
        """The file that tile `index` is cut from."""
        return self.images.file(index // self.grid.count)


def tile_embeddings(encoder: FrozenEncoder, images: ImageList, grid: TileGrid, args: argparse.Namespace,
                    what: str = "train", root: Optional[Path] = None) -> Tensor:
    """Plain global features of the tiles of each image, (n, T, D), computed once and kept.

    They come in fp16 and are read from the disk as they are asked for.

    Args:
        encoder: the frozen encoder.
        images: the images.
        grid: the tiles.
        args: `--feature_root`, `--no_feature_store`, `--num_workers` and `--encode_batch_size`.
        what: for the progress bar.
        root: holds them (default: `--feature_root`).
    """
    tiled = images.with_transform(TileTransform(images.transform, [grid]))

    @torch.no_grad()
    def compute(rows: range, advance: Callable[[int], object]) -> Tensor:
        loader = DataLoader(Subset(tiled, rows), max(1, args.encode_batch_size // grid.count),
                            num_workers=min(args.num_workers, os.cpu_count() or 1))
        embeddings = []
        for batch, _ in loader:
            embeddings.append(encoder.encode_whole(batch.flatten(0, 1).to(encoder.device)).cpu())
            advance(len(batch))
        return torch.cat(embeddings).unflatten(0, (-1, grid.count))

    name = f"{grid.per_side}x{grid.per_side} {'' if grid.parts == 2 else 'small '}tiles ({what})"
    # Tiles of half the sides were there first, and their stores do not name the size.
    size = {} if grid.parts == 2 else {"tile_parts": grid.parts}
    meta = {"tiles": grid.per_side, **size, **encoder.identity(), "transform": repr(images.transform)}
    return stored_rows(compute, images, (grid.count, encoder.embed_dim), "float16", name, meta, args, root, mapped=True)


def with_tiles(features: Features, tiles: Tensor) -> Features:
    """The features of a batch with those of its tiles, (B, T, D), behind the global ones."""
    return features._replace(global_embeddings=torch.cat([features.global_embeddings, tiles], dim=1))


class Source(Protocol):
    """A store, or what stands for one."""

    def __len__(self) -> int: ...

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""

    def plain_globals(self) -> Tensor:
        """The global embeddings of the unmasked images, (n, D) in float32."""

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        """The features of some rows, in their order."""


class TiledFeatures:
    """A store, with the features of the tiles behind the global ones of each image: (B, 3 + T, D)."""

    def __init__(self, source: Source, tiles: Sequence[Tensor]) -> None:
        self.source = source
        self.tiles = tiles

    def __len__(self) -> int:
        return len(self.source)

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.source.grid

    def plain_globals(self) -> Tensor:
        """The global embeddings of the unmasked images, (n, D) in float32."""
        return self.source.plain_globals()

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        """The features of some rows, in their order."""
        packed = self.source.read(rows, pinned)
        globals_ = packed["global_embeddings"]
        picked = torch.as_tensor(rows, dtype=torch.long)
        together = torch.cat([globals_, *(tiles[picked].to(globals_) for tiles in self.tiles)], dim=1)
        return {**packed, "global_embeddings": together.pin_memory() if pinned and not globals_.is_cuda else together}

    def __getitem__(self, rows: Sequence[int]) -> Features:
        """The features of some rows, in their order, as float32."""
        return unpack(self.read(rows))
